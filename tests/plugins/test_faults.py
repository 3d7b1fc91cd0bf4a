"""Faulty plugins beside plugins that work, in front of the commands: all of them together, and each alone.

How discovery names each fault is in test_registry.py; packages that pip has installed are in test_examples.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from PIL import Image

from energycomp import load, plugins
from energycomp.models import save_pretrained
from energycomp.plugins import discovery
from energycomp.testing import tiny_model
from energycomp_lab.checks import check_plugin

pytestmark = pytest.mark.skipif(
    not {"pursuit"} <= set(plugins.names("solvers")) or "clevr" not in plugins.names("models"),
    reason="what must go on working are energycomp-clevr and energycomp-solvers",
)

HOOK = """
from energycomp.plugins import hookimpl

@hookimpl
def energycomp_register(add):
    add.solver("{name}", {factory})
"""


@attrs.frozen
class Fault:
    """A package with one fault.

    Args:
        source: of its module, before a hook that registers a solver under the package's name.
        shown: what the listing, or the check, says about it.
        where: the field of `PluginInfo` that says so, if any.
        works: whether its solver can be used all the same.
        factory: of the solver.
        solver: its registered name; the name of the package if left out.
    """

    source: str = ""
    shown: str = ""
    where: str = "error"
    works: bool = False
    factory: str = '"energycomp_solvers.pursuit:Pursuit"'
    solver: str = ""


FAULTS = {
    "import_error": Fault("from energycomp import renamed", "ImportError: cannot import name 'renamed'"),
    "exits": Fault("raise SystemExit('no licence')", "SystemExit: no licence"),
    "twin_one": Fault(shown="2 plugins register the solver 'twin'", where="conflicts", solver="twin"),
    "twin_two": Fault(shown="2 plugins register the solver 'twin'", where="conflicts", solver="twin"),
    "slow": Fault(shown="s to import, in every command that looks up a name", where="warnings", works=True),
    "prints": Fault("print('{hello')", where="", works=True),
    "heavy": Fault("import scipy", "imports scipy", where="", works=True),  # which this process has imported before
    "raises": Fault("def make(): raise OSError('no such device')", "OSError", where="", factory="make"),
    "makes_none": Fault("def make(): pass", where="", factory="make"),
}
TWINS = ("twin_one", "twin_two")
Run = Callable[..., tuple[int, str, str]]
Faulty = Callable[..., Run]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, whose classes plugins register, and a picture."""
    root = tmp_path_factory.mktemp("inputs")
    save_pretrained(tiny_model(), root / "tiny")
    Image.new("RGB", (16, 16), (90, 90, 90)).save(root / "grey.png")
    return root / "tiny", root / "grey.png"


@pytest.fixture
def faulty(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch, run: Run) -> Faulty:
    """Installs packages with these faults beside some that work, and gives the command line."""

    def put(*names: str) -> Run:
        names = TWINS if {*names} <= {*TWINS} else names
        for name in names:
            hook = HOOK.format(name=FAULTS[name].solver or name, factory=FAULTS[name].factory)
            install(name, f"{FAULTS[name].source}\n{hook}")
        if "slow" in names:
            monkeypatch.setattr(discovery, "SLOW", 0.0)
        monkeypatch.setenv("ENERGYCOMP_PLUGINS", ",".join([*names, "clevr", "solvers", "lab"]))
        plugins.reload()
        return run

    return put


def test_every_command_works_with_all_of_them_installed(faulty: Faulty, inputs: tuple[Path, Path]) -> None:
    run = faulty(*FAULTS)
    assert run("--version")[::2] == (0, "")  # it loads no plugin
    for words in ("plugins", "env", "--help"):
        code, _, err = run(words)
        assert (code, "Traceback" in err) == (0, False), words
    infos = {info["name"]: info for info in json.loads(run("plugins", "--json")[1])}
    for name, kind in (("core", "networks"), ("clevr", "models"), ("solvers", "solvers"), ("raises", "solvers")):
        assert infos[name]["registered"][kind]
        assert (infos[name]["error"], infos[name]["conflicts"]) == (None, [])
    code, out, _ = run("sample", "clevr-small", "0.3,0.4", "--steps", 1, "-o", "one.png", "--json")
    assert (code, json.loads(out)["path"]) == (0, "one.png")
    code, out, _ = run("infer", *inputs, "--solver", "pursuit", "--count", 1, "--json")
    assert (code, json.loads(out)["count"]) == (0, 1)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.where])
def test_it_is_listed_with_its_distribution_and_reason(faulty: Faulty, name: str) -> None:
    run, fault = faulty(name), FAULTS[name]
    (info,) = [info for info in json.loads(run("plugins", "--json")[1]) if info["name"] == name]
    assert (info["distribution"], info["version"]) == (f"energycomp-{name}", "1.0")
    assert fault.shown in str(info[fault.where])
    assert f"energycomp-{name}" in run("plugins")[1]
    failed = " failed" if info["error"] else ""
    assert f"energycomp-{name} 1.0){failed}" in " ".join(json.loads(run("env", "--json")[1])["plugins"])


@pytest.mark.parametrize("name", FAULTS)
def test_alone_it_stops_nothing_but_itself(faulty: Faulty, inputs: tuple[Path, Path], name: str) -> None:
    run, fault = faulty(name), FAULTS[name]
    assert repr(load("clevr-small")(0.3, 0.4)) == "clevr-small(0.3, 0.4)"
    code, out, err = run("infer", *inputs, "--solver", fault.solver or name, "--count", 1, "--json")
    if fault.works:
        assert (code, json.loads(out)["count"]) == (0, 1)
    else:
        assert (code, out) == (2, "")
        assert f"{name} (energycomp-{name} " in err
        assert fault.shown in err
        assert "Traceback" not in err


@pytest.mark.parametrize("name", ["import_error", "twin_one", "raises"])
def test_check_reports_the_reason(faulty: Faulty, name: str) -> None:
    faulty(name)
    failed = [check for check in check_plugin(f"energycomp-{name}") if check.passed is False]
    assert FAULTS[name].shown in failed[0].reason


def test_check_fails_with_the_reason(faulty: Faulty) -> None:
    """By the command, whose process has not imported scipy before."""
    code, out, _ = faulty("heavy")("check", "energycomp-heavy", "--json")
    failed = [check for check in json.loads(out) if check["passed"] is False]
    assert (code, FAULTS["heavy"].shown in failed[0]["reason"]) == (1, True)
