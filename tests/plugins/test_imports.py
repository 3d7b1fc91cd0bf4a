"""Importing energycomp, asking for help and listing plugins stay light: measured in fresh interpreters."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

import energycomp

# Printed by the child itself when it ends, whatever it ran before.
HEAVY = """
import atexit, sys
heavy = {"torch", "diffusers", "transformers", "torchvision", "accelerate", "matplotlib", "scipy"}
atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr))
"""
LIGHT = {
    "import": "import energycomp; dir(energycomp); energycomp.hookimpl",
    "commands": "import energycomp.cli.app, energycomp.images, energycomp.cli.output; "
                "assert not {'PIL', 'tqdm', 'torchmetrics'} & sys.modules.keys()",
    **{name: f"sys.argv = ['energycomp', {name!r}]; from energycomp.cli.app import main; main()"
       for name in ("--help", "--version", "plugins", "env")},
}  # fmt: skip


@pytest.mark.parametrize("name", LIGHT)
def test_light_commands_import_nothing_heavy_and_take_under_a_second(name: str) -> None:
    before = os.times()
    done = subprocess.run([sys.executable, "-c", HEAVY + LIGHT[name]], capture_output=True, text=True, check=True)
    after = os.times()
    assert "heavy: []" in done.stderr
    # The child's processor time, 0.2 s here, and not the clock on the wall: other work on the cores must not fail this.
    spent = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    assert spent < 1.0


def test_every_public_name_resolves_and_completion_offers_no_other() -> None:
    offered = {name for name in dir(energycomp) if not name.startswith("_")}
    assert {name for name in offered if not isinstance(getattr(energycomp, name), ModuleType)} == {*energycomp.__all__}
    assert [name for name in energycomp.__all__ if getattr(energycomp, name) is None] == []
    assert not offered & {"annotations", "TYPE_CHECKING", "items", "frames", "first_use"}
    with pytest.raises(AttributeError, match="no attribute 'Compozer'"):
        _ = energycomp.Compozer
