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
from energycomp.images import save_frames, save_image
from energycomp.inference import SearchInterrupted
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model
from energycomp_cli import claim, read_image

Run = Callable[..., tuple[int, str, str]]
Calls = list[Any]
A, B, ONE = Path("pictures/a"), Path("pictures/b"), Path("pictures/a/one.png")


@pytest.fixture
def infer(run: Run, model: Path, pictures: Path) -> Run:
    """The command on the tiny model, beside the folder of pictures."""
    return lambda *arguments: run("infer", model, *arguments)


@pytest.fixture
def calls(fake_infer: Callable[..., Calls]) -> Calls:
    """Replaces the search: the images that it was asked for."""
    return fake_infer()


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_infer_prints_the_table_and_says_how_to_keep_it(infer: Run, calls: Calls) -> None:
    code, out, err = infer(ONE)
    assert code == 0
    for expected in ("one.png", "0.5", "0.25", "2.5", "1 object, fit 0.750, next best answer of 0: p = 0.01"):
        assert expected in out
    assert "-o" in err
    assert names(".") == {"pictures"}


def test_infer_of_a_picture_agrees_with_the_function(infer: Run, model: Path) -> None:
    code, out, _ = infer(ONE, "--count", "2", "--seed", 3, "--json")
    assert code == 0
    expected = energycomp.infer(ONE, load(model), count=2, generator=torch.Generator().manual_seed(3))
    record = json.loads(out)
    places = torch.tensor([[entry["x"], entry["y"]] for entry in record["objects"]])
    torch.testing.assert_close(places, expected.conditions, atol=1e-4, rtol=0)
    assert (record["count"], record["rows"], record["fit"]) == (2, expected.rows, pytest.approx(expected.fit))
    code, out, _ = infer(ONE, "--count", "0")
    assert (code, "0 objects" in out) == (0, True)


