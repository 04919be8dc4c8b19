"""The command line: `solfa`."""

from services.cli.main import main

__all__ = ["main"]
