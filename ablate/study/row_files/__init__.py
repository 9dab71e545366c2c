"""Files of training rows as they lie on this disk: read strictly, their shape found, a mistake told with its place."""
