"""The example of a plugin with one object of each kind: short, and it works from the command line once installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "examples" / "energycomp-lamps"
METADATA = "Metadata-Version: 2.1\nName: energycomp-lamps\nVersion: 0.1.0\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would write, but a link to the package."""
    site = tmp_path_factory.mktemp("site")
    info = site / "energycomp_lamps-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[energycomp]\nlamps = energycomp_lamps\n")
    (site / "energycomp_lamps").symlink_to(PACKAGE / "energycomp_lamps")
    return site


def run(site: Path, folder: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ENERGYCOMP_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_has_at_most_200_lines_that_are_not_blank() -> None:
    sources = (PACKAGE / "energycomp_lamps").rglob("*.py")
    lines = [line for source in sources for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 200


def test_the_guide_shows_its_solver() -> None:
    section = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8").split("## A complete plugin")[1]
    (block, *_) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    known = {
        line.strip() for line in (PACKAGE / "energycomp_lamps" / "greedy.py").read_text(encoding="utf-8").splitlines()
    }
    assert "class Greedy:" in block
    assert [line for line in block.splitlines() if line.strip() not in known] == []


def test_its_own_tests_pass_and_it_works_from_the_command_line(site: Path, tmp_path: Path) -> None:
    """One process per command costs seconds: all in one process, as a terminal would run it."""
    commands = [
        ["plugins"],
        ["data", "lamps", "-n", "32", "-o", "scenes"],
        ["train", "lamps", "--data", "scenes", "--steps", "2", "-o", "run"],
        ["sample", "run/model", "red", "blue", "--steps", "2", "-o", "scene.png"],
        ["infer", "lamps", "scenes/000000.png", "--solver", "greedy", "--json"],
        ["evaluate", "lamps", "--data", "scenes", "-n", "4", "--json"],
    ]
    story = (
        "import json, sys, pytest\n"
        "assert pytest.main(sys.argv[2:]) == 0\n"
        "from typer.testing import CliRunner; from energycomp.cli import app\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, arguments, catch_exceptions=False)\n"
        "    assert done.exit_code == 0, done.output\n"
        "    print(json.dumps(done.stdout))\n"
    )
    (tmp_path / "story.py").write_text(story)
    tests = str(PACKAGE / "tests")
    own = ["-q", "-p", "no:cacheprovider", "--rootdir", tests, tests]
    *tested, listed, _, trained, _, inferred, evaluated = run(
        site, tmp_path, "story", json.dumps(commands), *own
    ).splitlines()
    assert any("6 passed" in line for line in tested)
    assert "energycomp-lamps" in listed
    assert "2 steps" in trained
    assert (tmp_path / "scene.png").is_file()
    first = json.loads((tmp_path / "scenes" / "lamps.json").read_text())["000000.png"]
    assert sorted(found["value"] for found in json.loads(json.loads(inferred))["objects"]) == sorted(first)
    assert json.loads(json.loads(evaluated))["exact_set"] == 1.0
