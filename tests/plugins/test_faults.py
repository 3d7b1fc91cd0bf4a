"""Faulty plugins as real packages: built from a pyproject and installed by pip, next to plugins that work.

All of them together are put before the installed commands, and each fault alone before the commands that look up names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from energycomp import cli, load, plugins
from energycomp.errors import PluginError
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model
from energycomp_lab.checks import check_plugin

build = pytest.importorskip("hatchling.build")
pytestmark = pytest.mark.skipif(
    not {"pursuit"} <= set(plugins.names("solvers")) or "clevr" not in plugins.names("models"),
    reason="what must go on working are energycomp-clevr and energycomp-solvers",
)

HOOK = """
from energycomp import hookimpl
from energycomp.plugins import lazy

@hookimpl
def energycomp_register_solvers():
    return {{"{name}": {factory}}}
"""
PURSUIT = 'lazy("energycomp_solvers.pursuit:Pursuit")'


@attrs.frozen
class Fault:
    """A package with one fault.

    Args:
        source: of its module, before a hook that registers a solver under the package's name.
        shown: what the listing says about it.
        where: the field of `PluginInfo` that says so.
        works: whether its solver can be used all the same.
        factory: of the solver.
        solver: its registered name; the name of the package if left out.
    """

    source: str = ""
    shown: str = ""
    where: str = "error"
    works: bool = False
    factory: str = PURSUIT
    solver: str = ""


FAULTS = {
    "import-error": Fault("from energycomp import renamed", "ImportError: cannot import name 'renamed'"),
    "syntax-error": Fault("def broken(:", "SyntaxError: invalid syntax"),
    "exits": Fault("raise SystemExit('no licence')", "SystemExit: no licence"),
    "signature": Fault(
        "import energycomp\n@energycomp.hookimpl\ndef energycomp_register_models(registry): return {}",
        "hook 'energycomp_register_models'",
    ),
    "wrong-type": Fault(
        "import energycomp\n@energycomp.hookimpl\ndef energycomp_register_models(): return ['mine']",
        "energycomp_register_models returned ['mine']. Expected a mapping",
    ),
    "twin-one": Fault(shown="2 plugins register the solver 'twin'", where="conflicts", solver="twin"),
    "twin-two": Fault(shown="2 plugins register the solver 'twin'", where="conflicts", solver="twin"),
    "slow": Fault(
        "import time; time.sleep(1.1)", "s to import, in every command that looks up a name", "warnings", works=True
    ),
    "prints": Fault("print('{hello')", where="", works=True),
    "heavy": Fault("import scipy", "imports scipy", where="warnings", works=True),
    "dependency": Fault("import a_module_nobody_has", "No module named 'a_module_nobody_has'"),
    "raises": Fault("def make(): raise OSError('no such device')", where="", factory="make"),
    "makes-none": Fault("def make(): pass", where="", factory="make"),
}
LISTED = [name for name, fault in FAULTS.items() if fault.where]


def make_wheel(name: str, fault: Fault, folder: Path, wheels: Path) -> None:
    module = f"energycomp_{name.replace('-', '_')}"
    hook = HOOK.format(name=fault.solver or name, factory=fault.factory)
    folder.mkdir()
    (folder / f"{module}.py").write_text(f"{fault.source}\n{hook}")
    pyproject = f"""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "energycomp-{name}"
        version = "1.0"
        dependencies = ["energycomp>=0.1"]

        [project.entry-points.energycomp]
        {name} = "{module}"

        [tool.hatch.build.targets.wheel]
        only-include = ["{module}.py"]
    """
    (folder / "pyproject.toml").write_text(textwrap.dedent(pyproject))
    with chdir(folder):
        build.build_wheel(str(wheels))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the packages."""
    root = tmp_path_factory.mktemp("faults")
    target, wheels = root / "site", root / "wheels"
    wheels.mkdir()
    for name, fault in FAULTS.items():
        make_wheel(name, fault, root / name, wheels)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, *wheels.iterdir()], check=True)
    return target


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, whose classes plugins register, and a picture."""
    root = tmp_path_factory.mktemp("inputs")
    save_pretrained(tiny_model(), root / "tiny")
    Image.new("RGB", (16, 16), (90, 90, 90)).save(root / "grey.png")
    return root / "tiny", root / "grey.png"


Result = tuple[int, str, str]


@pytest.fixture(scope="module")
def together(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Exit code, stdout and stderr of the commands, in processes of their own, with all faulty packages installed."""
    energycomp = [sys.executable, "-m", "energycomp"]
    names = ("plugins", "plugins --json", "env --json", "--help", "--version")
    commands = {name: [*energycomp, *name.split()] for name in names}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ENERGYCOMP_")} | {"COLUMNS": "200"}
    folder = tmp_path_factory.mktemp("together")

    def run(name: str) -> Result:
        command, env = commands[name], environment | {"PYTHONPATH": str(site)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(run, commands), strict=True))


