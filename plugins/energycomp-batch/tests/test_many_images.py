"""`energycomp batch` on many images: workers, shards, lists, kills and repetitions."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from energycomp.images import save_frames
from energycomp_batch.inputs import Inputs
from energycomp_cli import claim

pytestmark = pytest.mark.usefixtures("no_launcher")
Run = Callable[..., tuple[int, str, str]]
Fake = Callable[..., list[Any]]
COMMAND = [sys.executable, "-m", "energycomp"]


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Seven images in two folders; two have one name."""
    draw = np.random.default_rng(0)
    for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/3.png", "b/4.png", "b/5.png"):
        path = tmp_path / "seven" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "seven"


def test_workers_print_and_keep_what_one_process_does(run: Run, model: Path, seven: Path) -> None:
    printed = {}
    for workers in (1, 2):
        code, out, err = run("batch", model, seven, "-o", f"out{workers}", "--count", "0-1", "--workers", workers)
        assert code == 0, err
        printed[workers] = out.replace(f"out{workers}", "out")
    assert printed[1] == printed[2]
    for file in Path("out1").iterdir():  # of results.jsonl, lines in any order
        assert sorted(file.read_bytes().split(b"\n")) == sorted(Path("out2", file.name).read_bytes().split(b"\n"))


def test_frames_are_the_images_that_infer_reads(run: Run, model: Path, fake_infer: Fake) -> None:
    """A batch goes on where `infer` stopped in a movie, and the other way round; a broken one is one image."""
    calls = fake_infer(fail_at=2)
    save_frames([Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")], "clip.gif")
    assert run("infer", model, "clip.gif", "-o", "out")[0] == 130
    calls = fake_infer()
    assert run("batch", model, "clip.gif", "-o", "out", "--workers", 1)[0] == 0
    assert len(calls) == 2
    images = [json.loads(line)["image"] for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [image.rpartition("/")[2] for image in images] == ["clip.gif#0", "clip.gif#1", "clip.gif#2"]
    assert run("infer", model, "clip.gif", "-o", "out")[0] == 0
    assert len(calls) == 2
    Path("broken.gif").write_bytes(b"GIF89a, and nothing else")
    code, _, err = run("batch", model, "broken.gif", "clip.gif", "--workers", 1)
    assert (code, "1 of 4 images could not be read" in err) == (1, True)


def test_images_of_another_kind_are_refused_one_by_one(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer(foreign=True)
    code, out, err = run("batch", model, pictures, "--workers", 1, "-o", "found.csv")
    assert (code, "3 of 3 images are of a kind that" in err, out) == (3, True, "")
    with Path("found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["out_of_distribution"], row["count"]) for row in rows] == [("true", "-1")] * 3
    assert all("does not know" in row["failed"] for row in rows)
    code, out, _ = run("batch", model, pictures, "--workers", 1, "--anyway")
    assert (code, out.count("1 object, not trusted")) == (0, 3)


def test_shards_are_merged_to_the_results_of_one_process(
    run: Run, model: Path, seven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["batch", model, seven, "--count", "0", "--workers", 1]
    assert run(*command, "-o", "whole")[0] == 0
    assert run(*command, "-o", "out", "--shard", "2/2", "--quiet")[:2] == (0, "")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, err = run(*command, "-o", "out")
    assert code == 0
    assert out.count("0 objects") == 4
    assert (
        "read 4 of 7 images, shard 1/2. Once all shards have ended, the same command without --shard completes out"
        in err
    )
    assert {path.name for path in Path("out").glob("*.jsonl")} == {"results-1-of-2.jsonl", "results-2-of-2.jsonl"}
    monkeypatch.delenv("RANK")
    assert run(*command, "-o", "out")[0] == 0
    assert [path.name for path in Path("out").glob("*.jsonl")] == ["results.jsonl"]
    whole, merged = (sorted(Path(name, "results.jsonl").read_text().splitlines()) for name in ("whole", "out"))
    assert whole == merged
    assert {path.name for path in Path("whole").iterdir()} == {path.name for path in Path("out").iterdir()}


def test_a_launched_process_with_a_bad_image_does_not_end_the_others(
    run: Run, model: Path, pictures: Path, fake_infer: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer()
    (pictures / "a/bad.png").touch()
    assert run("batch", model, pictures, "--shard", "1/2", "--quiet")[0] == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = run("batch", model, pictures, "--quiet")
    assert code == 0
    assert "1 of 2 images could not be read" in err


def test_two_processes_do_not_write_one_file(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    Path("out").mkdir()
    with claim(Path("out/results.jsonl")):
        code, _, err = run("batch", model, pictures, "-o", "out")
        assert code == 2
        assert "got out, where another process writes results.jsonl; expected one process per file" in err
    assert run("batch", model, pictures, "-o", "out")[0] == 0


def test_a_list_gives_paths_and_a_missing_one_is_left_out(
    run: Run, model: Path, pictures: Path, fake_infer: Fake
) -> None:
    fake_infer()
    Path("files.txt").write_text(f"{pictures / 'a/one.png'}\n\nabsent.png\n{pictures / 'b'}\n")
    assert [path.name for path in Inputs.of([Path("@files.txt")]).files] == ["one.png", "absent.png", "one.png"]
    code, out, err = run("batch", model, "@files.txt", "--json")
    assert code == 1
    assert "got absent.png, which is no file" in err
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [False, True, False]
    code, _, err = run("batch", model, "@none.txt")
    assert (code, "got @none.txt, which cannot be reached (FileNotFoundError: [Errno 2] No such file" in err) == (
        2,
        True,
    )


def has_ended(group: int) -> bool:
    """Whether all processes of a group end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_kills_lose_nothing_and_leave_no_process(run: Run, model: Path, seven: Path, tmp_path: Path) -> None:
    command = ["batch", str(model), str(seven), "-o", "out", "--count", "0-1", "--quiet"]
    with subprocess.Popen(
        [*COMMAND, *command, "--workers", "2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        results = tmp_path / "out" / "results.jsonl"
        while process.poll() is None and not (results.exists() and results.stat().st_size):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        _, err = process.communicate()
    assert process.returncode in (130, 0)  # all may be read by then
    assert "Traceback" not in err
    assert has_ended(process.pid)
    assert run(*command, "--workers", 1)[0] == 0
    read = [json.loads(line)["image"] for line in results.read_text().splitlines()]
    assert len(read) == len(set(read)) == 7
