"""A user's script, the solver of the README, and the examples pass mypy --strict; every package is py.typed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from energycomp_lab.checks import check_solver

mypy = pytest.importorskip("mypy.api")

ROOT = Path(__file__).parents[2]
PROJECTS = [path for folder in (".", "plugins/*", "examples/*") for path in ROOT.glob(f"{folder}/pyproject.toml")]


def solver() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (block,) = (block for block in blocks if "class RandomSearch" in block)
    return block


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The script, and a file that hands the solver to `infer`."""
    readme = tmp_path_factory.mktemp("pages") / "readme_solver.py"
    use = "import energycomp\nenergycomp.infer('scene.png', energycomp.load('clevr'), solver=RandomSearch(tries=3))\n"
    readme.write_text(solver() + "\n\n" + use)
    return [str(Path(__file__).with_name("user_script.py")), str(readme)]


def test_a_typed_script_and_the_solver_of_the_readme(scripts: list[str]) -> None:
    """With the project's own settings, which are strict: they share its cache, so that this takes seconds."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["strict"]
    report, errors, code = mypy.run(["--config-file", str(ROOT / "pyproject.toml"), *scripts])
    assert code == 0, report + errors


def test_the_solver_of_the_readme_conforms() -> None:
    names: dict[str, type] = {}
    exec(compile(solver(), "README.md", "exec"), names)  # noqa: S102 - the page is ours
    check_solver(names["RandomSearch"](), tolerance=0.03)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.parent.name)
def test_every_package_ships_its_types(project: Path) -> None:
    wheel = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert all((project.parent / package / "py.typed").is_file() for package in wheel["packages"])
