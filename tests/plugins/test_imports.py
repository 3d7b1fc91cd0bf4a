"""Importing energycomp, asking for help and listing plugins stay light: measured in fresh interpreters."""

import os
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import energycomp
from energycomp.imports import first_use

# Printed by the child itself when it ends, whatever it ran before.
HEAVY = """
import atexit, sys
heavy = {"torch", "diffusers", "transformers", "torchvision", "accelerate", "matplotlib", "scipy"}
atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr))
"""
LIGHT = {
    "import": "import energycomp; dir(energycomp); energycomp.hookimpl",
    "commands": "import energycomp_cli.commands, energycomp.images, energycomp_cli.output; "
                "assert not {'PIL', 'tqdm', 'torchmetrics'} & sys.modules.keys()",
    **{name: f"sys.argv = ['energycomp', {name!r}]; from energycomp_cli.commands import main; main()"
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


def test_the_library_alone_has_no_command_line() -> None:
    """It is used, with its solvers and samplers, where there is no typer, and says how to get the command."""
    code = "import sys, energycomp; sys.modules |= {'typer': None, 'energycomp_cli': None}\n"
    code += "from energycomp.plugins import find\n"
    code += "from energycomp.testing import tiny_model\n"
    code += "[getattr(energycomp, name) for name in energycomp.__all__]\n"
    code += "composer = energycomp.Composer(tiny_model()(0.3, 0.5))\n"
    code += "composer.sample(1, num_inference_steps=1, sampler=find('samplers', 'smc')())\n"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    code = "import importlib.metadata, runpy; importlib.metadata.entry_points = lambda **_: ()\n"
    code += "runpy.run_module('energycomp', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("energycomp: got no command energycomp; expected")


def test_every_public_name_resolves_and_completion_offers_no_other() -> None:
    offered = {name for name in dir(energycomp) if not name.startswith("_")}
    assert {name for name in offered if not isinstance(getattr(energycomp, name), ModuleType)} == {*energycomp.__all__}
    assert [name for name in energycomp.__all__ if getattr(energycomp, name) is None] == []
    assert not offered & {"annotations", "TYPE_CHECKING", "first_use"}
    with pytest.raises(AttributeError, match=r"no attribute 'Compozer'$") as caught:
        _ = energycomp.Compozer
    assert (caught.value.name, caught.value.obj) == ("Compozer", energycomp)  # Python suggests Composer by these


def test_a_name_of_a_plugin_is_named_where_it_is() -> None:
    for name, home in (("edit", "energycomp_edit.edit"), ("Pursuit", "energycomp_solvers.Pursuit")):
        with pytest.raises(AttributeError, match=rf"no attribute '{name}'; use {home}$"):
            getattr(energycomp, name)
    assert not hasattr(energycomp, "__wrapped__")


def test_a_module_that_is_not_imported_yet_is_no_name_of_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`from energycomp import seeds` asks for the name first, and must load no plugin for it."""
    asked: list[str] = []
    resolve, _ = first_use("energycomp", str(energycomp.__file__), homes_of=lambda name: asked.append(name) or ())
    for name in ("seeds", "__path__x", "nothing"):
        with pytest.raises(AttributeError):
            resolve(name)
    assert asked == ["nothing"]


PLUGINS = ["adopt", "batch", "clevr", "cli", "decomp", "edit", "faces", "lab", "samplers", "scenes", "slots", "solvers"]


def test_packages_export_their_classes_and_import_no_torch_for_it() -> None:
    code = f"import sys, energycomp; from importlib import import_module\nfor name in {PLUGINS}:\n"
    code += "    names = import_module('energycomp_' + name).__all__\n    assert names and 'Mapping' not in names"
    code += "\nassert 'clevr' in energycomp.list_models() and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in PLUGINS:
        module = import_module(f"energycomp_{name}")
        assert all(getattr(module, one) is not None for one in module.__all__)


def test_solvers_are_imported_by_the_name_that_the_pages_have() -> None:
    from energycomp import frames, items
    from energycomp_samplers import SMC
    from energycomp_solvers import SGD, Beam, Enumerate, Pursuit, Relaxed, Weights

    made = (Pursuit, SGD, Enumerate, Beam, Weights, Relaxed, SMC, frames, items)
    assert all(map(callable, made))
