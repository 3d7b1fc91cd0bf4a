"""The part of the images that one of several processes reads, and the answers of all of them."""

from pathlib import Path
from typing import Any

import pytest

from energycomp.cli import append_line
from energycomp.errors import CheckpointError, InputError
from energycomp_batch import Lines, Shard, local_device, shard_of

pytestmark = pytest.mark.usefixtures("no_launcher")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Shard()),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Shard(2, 4, launched=True)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Shard()),
        ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, Shard(4, 4, launched=True)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, Shard()),  # the script of a batch, before srun
    ],
    ids=str,
)
def test_the_shard_of_a_launcher(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Shard) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert shard_of(None) == expected
    assert shard_of("1/1") == Shard()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2"])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(InputError, match="expected I/N with I from 1 to N"):
        shard_of(text)


def test_each_launched_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert local_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [local_device(device) for device in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]


def test_lines_are_found_by_key_in_several_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    for number in range(100):
        append_line(one if number % 3 else other, {"key": str(number % 40), "number": number})
    with one.open("a") as file:
        file.write('{"key": "half')  # another process is writing it
    seen: list[Any] = []
    lines = Lines([one, tmp_path / "absent.jsonl", other], key=lambda record: record["key"], seen=seen.append)
    assert len(seen) == 100
    assert {lines.get(str(key))["key"] for key in range(40)} == set(map(str, range(40)))  # type: ignore[index]
    assert lines.get("40") is None
    assert one.read_text().endswith("half")
    with one.open("a") as file:
        file.write("\n")
    with pytest.raises(CheckpointError, match=r"Line \d+ of .*one.jsonl is not a JSON object"):
        Lines([one], key=str)
