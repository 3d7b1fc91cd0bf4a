"""The command line, a file a command; `--help` imports neither torch nor diffusers."""

from energycomp.cli.app import app, main

__all__ = ["app", "main"]
