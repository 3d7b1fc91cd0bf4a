"""`python -m energycomp`, as in `torchrun -m energycomp train ...`: the installed command of the name `energycomp`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

COMMAND = "energycomp"

if __name__ == "__main__":
    scripts = [*entry_points(group="console_scripts", name=COMMAND)]
    if not scripts:
        sys.stderr.write(
            f"energycomp: got no command {COMMAND}; expected an installed package that has it; install a package of a "
            "model, or energycomp[all]\n"
        )
        sys.exit(2)
    scripts[0].load()()