def test_every_command_works_with_all_of_them_installed(together: dict[str, Result]) -> None:
    assert {name: code for name, (code, _, _) in together.items()} == dict.fromkeys(together, 0)
    assert not [name for name, (_, _, err) in together.items() if "Traceback" in err]


@pytest.mark.parametrize("name", LISTED)
def test_it_is_listed_with_its_distribution_and_reason(together: dict[str, Result], name: str) -> None:
    fault, infos = FAULTS[name], json.loads(together["plugins --json"][1])
    (info,) = [info for info in infos if info["distribution"] == f"energycomp-{name}"]
    assert info["version"] == "1.0"
    shown = info[fault.where]
    assert fault.shown in (shown if isinstance(shown, str) else " ".join(shown))
    assert f"energycomp-{name}" in together["plugins"][1]
    assert f"energycomp-{name} 1.0){' failed' if info['error'] else ''}" in " ".join(
        json.loads(together["env --json"][1])["plugins"]
    )


def test_the_others_are_listed_as_if_nothing_was_wrong(together: dict[str, Result]) -> None:
    infos = {info["name"]: info for info in json.loads(together["plugins --json"][1])}
    for name, kind in (("core", "networks"), ("clevr", "models"), ("solvers", "solvers"), ("raises", "solvers")):
        assert infos[name]["registered"][kind]
        assert infos[name]["error"] is None
        assert not infos[name]["conflicts"]


def test_version_loads_no_plugin(together: dict[str, Result]) -> None:
    assert together["--version"][2] == ""


Run = Callable[..., Result]


@pytest.fixture
def alone(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[[str], Run]]:
    """The command line in this process, with one faulty package there beside those that work, or with all of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("ENERGYCOMP_DISABLE_PLUGINS", raising=False)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["energycomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    def choose(name: str) -> Run:
        faulty = "twin-one,twin-two" if name.startswith("twin") else f"energycomp-{name}"
        if name == "all":
            monkeypatch.delenv("ENERGYCOMP_PLUGINS", raising=False)
        else:
            monkeypatch.setenv("ENERGYCOMP_PLUGINS", f"{faulty},clevr,solvers,lab")
        plugins.reload()
        return call

    yield choose
    for module in {f"energycomp_{name.replace('-', '_')}" for name in FAULTS} & sys.modules.keys():
        del sys.modules[module]
    monkeypatch.undo()
    plugins.reload()


def test_images_are_sampled_and_read_with_all_of_them_installed(
    alone: Callable[[str], Run], inputs: tuple[Path, Path]
) -> None:
    run = alone("all")
    code, out, _ = run("sample", "clevr-small", "0.3,0.4", "--steps", 1, "-o", "one.png", "--json")
    assert (code, json.loads(out)["path"]) == (0, "one.png")
    code, out, _ = run("infer", *inputs, "--solver", "pursuit", "--count", 1, "--json")
    assert (code, json.loads(out)["count"]) == (0, 1)


@pytest.mark.parametrize("name", FAULTS)
def test_alone_it_stops_nothing_but_itself(alone: Callable[[str], Run], inputs: tuple[Path, Path], name: str) -> None:
    run, fault = alone(name), FAULTS[name]
    assert repr(load("clevr-small")(0.3, 0.4)) == "clevr-small(0.3, 0.4)"
    code, out, err = run("infer", *inputs, "--solver", fault.solver or name, "--count", 1, "--json")
    if fault.works:
        assert (code, json.loads(out)["count"]) == (0, 1)
    else:
        assert (code, out) == (2, "")
        assert f"{name} (energycomp-{name} " in err
        assert fault.shown in err
        assert "Traceback" not in err


@pytest.mark.parametrize("name", ["raises", "makes-none"])
def test_what_fails_when_it_is_called_is_no_traceback_but_keeps_its_cause(
    alone: Callable[[str], Run], inputs: tuple[Path, Path], name: str
) -> None:
    alone(name)
    with pytest.raises(
        PluginError, match=rf"the solver '{name}' of the plugin {name} \(energycomp-{name} 1\.0\)"
    ) as caught:
        plugins.find("solvers", name)()
    cause: Any = caught.value.__cause__
    assert (name == "makes-none" and cause is None) or str(cause) == "no such device"


def test_check_fails_with_the_reason(alone: Callable[[str], Run]) -> None:
    """By the command, whose process has not imported scipy before."""
    code, out, _ = alone("heavy")("check", "energycomp-heavy", "--json")
    failed = [check for check in json.loads(out) if check["passed"] is False]
    assert code == 1
    assert FAULTS["heavy"].shown in failed[0]["reason"]


@pytest.mark.parametrize("name", ["import-error", "twin-one", "raises"])
def test_check_reports_the_reason(alone: Callable[[str], Run], name: str) -> None:
    alone(name)
    failed = [check for check in check_plugin(f"energycomp-{name}") if check.passed is False]
    assert (FAULTS[name].shown or "OSError") in failed[0].reason
