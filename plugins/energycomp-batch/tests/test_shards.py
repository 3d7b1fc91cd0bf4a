"""The part of the images that one of several processes reads, and the answers of all of them."""

from pathlib import Path
from typing import Any

import pytest

from energycomp.errors import CheckpointError, InputError
from energycomp_batch import Shard, local_device, shard_of
from energycomp_cli import answers_in, append_line, claim

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


def test_answers_are_found_in_the_files_of_all_shards(tmp_path: Path) -> None:
    def record(image: int, answer: int) -> dict[str, Any]:
        return {"image": str(image), "sha256": "", "settings": {"seed": 0}, "answer": answer}

    own, other = tmp_path / "found.jsonl", tmp_path / "found-1-of-2.jsonl"
    for number in range(100):
        append_line(own if number % 3 else other, record(number % 40, number))
    with other.open("a") as file:
        file.write('{"image": "half')  # another process is writing it
    with claim(other), answers_in(own, {"seed": 0}, tmp_path / Shard(2, 2).file(own.name)) as results:
        known = [results.known(record(image, 0)) for image in range(41)]
    assert [one and one["image"] for one in known] == [*map(str, range(40)), None]
    with answers_in(own, {"seed": 0}) as results:
        assert not other.exists()
        assert results.known(record(3, 0)) == record(3, 3)  # the file of a shard counts after the own one
    assert len({line.partition('"answer"')[0] for line in own.read_text().splitlines()}) == 40
    append_line(own, {**record(5, 0), "interrupted": True})
    with answers_in(own, {"seed": 0}) as results:
        assert results.known(record(5, 0)) is None  # it is read again
    with own.open("a") as file:
        file.write("half\n")
    with (
        pytest.raises(CheckpointError, match=r"Line 42 of .*found.jsonl is not a JSON object"),
        answers_in(own, {"seed": 0}),
    ):
        pass
