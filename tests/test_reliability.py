"""Real kills of real runs; benchmarks/robustness/reliability.py has many more of them, and full and read-only disks."""

import os
import random
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from energycomp import cli
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model
from energycomp_datasets.clevr.layout import write
from energycomp_lab.training import FitConfig, fit

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "robustness"))
import reliability_cases as cases
from reliability_checks import lost, resumed, stray
from reliability_run import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def undisturbed(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train(out := tmp_path_factory.mktemp("undisturbed") / "run")
    return out


class Here:
    """The command of a run in this process, which has imported what a process of its own takes seconds to import."""

    returncode = 0

    def __init__(self, out: Path, **_: object) -> None:
        self.rows = train(out)

    def communicate(self) -> tuple[str, str]:
        return f"rows {self.rows}", ""


@pytest.fixture
def draw() -> random.Random:
    return random.Random(0)  # noqa: S311


def test_kills_lose_nothing(
    undisturbed: Path, tmp_path: Path, draw: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cases.strike_save(tmp_path / "run", draw, "before the rename", nth=3)
    assert stray(tmp_path / "run")
    assert not lost(tmp_path / "run")
    monkeypatch.setattr("reliability_checks.start", Here)
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
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("energycomp_lab.commands.train._sampler", lambda *_: interrupt)
        code, said = run(command.format("run"))
    assert code == 130
    assert "my run/checkpoint-000003.safetensors is saved" in said
    assert run(said.partition("to go on: ")[2].splitlines()[0])[0] == 0
    assert run(command.format("whole"))[0] == 0
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("my run", "my whole"))
    assert one.read_bytes() == other.read_bytes()
