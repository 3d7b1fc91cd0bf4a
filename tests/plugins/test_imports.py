"""Importing energycomp, asking for help and listing plugins stay light: measured in fresh interpreters."""

import os
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import energycomp
from energycomp import images
from energycomp.imports import moved

# Printed by the child itself when it ends, whatever it ran before.
HEAVY = """
import atexit, sys
heavy = {"torch", "diffusers", "transformers", "torchvision", "accelerate", "matplotlib", "scipy"}
atexit.register(lambda: print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr))
"""
MAIN = "sys.argv = ['energycomp', {!r}]; from energycomp.cli.app import main; main()"
LIGHT = {
    "import": "import energycomp; dir(energycomp); energycomp.hookimpl",
    "help": MAIN.format("--help"),
    "version": MAIN.format("--version"),
    "plugins": MAIN.format("plugins"),
    "env": MAIN.format("env"),
}


@pytest.mark.parametrize("name", LIGHT)
def test_light_commands_import_nothing_heavy_and_take_under_a_second(name: str) -> None:
    before = os.times()
    done = subprocess.run([sys.executable, "-c", HEAVY + LIGHT[name]], capture_output=True, text=True, check=True)
    after = os.times()
    assert "heavy: []" in done.stderr
    # The child's processor time, 0.2 s here, and not the clock on the wall: other work on the cores must not fail this.
    spent = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    assert spent < 1.0


@pytest.mark.parametrize("name", energycomp.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(energycomp, name) is not None
    assert name in dir(energycomp)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Compozer'"):
        _ = energycomp.Compozer


def test_what_completion_offers_is_for_users() -> None:
    offered = {name for name in dir(energycomp) if not name.startswith("_")}
    assert {name for name in offered if not isinstance(getattr(energycomp, name), ModuleType)} == {*energycomp.__all__}
    assert not offered & {"annotations", "TYPE_CHECKING", "items", "frames", "first_use"}


def test_names_that_moved_are_found_with_a_warning() -> None:
    from energycomp_batch import Reader
    from energycomp_lab.checks import check_solver
    from energycomp_lab.evaluation import evaluate
    from energycomp_lab.training import denoising_loss
    from energycomp_samplers import guidance, regional

    with pytest.warns(DeprecationWarning, match=r"energycomp_lab\.training\.denoising_loss now, in energycomp-lab"):
        assert energycomp.denoising_loss is denoising_loss
    for module, name, expected in (
        ("batch", "Reader", Reader),
        ("evaluation", "evaluate", evaluate),
        ("testing", "check_solver", check_solver),
    ):
        with pytest.warns(DeprecationWarning, match="now, in energycomp-(lab|batch)"):
            assert getattr(import_module(f"energycomp.{module}"), name) is expected
    with pytest.warns(DeprecationWarning, match=r"energycomp\.items is energycomp\.components\.items now"):
        assert energycomp.items is import_module("energycomp.components").items
    with pytest.warns(DeprecationWarning, match=r"energycomp_samplers\.regional now, in energycomp-samplers"):
        assert energycomp.regional is regional
    for name in ("AdaptiveProjected", "Rescaled", "ZeroStar"):
        with pytest.warns(DeprecationWarning, match=rf"energycomp_samplers\.guidance\.{name} now"):
            assert getattr(import_module("energycomp.sampling"), name) is getattr(guidance, name)
    with pytest.warns(DeprecationWarning, match=r"is energycomp\.images\.grid now"):
        assert import_module("energycomp.viz").grid is images.grid


def test_without_the_package_the_way_there_is_named() -> None:
    with pytest.raises(ImportError, match="pip install energycomp-nowhere"):
        moved("energycomp_lab.training", "energycomp_nowhere.training")("fit")
