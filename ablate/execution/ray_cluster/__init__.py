"""Ray as a cluster: a pilot job is a detached actor, and one process of its own speaks to Ray."""