def test_without_a_folder_nothing_is_hashed(infer: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp.files.fingerprint", None)
    monkeypatch.setattr("energycomp_cli.items.sha256_of", None)
    code, out, err = infer(ONE, "--json")
    assert code == 0, err
    assert json.loads(out).keys().isdisjoint({"sha256", "settings", "picture"})


def test_two_processes_do_not_write_one_folder(infer: Run, calls: Calls) -> None:
    Path("out").mkdir()
    with claim(Path("out/results.jsonl")):
        code, _, err = infer(A, "-o", "out")
    assert code == 2
    assert "got out, where another process writes results.jsonl; expected one process per file" in err
    assert infer(A, "-o", "out")[0] == 0


def test_infer_keeps_pictures_of_one_name_apart(infer: Run, calls: Calls) -> None:
    code, out, _ = infer(A, B, "-o", "new/out")
    assert code == 0
    assert names("new/out") == {"one.png", "one-2.png", "two.png", "results.jsonl"}
    records = lines("new/out/results.jsonl")
    assert [record["picture"] for record in records] == ["one.png", "two.png", "one-2.png"]
    assert records[0]["stderr"] is None  # JSON knows no infinity
    assert "new/out/one-2.png" in out
    with Image.open("new/out/one.png") as marked:
        assert marked.size == (720, 480)


@pytest.mark.parametrize("placed", [True, False])
def test_infer_keeps_redrawn_pictures_of_one_name_apart(
    infer: Run, calls: Calls, monkeypatch: pytest.MonkeyPatch, placed: bool
) -> None:
    if not placed:  # such as the components of a model of latents
        monkeypatch.setattr("energycomp.inference.View.places", ())
    shutil.copy(ONE, B / "one-redrawn.png")
    code, out, err = infer(ONE, B, "-o", "out", "--redraw")
    assert code == 0, err
    stems = ["one", "one-2", "one-redrawn-2"]  # of a/one.png, b/one.png and b/one-redrawn.png
    written = {f"{stem}-redrawn.png" for stem in stems} | ({f"{stem}.png" for stem in stems} if placed else set())
    assert names("out") == written | {"results.jsonl"}
    assert infer(ONE, B, "-o", "out", "--redraw")[1] == out


def test_infer_goes_on_where_it_was_interrupted(infer: Run, fake_infer: Callable[..., Calls]) -> None:
    fake_infer(fail_at=3)
    code, _, err = infer(A, B, "-o", "out")
    assert (code, "interrupted" in err) == (130, True)
    results = "out/results.jsonl"
    assert len(lines(results)) == 2
    with Path(results).open("a") as file:
        file.write('{"image": "half')
    calls = fake_infer()
    assert infer(A, B, "-o", "out")[0] == 0
    assert [record["picture"] for record in lines(results)] == ["one.png", "two.png", "one-2.png"]
    out = infer(A, B, "-o", "out", "--json")[1]
    assert [json.loads(line) for line in out.splitlines()] == lines(results)
    assert len(calls) == 1


@pytest.mark.parametrize("out", ["out", "found.csv", None])
def test_the_answer_that_an_interrupted_search_has_is_kept(
    infer: Run, fake_infer: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch, out: str | None
) -> None:
    fake_infer()
    found = energycomp.inference.infer

    def stopped(*arguments: Any, **options: Any) -> None:
        raise SearchInterrupted(lambda: found(*arguments, **options))

    monkeypatch.setattr("energycomp.inference.infer", stopped)
    command = [ONE, *([] if out is None else ["-o", out])]
    code, _, err = infer(*command)
    assert (code, "interrupted" in err) == (130, True)
    if out is None:
        assert "first answer" not in err
        return
    kept = "out/results.jsonl" if out == "out" else "found.jsonl"
    (record,) = lines(kept)
    assert (record["interrupted"], record["count"]) == (True, 1)
    assert Path("out/one.png").exists() == (out == "out")
    assert not Path("found.csv").exists()
    calls = fake_infer()  # the image is read again
    for _ in range(2):
        assert infer(*command)[0] == 0
        assert len(calls) == 1
        assert [line.get("interrupted") for line in lines(kept)] == [True, None]


def test_infer_reads_a_picture_again_that_has_changed(infer: Run, calls: Calls) -> None:
    infer(ONE, "-o", "out")
    Image.new("RGB", (24, 16), "red").save(ONE)
    infer(ONE, "-o", "out")
    infer(ONE, "-o", "out")
    assert len(calls) == 2
    assert [record["picture"] for record in lines("out/results.jsonl")] == ["one.png"] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--seed", 1], "seed 0, and not 1"), (["--count", "1-2"], "counts "), ("other weights", "fingerprint ")],
)
def test_answers_under_other_settings_are_not_mixed(
    run: Run, model: Path, pictures: Path, calls: Calls, options: Any, said: str
) -> None:
    save_pretrained(load(model), "model")
    command = ["infer", "./model", ONE, "-o", "out"]
    run(*command)
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    if options == "other weights":
        save_pretrained(tiny_model(solver="pursuit", seed=1), "model")
        options = []
    code, _, err = run(*command, *options)
    assert (code, len(calls)) == (2, 1)
    assert f"got -o out, which holds answers with {said}" in err
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_infer_reports_broken_pictures_and_reads_the_rest(infer: Run, calls: Calls) -> None:
    """A movie that cannot be read is one of them, and a grid of several images is none to be read."""
    whole = ONE.read_bytes()
    (A / "broken.png").write_bytes(whole[: len(whole) // 2])
    (A / "film.gif").write_bytes(b"GIF89a, and nothing else")
    save_image(Image.new("RGB", (32, 32)), A / "grid.png", cells=4)
    code, out, err = infer(A, "-o", "out", "--json")
    assert code == 1
    assert "broken.png, which cannot be decoded" in err
    assert "3 of 5 images could not be read" in err
    failed = {record["image"].rpartition("/")[2] for record in map(json.loads, out.splitlines()) if "failed" in record}
    assert failed == {"broken.png", "film.gif", "grid.png"}
    assert len(lines("out/results.jsonl")) == 2
    for name in ("broken.png", "film.gif"):
        assert infer(A / name)[:2] == (2, "")


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
        ("film.gif", False): film, ("film.gif", True): film, ("glass.png", False): glass,
        ("glass.png", True): f"{glass}; {new}", ("deep.png", True): f"{deep}; {new}",
    }  # fmt: skip


def test_infer_says_once_what_is_not_kept_and_reads_no_address(infer: Run, calls: Calls) -> None:
    Image.new("RGBA", (16, 16), (9, 9, 9, 99)).save("glass.png")
    code, _, err = infer("glass.png")
    assert (code, err.count("warning: glass.png: its transparent pixels are drawn on white")) == (0, 1)
    code, _, err = infer("https://example.org/x.png")
    said = "got the address https://example.org/x.png; expected a file, since none is downloaded; download it first"
    assert (code, said in err) == (2, True)


@pytest.mark.parametrize("name", ["clip.gif", "clip.mp4"])
def test_every_frame_of_a_movie_is_an_image(infer: Run, calls: Calls, name: str) -> None:
    """Names have the number of the frame; a second run reads nothing again; another frame is another image."""
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg")
    save_frames([Image.new("RGB", (24, 16), colour) for colour in ("red", "green", "blue")], name)
    code, out, err = infer(name, "-o", "out", "--format", "coco")
    assert (code, err.count("several frames")) == (0, 0)
    found = [image["file_name"] for image in json.loads(out)["images"]]
    assert found == [f"{name}#0", f"{name}#1", f"{name}#2"]
    middle = [image.getpixel((12, 8)) for image in calls]
    assert [max(range(3), key=pixel.__getitem__) for pixel in middle] == [0, 1, 2]
    assert [record["image"].rpartition("/")[2] for record in lines("out/results.jsonl")] == found
    assert names("out/clip") == {"0.png", "1.png", "2.png"}
    assert infer(name, "-o", "out")[0] == 0
    assert len(calls) == 3


@pytest.mark.parametrize("command", [["infer"], ["batch", "--workers", 1]], ids=["infer", "batch"])
def test_answers_are_written_as_coco(
    run: Run, model: Path, pictures: Path, calls: Calls, command: list[object]
) -> None:
    """Places in pixels of each image, (0.5, 0.25) of 24x16; unreadable images are left out."""
    (A / "broken.png").write_bytes(b"no image")
    for options in (["-o", "found.coco"], ["--format", "coco", "-o", "found.json"]):
        code, out, err = run(command[0], model, pictures, *command[1:], *options)
        assert (code, "1 of 4 images could not be read" in err) == (1, True)
        assert "1 object" in out
    document = json.loads(Path("found.coco").read_text())
    assert json.loads(Path("found.json").read_text()) == document
    images = [(image["file_name"], image["width"], image["height"]) for image in document["images"]]
    assert images == [("one.png", 24, 16), ("two.jpg", 24, 16), ("one.png", 24, 16)]
    assert [category["name"] for category in document["categories"]] == ["object"]
    ids = [(one["id"], one["image_id"], one["category_id"]) for one in document["annotations"]]
    assert ids == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
    assert {tuple(one["keypoints"]) for one in document["annotations"]} == {(12.0, 4.0, 2)}
    assert len(lines("found.jsonl")) == len(calls) == 3  # the second run reads nothing again


def test_a_format_without_a_file_is_printed(infer: Run, calls: Calls) -> None:
    code, out, _ = infer(A, "--format", "coco", "-o", "out")
    assert (code, len(json.loads(out)["images"])) == (0, 2)  # nothing else is on stdout
    assert Path("out/one.png").is_file()
    out = infer(A, "--format", "csv")[1]
    assert [row[2] for row in csv.reader(out.splitlines())] == ["count", "1", "1"]


def test_a_writer_that_is_none_or_fails_loses_nothing(infer: Run, calls: Calls) -> None:
    """The error of a broken writer names it; the answers are kept, and other writers work."""

    @contextmanager
    def broken(_: Any) -> Iterator[Callable[[Any], Any]]:
        yield lambda record: record["no such key"]

    plugins.register("writers", "broken", broken)
    code, _, err = infer("pictures", "--format", "cooc")
    assert (code, len(calls)) == (2, 0)
    assert "No writer is named 'cooc'" in err
    assert "coco" in err
    code, _, err = infer("pictures", "-o", "found.broken")
    assert (code, Path("found.broken").exists()) == (2, False)
    assert "Got KeyError from the writer 'broken': 'no such key'" in err
    code, _, err = infer("pictures", "-o", "found.csv")
    assert (code, len(calls)) == (0, 3)  # the answer that was found before is not read again
    assert len(Path("found.csv").read_text().splitlines()) == 4
    code, _, err = infer("pictures", "--format", "coco", "-o", "found.csv")
    assert (code, "got --format coco and -o found.csv" in err) == (2, True)
    code, _, err = infer("pictures", "-o", "found.json")  # which would be the name of a folder
    assert (code, "expected a folder, such as -o out, or a file that ends in .jsonl, ." in err) == (2, True)
    assert not Path("found.json").exists()


def test_infer_refuses_foreign_pictures(infer: Run, fake_infer: Callable[..., Calls]) -> None:
    calls = fake_infer(foreign=True)
    code, out, err = infer(B / "one.png", "-o", "out")
    said = (
        "pictures/b/one.png: got an image of a kind that tiny does not know: about 0.1% of held-out images leave such"
    )
    assert (code, out) == (3, "")
    assert f"energycomp: {said}" in err
    assert "--anyway reads it" in err
    assert names("out") == {"results.jsonl"}
    assert lines("out/results.jsonl") == []
    # With --anyway it is read, and kept; without it what was kept is refused
    code, out, err = infer(B / "one.png", "-o", "out", "--anyway")
    assert (code, "1 object, not trusted" in out, len(calls)) == (0, True, 2)
    assert "b/one.png: the image is out of distribution" in err
    assert "2.5" not in out  # what judges the object; where it is stays
    assert "0.25" in out
    assert infer(B / "one.png", "-o", "out")[:2] == (3, "")
    assert len(calls) == 2


def test_the_exit_code_of_several_says_what_was_refused(infer: Run, fake_infer: Callable[..., Calls]) -> None:
    fake_infer(foreign=True)
    code, out, err = infer(A, "--json")
    assert (code, "energycomp: 2 of 2 images are of a kind that" in err) == (3, True)
    records = [json.loads(line) for line in out.splitlines()]
    assert [(record["out_of_distribution"], "objects" in record) for record in records] == [(True, False)] * 2
    Path("broken.png").write_bytes(b"no image")
    assert infer(A, "broken.png")[0] == 1
    code, out, _ = infer(A, "--json", "--anyway")
    assert code == 0
    record = json.loads(out.splitlines()[0])
    assert (record["out_of_distribution"], record["trusted"]) == (True, False)
    assert record["objects"][0]["gain"] == 2.5


def test_files_are_looked_at_before_the_model_is_loaded(
    run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch, infer: Run, calls: Calls
) -> None:
    Path("page.png").write_text("no image")
    Path("notes.txt").write_text("no image")
    with monkeypatch.context() as patch:
        patch.setattr("energycomp_cli.options.load_model", None)
        patch.setattr("energycomp_cli.reader.load_model", None)
        for file in ("page.png", "notes.txt"):
            code, _, err = run("infer", "clevr", file)
            assert (code, "loading" in err) == (2, False)
            assert f"got {file}, which cannot be decoded (cannot identify image file)" in err
            assert "the formats are PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM, and MP4 with energycomp[mp4]" in err
    for name in ("notes.txt", "data.json"):
        (A / name).write_text("no image")
    code, _, err = infer(A)
    assert (code, "energycomp: 2 files of other formats were left out" in err) == (0, True)
