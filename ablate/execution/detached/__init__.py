"""Drivers that run by themselves: a session of their own on this machine, or a job of a cluster."""
