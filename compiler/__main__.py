"""`python -m einc` is the command line."""

from einc.cli.commands import main

main()
