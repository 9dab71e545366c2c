"""An executor for another machine, to be read and copied, and the cluster that it is tried on: no choice of `run`."""
