"""`python -m einc` is the command line."""

from einc.cli.app import main

main()
