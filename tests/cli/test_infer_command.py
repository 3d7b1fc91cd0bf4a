"""`energycomp infer` on a tiny model."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import energycomp.inference
from energycomp import load, plugins
from energycomp.cli import claimed, read_image
from energycomp.images import save_frames, save_image
from energycomp.inference import SearchInterrupted
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model

Run = Callable[..., tuple[int, str, str]]
Fake = Callable[..., list[Any]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_infer_prints_the_table_and_says_how_to_keep_it(
    run: Run, model: Path, pictures: Path, fake_infer: Fake
) -> None:
    fake_infer()
    code, out, err = run("infer", model, pictures / "a/one.png")
    assert code == 0
    for expected in ("one.png", "0.5", "0.25", "2.5", "1 object, fit 0.750, next best answer of 0: p = 0.01"):
        assert expected in out
    assert "-o" in err
    assert {path.name for path in Path().iterdir()} == {"pictures"}


def test_infer_of_a_picture_agrees_with_the_function(run: Run, model: Path, pictures: Path) -> None:
    from energycomp import infer

    code, out, _ = run("infer", model, pictures / "a/one.png", "--count", "2", "--seed", 3, "--json")
    assert code == 0
    expected = infer(pictures / "a/one.png", load(model), count=2, generator=torch.Generator().manual_seed(3))
    record = json.loads(out)
    assert record["count"] == 2
    places = torch.tensor([[entry["x"], entry["y"]] for entry in record["objects"]])
    torch.testing.assert_close(places, expected.conditions, atol=1e-4, rtol=0)
    assert record["rows"] == expected.rows
    assert record["fit"] == pytest.approx(expected.fit)


def test_without_a_folder_nothing_is_hashed(
    run: Run, model: Path, pictures: Path, fake_infer: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer()
    monkeypatch.setattr("energycomp.files.fingerprint", None)
    monkeypatch.setattr("energycomp.cli.items.sha256_of", None)
    code, out, err = run("infer", model, pictures / "a/one.png", "--json")
    assert code == 0, err
    assert json.loads(out).keys().isdisjoint({"sha256", "settings", "picture"})


def test_two_processes_do_not_write_one_folder(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    Path("out").mkdir()
    with claimed(Path("out/results.jsonl")):
        code, _, err = run("infer", model, pictures / "a", "-o", "out")
    assert (code, "got out, where another process writes results.jsonl; expected one process per file" in err) == (
        2,
        True,
    )
    assert run("infer", model, pictures / "a", "-o", "out")[0] == 0


def test_infer_keeps_pictures_of_one_name_apart(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    code, out, _ = run("infer", model, pictures / "a", pictures / "b", "-o", "new/out")
    assert code == 0
    assert {path.name for path in Path("new/out").iterdir()} == {"one.png", "one-2.png", "two.png", "results.jsonl"}
    records = lines(Path("new/out/results.jsonl"))
    assert [record["picture"] for record in records] == ["one.png", "two.png", "one-2.png"]
    assert records[0]["stderr"] is None  # JSON knows no infinity
    assert "new/out/one-2.png" in out
    with Image.open("new/out/one.png") as marked:
        assert marked.size == (720, 480)


@pytest.mark.parametrize("placed", [True, False])
def test_infer_keeps_redrawn_pictures_of_one_name_apart(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, fake_infer: Fake, placed: bool
) -> None:
    fake_infer()
    if not placed:  # such as the components of a model of latents
        monkeypatch.setattr("energycomp.inference.View.places", ())
    shutil.copy(pictures / "a/one.png", pictures / "b/one-redrawn.png")
    command = ["infer", model, pictures / "a/one.png", pictures / "b", "-o", "out", "--redraw"]
    code, out, err = run(*command)
    assert code == 0, err
    stems = ["one", "one-2", "one-redrawn-2"]  # of a/one.png, b/one.png and b/one-redrawn.png
    written = {f"{stem}-redrawn.png" for stem in stems} | ({f"{stem}.png" for stem in stems} if placed else set())
    assert {path.name for path in Path("out").iterdir()} == written | {"results.jsonl"}
    assert run(*command)[1] == out


def test_infer_goes_on_where_it_was_interrupted(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer(fail_at=3)
    code, _, err = run("infer", model, pictures / "a", pictures / "b", "-o", "out")
    assert code == 130
    assert "interrupted" in err
    results = Path("out/results.jsonl")
    assert len(lines(results)) == 2
    with results.open("a") as file:
        file.write('{"image": "half')
    calls = fake_infer()
    assert run("infer", model, pictures / "a", pictures / "b", "-o", "out")[0] == 0
    assert len(calls) == 1
    assert [record["picture"] for record in lines(results)] == ["one.png", "two.png", "one-2.png"]
    code, out, _ = run("infer", model, pictures / "a", pictures / "b", "-o", "out", "--json")
    assert len(calls) == 1
    assert [json.loads(line) for line in out.splitlines()] == lines(results)


@pytest.mark.parametrize("out", ["out", "found.csv", None])
def test_the_answer_that_an_interrupted_search_has_is_kept(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, fake_infer: Fake, out: str | None
) -> None:
    fake_infer()
    found = energycomp.inference.infer

    def stopped(*arguments: Any, **options: Any) -> None:
        raise SearchInterrupted(lambda: found(*arguments, **options))

    monkeypatch.setattr("energycomp.inference.infer", stopped)
    command = ["infer", model, pictures / "a/one.png", *([] if out is None else ["-o", out])]
    code, _, err = run(*command)
    assert code == 130
    assert "interrupted" in err
    if out is None:
        assert "first answer" not in err
        return
    kept = Path("out/results.jsonl" if out == "out" else "found.jsonl")
    (record,) = lines(kept)
    assert record["interrupted"] is True
    assert record["count"] == 1
    assert Path("out/one.png").exists() == (out == "out")
    assert not Path("found.csv").exists()

    # The image is read again.
    assert len(calls := fake_infer()) == 0
    assert run(*command)[0] == 0
    assert len(calls) == 1
    assert [line.get("interrupted") for line in lines(kept)] == [True, None]
    assert run(*command)[0] == 0
    assert len(calls) == 1


def test_infer_reads_a_picture_again_that_has_changed(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    calls = fake_infer()
    command = ["infer", model, pictures / "a/one.png", "-o", "out"]
    run(*command)
    Image.new("RGB", (24, 16), "red").save(pictures / "a/one.png")
    run(*command)
    run(*command)
    assert len(calls) == 2
    assert [record["picture"] for record in lines(Path("out/results.jsonl"))] == ["one.png"] * 2


@pytest.mark.parametrize(
    ("change", "said"), [("seed", "seed 0, and not 1"), ("count", "counts "), ("weights", "fingerprint ")]
)
def test_answers_under_other_settings_are_not_mixed(
    run: Run, model: Path, pictures: Path, tmp_path: Path, fake_infer: Fake, change: str, said: str
) -> None:
    calls = fake_infer()
    save_pretrained(load(model), tmp_path / "model")
    command: list[object] = ["infer", tmp_path / "model", pictures / "a/one.png", "-o", "out"]
    run(*command)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    if change == "weights":
        save_pretrained(tiny_model(solver="pursuit", seed=1), tmp_path / "model")
    code, _, err = run(*command, *{"seed": ["--seed", 1], "count": ["--count", "1-2"], "weights": []}[change])
    assert (code, len(calls)) == (2, 1)
    assert f"got -o out, which holds answers with {said}" in err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_infer_reports_a_broken_picture_and_reads_the_rest(
    run: Run, model: Path, pictures: Path, fake_infer: Fake
) -> None:
    fake_infer()
    whole = (pictures / "a/one.png").read_bytes()
    (pictures / "a/broken.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("infer", model, pictures / "a", "-o", "out", "--json")
    assert code == 1
    assert "broken.png, which cannot be decoded" in err
    assert "1 of 3 images could not be read" in err
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [True, False, False]
    assert len(lines(Path("out/results.jsonl"))) == 2
    code, out, err = run("infer", model, pictures / "a/broken.png")
    assert (code, out) == (2, "")


def test_what_is_not_kept_of_a_file_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Frames, transparency and depth; a plain image, and an alpha of full opacity, need no word."""
    colours = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    colours[0].save(tmp_path / "film.gif", save_all=True, append_images=colours[1:])
    colours[0].save(tmp_path / "plain.gif")
    Image.new("RGBA", (16, 16), (9, 9, 9, 99)).save(tmp_path / "glass.png")
    Image.new("RGBA", (16, 16), (9, 9, 9, 255)).save(tmp_path / "opaque.png")
    Image.new("I;16", (16, 16), 9999).save(tmp_path / "deep.png")
    said = {}
    for file in sorted(tmp_path.iterdir()):
        for written in (False, True):
            read_image(file, written=written)
            said[file.name, written] = capsys.readouterr().err.removeprefix(f"energycomp: warning: {file}: ").strip()
    film, glass = "it has several frames, of which the first is read", "its transparent pixels are drawn on white"
    deep = "it has more than 8 bits a channel, of which 8 are read"
    new = "what is written has 8 bits a channel and no transparency"
    assert {key: text for key, text in said.items() if text} == {
        ("film.gif", False): film,
        ("film.gif", True): film,
        ("glass.png", False): glass,
        ("glass.png", True): f"{glass}; {new}",
        ("deep.png", True): f"{deep}; {new}",
    }


