"""`python -m tabatlas` is the command `tabatlas`."""

from tabatlas.cli import main

main()
