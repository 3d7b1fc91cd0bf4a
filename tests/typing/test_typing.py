"""Scripts of users and the solver of the guide to plugins are among what `mypy` checks."""

import re
import tomllib
from pathlib import Path

from energycomp_lab.checks import check_solver

ROOT = Path(__file__).parents[2]


def solver() -> str:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (block,) = (block for block in blocks if "class RandomSearch" in block)
    return block


def test_mypy_checks_the_scripts_beside_this_one_and_the_solver_of_the_guide_as_it_stands() -> None:
    """`make test` runs mypy, which takes long, once."""
    scripts = {f"tests/typing/{path.name}" for path in Path(__file__).parent.glob("*.py")} - {
        "tests/typing/test_typing.py"
    }
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    assert options["strict"]
    assert len(scripts) == 3
    assert scripts <= set(options["files"])
    assert solver() in Path(__file__).with_name("guide_solver.py").read_text(encoding="utf-8")


def test_the_solver_of_the_guide_conforms() -> None:
    names: dict[str, type] = {}
    exec(compile(solver(), "plugins.md", "exec"), names)  # noqa: S102 - the page is ours
    check_solver(names["RandomSearch"](), tolerance=0.03)
