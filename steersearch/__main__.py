"""`python -m steersearch`: the same as the command `steersearch`."""

from steersearch.cli import main

main()
