"""The check of a plugin in its own process: a plugin that ends or blocks the process is reported."""

import textwrap
from collections.abc import Callable

import pytest

from energycomp.errors import NotFoundError
from energycomp_lab.commands import check

Install = Callable[..., None]

HANGS = "import threading; threading.Event().wait()"
HOOK = """
from energycomp import hookimpl
@hookimpl
def energycomp_register(add):
    add.solver("odd", make)
def make():
    import os
    print("not JSON")
    os._exit(3)
"""


@pytest.fixture(autouse=True)
def only_odd(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENERGYCOMP_PLUGINS", "odd")


@pytest.mark.parametrize(
    ("source", "limit", "reason"),
    [
        ("import os; os._exit(0)", 60.0, "it ended the process, with exit code 0"),
        ("import os; os.abort()", 60.0, "it ended the process, with exit code -6"),
        (HANGS, 1.0, "it did not end within 1 s"),
    ],
)
def test_an_import_that_does_not_return(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, limit: float, reason: str
) -> None:
    monkeypatch.setattr(check, "LIMIT", limit)
    install("odd", source)
    assert check.check_in_process("odd") == [{"what": "import", "passed": False, "reason": reason, "seconds": 0.0}]


def test_a_factory_that_ends_the_process(install: Install) -> None:
    install("odd", textwrap.dedent(HOOK))
    *before, last = check.check_in_process("energycomp-odd")
    passed = [one["what"] for one in before if one["passed"]]
    assert passed == ["import", "import is quick and light", "names are unique"]
    assert (last["what"], last["passed"]) == ("solver odd", False)
    assert last["reason"] == "it ended the process, with exit code 3"


def test_a_name_that_is_not_installed() -> None:
    with pytest.raises(NotFoundError, match=r"No plugin named 'even' is installed\. Installed: core \(energycomp"):
        check.check_in_process("even")
