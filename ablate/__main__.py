"""`python -m ablate` is `ablate`."""

from ablate.cli.app import main

main()
