"""The tests of `cluster_cases.py`, in a process that ends in any case, and with it all that Ray has started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

CASES = Path(__file__).with_name("cluster_cases.py")
SECONDS = 1800  # of all cases; each has a limit of its own
MARK = "ENERGYCOMP_TEST_CLUSTER"  # a variable that all processes of a run inherit
INSTALL = "is not installed; pip install -e './plugins/energycomp-batch[test]'"


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """Where Ray keeps the address of its cluster: the next run would wait for one that was killed.

    Its path is short, since those of sockets have 107 characters at most.
    """
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and addresses of the loopback device")
def test_the_cases_of_a_cluster(tmp_path: Path, own_folder: Path) -> None:
    for package in ("ray", "moto", "s3fs", "upath"):
        pytest.importorskip(package, reason=f"{package} {INSTALL}")
    mark = uuid4().hex
    # -s, since what is captured is lost when a case ends the process.
    # Ray's processes are as urgent as others, and none takes this process for a worker of pytest-xdist.
    environment = {**os.environ, MARK: mark, "RAY_worker_niceness": "0", "RAY_TMPDIR": str(own_folder)}
    for name in [name for name in environment if name.startswith("PYTEST_")]:
        del environment[name]
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-s",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        tmp_path / "cases",
    ]
    with log.open("wb") as file:
        running = subprocess.Popen([*command, CASES], stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            code: int | str = running.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = f"none after {SECONDS} s"
        finally:
            kill_all(mark)
            running.wait()
    said = log.read_text(errors="replace")
    assert code == 0, f"exit code {code}\n{said[-20_000:]}"
    assert int(re.findall(r"(\d+) passed", said)[-1]) > 10
    assert marked(mark) == []


def test_what_a_run_leaves_is_found_and_killed() -> None:
    mark = uuid4().hex
    command = ["sleep", "60"]
    with subprocess.Popen(command, env={**os.environ, MARK: mark}, start_new_session=True) as process:
        kill_all(mark)
        assert process.wait(10) == -signal.SIGKILL
    assert marked(mark) == []


def kill_all(mark: str) -> None:
    """Kills the processes of a run: those of Ray are in sessions of their own, and start others until they end."""
    while found := marked(mark):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended
                continue


def marked(mark: str) -> list[int]:
    """The processes that have a mark in their environment; one that has ended has none."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:  # it has ended, or is of another user
            continue
    return found
