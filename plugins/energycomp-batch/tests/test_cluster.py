"""The tests of `cluster_cases.py`, in a process that ends in any case, and with it all that Ray has started."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import pytest

CASES = Path(__file__).with_name("cluster_cases.py")
ROOT = Path(__file__).parents[3]
SECONDS = 1500  # of all cases, less than a test may take
MARK = "ENERGYCOMP_TEST_CLUSTER"  # a variable that all processes of a run inherit
INSTALL = "is not installed; pip install -e './plugins/energycomp-batch[test]'"


@contextmanager
def reaper() -> Iterator[dict[str, str]]:
    """Variables for processes that end with the block, or with this process, however it ends.

    The processes of Ray are in sessions of their own. So another process waits until this one ends, and kills what has
    the mark. Then it removes the folder where Ray keeps the address of its cluster: the next run would wait for that.
    """
    mark = uuid4().hex
    folder = mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets have 107 characters at most
    command = [sys.executable, __file__, mark, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        # No process takes itself for a worker of pytest-xdist.
        usual = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        yield {**usual, MARK: mark, "RAY_TMPDIR": folder}
    assert marked(mark) == []
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and addresses of the loopback device")
def test_the_cases_of_a_cluster(tmp_path: Path) -> None:
    for package in ("ray", "moto", "s3fs"):
        pytest.importorskip(package, reason=f"{package} {INSTALL}")
    log = tmp_path / "log"
    # -s, since what is captured is lost when a case ends the process.
    options = ["-q", "-x", "-s", "-n", "0", "--durations=0", "-p", "no:cacheprovider", "--basetemp", tmp_path / "cases"]
    with log.open("wb") as file, reaper() as environment:
        command = [sys.executable, "-m", "pytest", *options, CASES]
        running = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=ROOT, start_new_session=True)
        try:
            code: int | str = running.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = f"none after {SECONDS} s"
    running.wait()
    said = log.read_text(errors="replace")
    assert code == 0, f"exit code {code}\n{said[-20_000:]}"
    assert int(re.findall(r"(\d+) passed", said)[-1]) > 10


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_what_a_run_leaves_is_found_and_killed() -> None:
    with reaper() as environment:
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], env=environment, start_new_session=True
        )
    assert process.wait() == -signal.SIGKILL
    assert not Path(environment["RAY_TMPDIR"]).exists()


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


def main(mark: str, folder: str) -> None:
    sys.stdin.read()  # until the process that has started this one ends
    while found := marked(mark):  # they start others until they end
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has ended
                continue
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
