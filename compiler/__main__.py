"""`python -m einc` is the command line."""

from einc.cli import main

main()
