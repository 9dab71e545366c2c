"""Where a detached driver can run: one module a kind of profile."""
