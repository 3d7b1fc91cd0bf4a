"""Real kills of real runs; benchmarks/robustness/reliability.py has many more of them, and full and read-only disks."""

import multiprocessing
import os
import random
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

import energycomp_cli as cli
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model
from energycomp_datasets.clevr.layout import write
from energycomp_lab.training import FitConfig, fit

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "robustness"))
import reliability_cases as cases
import reliability_run
from reliability_checks import RUN, lost, resumed, stray
from reliability_run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def undisturbed(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train(out := tmp_path_factory.mktemp("undisturbed") / "run")
    return out


class Forked:
    """A process of a run as `subprocess.Popen` gives it: a copy of this one, which has imported what takes seconds."""

    def __init__(self, out: Path, *, launch: list[str] | None = None, **environment: object) -> None:
        end, own = os.pipe()
        command = [*(launch or [])[2:], str(RUN), str(out)]
        self._process = multiprocessing.get_context("fork").Process(target=_forked, args=(command, environment, own))
        self._process.start()
        os.close(own)
        self.stdout = os.fdopen(end)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.join()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("run", timeout or 0)
        return self.stdout.read(), ""


def _forked(command: list[str], environment: dict[str, object], output: int) -> None:
    os.dup2(output, 1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stdout = os.fdopen(1, "w")
    os.environ.update({"OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}})
    AcceleratorState._reset_state(reset_partial_state=True)
    sys.argv = command
    if command[0] == str(RUN):
        sys.exit(reliability_run.main())
    runpy.run_module(command[0], run_name="__main__")


@pytest.fixture(autouse=True)
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        monkeypatch.setattr("reliability_checks.start", Forked)
        monkeypatch.setattr(cases, "start", Forked)


@pytest.fixture
def draw() -> random.Random:
    return random.Random(0)  # noqa: S311


def test_kills_lose_nothing(undisturbed: Path, tmp_path: Path, draw: random.Random) -> None:
    assert cases.strike_save(tmp_path / "run", draw, "before the rename", nth=3)
    assert stray(tmp_path / "run")
    assert not lost(tmp_path / "run")
    assert not resumed(undisturbed, tmp_path / "run")


def test_two_processes_are_one_at_the_same_global_batch(undisturbed: Path, tmp_path: Path, draw: random.Random) -> None:
    result = cases.two_processes(undisturbed, tmp_path, draw, 0)
    assert (result["epochs"], result["problems"]) == (6, [])


def test_a_killed_rank_ends_the_other(tmp_path: Path, draw: random.Random) -> None:
    seconds, problems = cases.strike_rank(tmp_path / "run", draw, launched=False)
    assert not problems
    assert seconds < 60
    assert not lost(tmp_path / "run")


@pytest.mark.parametrize(
    "environment", [{"WORLD_SIZE": "2"}, {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}], ids=str
)
def test_one_process_where_more_were_asked_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    Accelerator(cpu=True)  # one process, from here on
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(UserWarning, match="--multi_gpu --num_processes 2"):
        fit(nn.Linear(2, 2), lambda module, batch, _: module(batch).square().mean(), torch.randn(8, 2),
            FitConfig(steps=1, batch_size=8, learning_rate=1e-3), out=tmp_path, progress=False)  # fmt: skip


def test_ctrl_c_says_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_pretrained(tiny_model(), tmp_path / "start")
    write(tmp_path / "scenes", 32, objects=(1, 3), size=(16, 16))
    command = "energycomp train clevr-places --data scenes --init ./start --steps 6 --option batch_size=8"
    command += " --option sample_every=2 -o 'my {}'"

    def run(line: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", shlex.split(line))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().err

    def interrupt(_module: nn.Module, step: int) -> None:
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("energycomp_lab.commands.train._sampler", lambda *_: interrupt)
        code, said = run(command.format("run"))
    assert code == 130
    assert "my run/checkpoint-000003.safetensors is saved" in said
    assert run(said.partition("to go on: ")[2].splitlines()[0])[0] == 0
    assert run(command.format("whole"))[0] == 0
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("my run", "my whole"))
    assert one.read_bytes() == other.read_bytes()