def test_infer_says_once_what_is_not_kept_and_reads_no_address(run: Run, model: Path, fake_infer: Fake) -> None:
    fake_infer()
    Image.new("RGBA", (16, 16), (9, 9, 9, 99)).save("glass.png")
    code, _, err = run("infer", model, "glass.png")
    assert (code, err.count("warning: glass.png: its transparent pixels are drawn on white")) == (0, 1)
    code, _, err = run("infer", model, "https://example.org/x.png")
    said = "got the address https://example.org/x.png; expected a file, since none is downloaded; download it first"
    assert (code, said in err) == (2, True)


def test_infer_leaves_out_a_grid_among_pictures(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    save_image(Image.new("RGB", (32, 32)), pictures / "a" / "grid.png", cells=4)
    code, out, err = run("infer", model, pictures / "a", "--json")
    assert code == 1
    assert "1 of 3 images could not be read" in err
    assert [("failed" in line) for line in map(json.loads, out.splitlines())] == [True, False, False]


@pytest.mark.parametrize("name", ["clip.gif", "clip.mp4"])
def test_every_frame_of_a_movie_is_an_image(run: Run, model: Path, fake_infer: Fake, name: str) -> None:
    """Names have the number of the frame; a second run reads nothing again; another frame is another image."""
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    save_frames([Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")], name)
    calls = fake_infer()
    code, out, err = run("infer", model, name, "-o", "out", "--format", "coco")
    assert (code, err.count("several frames")) == (0, 0)
    names = [image["file_name"] for image in json.loads(out)["images"]]
    assert names == [f"{name}#0", f"{name}#1", f"{name}#2"]
    middle = [image.getpixel((12, 8)) for image in calls]
    assert [max(range(3), key=pixel.__getitem__) for pixel in middle] == [0, 1, 2]
    assert [record["image"].rpartition("/")[2] for record in lines(Path("out/results.jsonl"))] == names
    assert [Path("out/clip", f"{number}.png").is_file() for number in range(3)] == [True] * 3
    assert run("infer", model, name, "-o", "out")[0] == 0
    assert len(calls) == 3


def test_a_movie_that_cannot_be_read_is_one_image(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    (pictures / "a" / "broken.gif").write_bytes(b"GIF89a, and nothing else")
    code, out, err = run("infer", model, pictures / "a", "--json")
    assert (code, "1 of 3 images could not be read" in err) == (1, True)
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [True, False, False]
    assert run("infer", model, pictures / "a" / "broken.gif")[0] == 2


@pytest.mark.parametrize("command", [["infer"], ["batch", "--workers", 1]], ids=["infer", "batch"])
def test_answers_are_written_as_coco(
    run: Run, model: Path, pictures: Path, fake_infer: Fake, command: list[object]
) -> None:
    """Places in pixels of each image, (0.5, 0.25) of 24x16; unreadable images are left out."""
    calls = fake_infer()
    (pictures / "a" / "broken.png").write_bytes(b"no image")
    for options in (["-o", "found.coco"], ["--format", "coco", "-o", "found.json"]):
        code, out, err = run(command[0], model, pictures, *command[1:], *options)
        assert (code, "1 of 4 images could not be read" in err) == (1, True)
        assert "1 object" in out
    document = json.loads(Path("found.coco").read_text())
    assert json.loads(Path("found.json").read_text()) == document
    names = [(image["file_name"], image["width"], image["height"]) for image in document["images"]]
    assert names == [("one.png", 24, 16), ("two.jpg", 24, 16), ("one.png", 24, 16)]
    assert [category["name"] for category in document["categories"]] == ["object"]
    ids = [(one["id"], one["image_id"], one["category_id"]) for one in document["annotations"]]
    assert ids == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
    assert {tuple(one["keypoints"]) for one in document["annotations"]} == {(12.0, 4.0, 2)}
    assert len(lines(Path("found.jsonl"))) == len(calls) == 3  # the second run reads nothing again


def test_a_format_without_a_file_is_printed(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    code, out, _ = run("infer", model, pictures / "a", "--format", "coco", "-o", "out")
    assert code == 0
    assert len(json.loads(out)["images"]) == 2  # nothing else is on stdout
    assert Path("out/one.png").is_file()
    code, out, _ = run("infer", model, pictures / "a", "--format", "csv")
    assert [row[2] for row in csv.reader(out.splitlines())] == ["count", "1", "1"]


def test_a_writer_that_is_none_or_fails_loses_nothing(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    """The error of a broken writer names it; the answers are kept, and other writers work."""
    calls = fake_infer()

    @contextmanager
    def broken(_: Any) -> Iterator[Callable[[Any], Any]]:
        yield lambda record: record["no such key"]

    plugins.register("writers", "broken", broken)
    code, _, err = run("infer", model, pictures, "--format", "cooc")
    assert (code, len(calls)) == (2, 0)
    assert "No writer is named 'cooc'" in err
    assert "coco" in err
    code, _, err = run("infer", model, pictures, "-o", "found.broken")
    assert (code, Path("found.broken").exists()) == (2, False)
    assert "Got KeyError from the writer 'broken': 'no such key'" in err
    code, _, err = run("infer", model, pictures, "-o", "found.csv")
    assert (code, len(calls)) == (0, 3)  # the answer that was found before is not read again
    assert len(Path("found.csv").read_text().splitlines()) == 4
    code, _, err = run("infer", model, pictures, "--format", "coco", "-o", "found.csv")
    assert (code, "got --format coco and -o found.csv" in err) == (2, True)


def test_infer_warns_of_foreign_pictures(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer(foreign=True)
    code, out, err = run("infer", model, pictures / "b/one.png", "--json")
    assert code == 0
    assert "b/one.png: the image is out of distribution" in err
    record = json.loads(out)
    assert (record["out_of_distribution"], record["trusted"]) == (True, False)
    assert record["objects"][0]["gain"] == 2.5
    _, out, _ = run("infer", model, pictures / "b/one.png")
    assert "1 object, not trusted" in out
    assert "2.5" not in out  # what judges the object; where it is stays
    assert "0.25" in out


def test_infer_of_an_empty_scene_has_no_rows(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("infer", model, pictures / "b/one.png", "--count", "0")
    assert code == 0
    assert "0 objects" in out
