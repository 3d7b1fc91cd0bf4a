"""The command line, one file per command; `--help` imports neither torch nor diffusers."""

from energycomp.cli.app import app, main
from energycomp.cli.files import save_png
from energycomp.cli.lines import append_line, read_lines

__all__ = ["app", "append_line", "main", "read_lines", "save_png"]
