"""The second world, of the on-policy study: a map, and walks that are written down place by place."""
