"""`python -m services.cli`: the command `solfa` without an installed script."""

from services.cli import main

main()
