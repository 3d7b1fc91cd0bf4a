"""The packages under examples/ and what the template makes, installed, tested and used as a stranger would."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import attrs
import pytest

from energycomp.errors import EnergycompWarning
from energycomp.images import to_output
from energycomp.models import Calibration
from energycomp.testing import planted, tinted_model

copier = pytest.importorskip("copier")
pytest.importorskip("cmaes")
build = pytest.importorskip("hatchling.build")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
OWN = ("lamps", "cmaes", "chain", "galaxies", "lorenz", "posteriors")
KINDS = {**{f"energycomp-{name}": "" for name in OWN}, "energycomp-mine": "solver", "energycomp-discs": "model"}
ODD = {"description": r'The "best" of C:\answers: 100 % {of} them', "author": 'Zoë "Z" O\'Neil'}
LAMPS = [
    ["plugins"],
    ["data", "lamps", "-n", "32", "-o", "scenes"],
    ["train", "lamps", "--data", "scenes", "--steps", "2", "-o", "run"],
    ["sample", "run/model", "red", "blue", "--steps", "2", "-o", "scene.png"],
    ["infer", "lamps", "scenes/000000.png", "--solver", "greedy", "--json"],
    ["evaluate", "lamps", "--data", "scenes", "-n", "4", "--json"],
]
# One process for each of them would cost seconds.
STORY = """
import json, sys, pytest
assert pytest.main(sys.argv[2:]) == 0
from typer.testing import CliRunner
from energycomp_cli import app
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    print(json.dumps(done.stdout))
"""
PIP = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]


@attrs.frozen
class Installed:
    """A folder with the sources of packages, by name, and the folder into which pip has installed them."""

    sources: Path
    site: Path

    def run(self, *arguments: str) -> str:
        """What a Python command prints that imports what is installed and nothing of the sources."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGYCOMP_", "PYTEST_"))}
        environment |= {"PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=self.sources, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def make(folder: Path, **answers: str) -> None:
    copier.run_copy(str(EXAMPLES / "template"), folder, data=answers, defaults=True, quiet=True, unsafe=False)
    assert f"name: {answers['name']}" in (folder / ".copier-answers.yml").read_text()  # `copier update` reads it
    assert "pytest" in (folder / ".github" / "workflows" / "ci.yml").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """All of them beside each other: each child process that imports torch costs seconds."""
    packages = Installed(tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("site"))
    wheels = tmp_path_factory.mktemp("wheels")
    for name, kind in KINDS.items():
        if kind:
            make(packages.sources / name, name=name, kind=kind)
        else:
            shutil.copytree(EXAMPLES / name, packages.sources / name)
    for name in KINDS:
        with chdir(packages.sources / name):
            build.build_wheel(str(wheels))
    packages.run("-m", "pip", "install", *PIP, "--target", str(packages.site), *map(str, wheels.iterdir()))
    return packages


def tidy(folder: Path) -> list[str]:
    """What ruff has to say about a package, by the package's own rules."""
    ruff = [sys.executable, "-m", "ruff"]
    commands = ["check", "--no-cache", "--quiet"], ["format", "--no-cache", "--check", "--quiet"]
    runs = [subprocess.run([*ruff, *c], cwd=folder, capture_output=True, text=True, check=False) for c in commands]
    return [done.stdout + done.stderr for done in runs if done.returncode]


def test_their_own_tests_pass_and_lamps_work_from_the_command_line(installed: Installed) -> None:
    own = ["-v", "-p", "no:cacheprovider", "--rootdir=.", *KINDS]
    *tested, listed, _, trained, _, inferred, evaluated = installed.run(
        "-c", STORY, json.dumps(LAMPS), *own
    ).splitlines()
    assert {line.split("/")[0] for line in tested if "PASSED" in line} == set(KINDS)
    assert not [line for line in tested if "skipped" in line]
    assert "energycomp-lamps" in listed
    assert "2 steps" in trained
    assert (installed.sources / "scene.png").is_file()
    first = json.loads((installed.sources / "scenes" / "lamps.json").read_text())["000000.png"]
    assert sorted(found["value"] for found in json.loads(json.loads(inferred))["objects"]) == sorted(first)
    assert json.loads(json.loads(evaluated))["exact_set"] == 1.0


@pytest.mark.parametrize("name", KINDS)
def test_a_package_is_complete_and_tidy(installed: Installed, name: str) -> None:
    source = installed.sources / name
    assert {path.name for path in source.iterdir()} >= {"LICENSE", "README.md", "pyproject.toml", "tests"}
    assert (installed.site / name.replace("-", "_") / "py.typed").is_file()
    assert tidy(source) == []


@pytest.mark.parametrize("kind", ["solver", "model"])
@pytest.mark.parametrize("name", ["a-b", "a-" + "b" * 30])
def test_the_template_is_tidy_whatever_the_answers(tmp_path: Path, kind: str, name: str) -> None:
    make(tmp_path / "new", name=name, kind=kind, **ODD)
    assert tidy(tmp_path / "new") == []
    files = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".jinja" or "{" + "{" in path.read_text(encoding="utf-8")]
    assert {path.name for path in files if path.parent.name == "tests"} == {f"test_{kind}.py"}


REFUSED = ["My Plugin", "my plugin", "my_plugin", "1-a", "a--b", "-a-b", "a-b-", "", "torch", "class", "a-" + "b" * 31]


@pytest.mark.parametrize("name", REFUSED)
def test_the_template_refuses_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="Two lower-case words or more"):
        make(tmp_path / "new", name=name)
    assert not (tmp_path / "new").exists()


def test_the_demo_says_in_a_line_what_not_to_trust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    usual = Calibration((1,), ((-20.0, -20.0),), ((1.0, 1.0),), scores=tuple(range(1, 10)), images=20)  # no image is
    model = tinted_model(solver="pursuit", counts=(0, 2), calibration=usual)
    values = model.conditioner.parse(0.3, 0.4)
    demo["read"](model, to_output(planted(model, values), "pil")[0], "planted", tmp_path, values)
    said = [line for line in capsys.readouterr().out.splitlines() if "out of distribution" in line]
    assert [line.startswith("warning: ") for line in said] == [True]
    assert not [one for one in recwarn if issubclass(one.category, EnergycompWarning)]
