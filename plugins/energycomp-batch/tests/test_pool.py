"""Processes side by side: every item is answered, whatever happens to a process."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import pytest

from energycomp.errors import InputError
from energycomp_batch import LostError, Pool, default_processes, pool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


@attrs.frozen
class Squares:
    """Squares of numbers; a process ends when it starts, or gets a number, as often as there is a file for that."""

    folder: Path

    def __call__(self) -> Callable[[int], int]:
        for file in self.folder.glob("start-*"):
            with suppress(FileNotFoundError):  # another process has taken it
                file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return self.square

    def square(self, number: int) -> int:
        if number < 0:
            raise InputError(f"got {number}; expected a number from 0 on")
        for attempt in range(2):
            file = self.folder / f"{number}-{attempt}"
            if file.exists():
                file.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return number**2


def environment(_: int) -> tuple[int, int, str | None, bool]:
    import torch

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return os.getpid(), torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY"), ignored


def test_processes_have_one_thread_and_leave_ctrl_c_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with Pool(partial(lambda_free, environment), 2) as processes:
        found = [answer for _, answer in processes.run(range(6))]
    assert {answer[1:] for answer in found} == {(1, "passive", True)}
    assert os.getpid() not in {answer[0] for answer in found}
    assert "OMP_WAIT_POLICY" not in os.environ


def lambda_free(function: Callable[[int], object]) -> Callable[[int], object]:
    return function


def test_an_item_whose_process_ends_is_tried_once_more(tmp_path: Path) -> None:
    for name in ("3-0", "5-0", "5-1"):
        (tmp_path / name).touch()
    lines: list[str] = []
    with Pool(Squares(tmp_path), 2, report=lines.append) as processes:
        found = dict(processes.run(range(8)))
    lost = found.pop(5)
    assert isinstance(lost, LostError)
    assert str(lost).startswith("got 5, at which its process ended 2 times (SIGKILL, perhaps out of memory); expected")
    assert found == {number: number**2 for number in range(8) if number != 5}
    assert sorted(lines) == [f"a process ended (SIGKILL, perhaps out of memory) at {number}" for number in (3, 5, 5)]


def test_what_a_process_raises_is_raised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got -1; expected"), Pool(Squares(tmp_path), 2) as processes:
        list(processes.run([1, -1, 2, 3]))


def test_processes_that_do_not_start_are_an_error(tmp_path: Path) -> None:
    """The last one is started several times: on a cluster it may have been killed by chance."""
    for number in range(pool.STARTS - 1):
        (tmp_path / f"start-{number}").touch()
    lines: list[str] = []
    with Pool(Squares(tmp_path), 2, report=lines.append) as processes:
        assert dict(processes.run(range(4))) == {number: number**2 for number in range(4)}
    assert [line.partition("; ")[2] for line in lines] == ["going on with 1"] * (pool.STARTS - 1)
    for number in range(pool.STARTS):
        (tmp_path / f"start-{number}").touch()
    with (
        pytest.raises(InputError, match=r"got 2 processes that ended before they were ready \(SIGKILL"),
        Pool(Squares(tmp_path), 2) as processes,
    ):
        list(processes.run(range(4)))


def test_the_number_of_processes_follows_cores_memory_and_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(pool, "_free_memory", lambda: 5 * 2**30)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [default_processes(number) for number in (0, 1, 3, 4, 100)] == [1, 1, 1, 2, 5]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_processes(100) == 2
    monkeypatch.setattr(pool, "_free_memory", lambda: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "")
    assert default_processes(100) == 8
