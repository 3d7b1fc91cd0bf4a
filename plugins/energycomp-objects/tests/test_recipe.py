"""What `energycomp train objects` does around the training: photos, validation, odds, card, curve, and bad input."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from energycomp import infer, load
from energycomp.errors import EnergycompWarning, InputError
from energycomp.inference import OutOfDistributionWarning
from energycomp_objects import recipe as module
from energycomp_objects.curve import describe_curve, draw_curve
from energycomp_objects.formats import Mark, MarkedPhoto, MarkedPhotos, read_marks, write_marks
from energycomp_objects.photos import choose_photos, find_splits
from energycomp_objects.plan import make_plan
from energycomp_objects.recipe import build, objects
from energycomp_objects.score import read_photos
from energycomp_objects.solver import Propose
from energycomp_objects.validate import describe_disagreement, find_disagreements

SIDE = 64
Run = Callable[..., tuple[int, str, str]]


def draw(folder: Path, count: int, kinds: tuple[str, ...] = ("disc", "square"), first: int = 0) -> Path:
    """Photos of a disc, and every other one of a square, too, on grey, as an imagefolder."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for index in range(first, first + count):
        image = Image.new("RGB", (SIDE, SIDE), (90 + index, 120, 120))
        marks = []
        for k, kind in enumerate(kinds[: 1 + index % 2]):
            x, y = 14 + 5 * (index % 3), 16 + 30 * k
            shape = ImageDraw.Draw(image).ellipse if k == 0 else ImageDraw.Draw(image).rectangle
            shape((x - 6, y - 6, x + 6, y + 6), fill="red" if k == 0 else "white")
            marks.append(Mark(x / SIDE, y / SIDE, 12 / SIDE, 12 / SIDE, {"category": kind}))
        image.save(folder / f"{index}.png")
        photos.append(MarkedPhoto(folder / f"{index}.png", (SIDE, SIDE), tuple(marks)))
    write_marks(MarkedPhotos(tuple(photos), {"category": kinds}), folder, "imagefolder")
    return folder


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build", partial(build, channels=(8, 16, 16), head=8))


TRAIN = ("train", "objects", "--data", "photos", "--precision", "no", "-o", "out", "--option", "sample_every=0")


@pytest.mark.usefixtures("_tiny")
def test_one_command_ends_with_a_model_that_knows_its_odds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("photos"), 9)
    command = (*TRAIN, "--steps", 3, "--option", "batch_size=4", "--option", "save_every=1")
    code, out, _ = run(*command)
    assert code == 0
    assert "kept back for validation: 1 of 9 photos of `photos`, drawn at random" in out
    assert "step 3: found 0.000" in out
    record = json.loads(Path("out/scores.json").read_text())
    config = json.loads(Path("out/model/config.json").read_text())
    assert config["network"]["config"]["odds"] == record["odds"]
    card = Path("out/model/README.md").read_text()
    assert "On 1 of 9 photos of `photos`, drawn at random." in card
    assert "| photos whose count is in its 90 % interval |" in card
    assert str(tmp_path) not in card
    entries = json.loads(Path("out/disagreements.json").read_text())
    assert [entry["read"] for entry in entries] == [{}]
    assert "may be marked wrongly" in out
    assert load(Path("out/model")).denoiser.network.odds == tuple(record["odds"])
    saved = Path("out/model/model.safetensors").read_bytes()
    monkeypatch.setattr("energycomp_objects.validate.fit_held_out", None)  # nothing is read again
    assert run(*command)[0] == 0
    assert Path("out/model/model.safetensors").read_bytes() == saved


@pytest.mark.usefixtures("_tiny")
def test_a_curve_of_photos_goes_on_where_it_was(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("photos/train"), 8)
    draw(Path("photos/valid"), 2, first=8)
    command = (*TRAIN, "--minutes", 0.02, "--option", "batch_size=4", "--option", "curve=4,all")
    code, out, _ = run(*command)
    assert code == 0
    assert "kept back for validation: the 2 photos of `photos/valid`" in out
    rows = json.loads(Path("out/curve.json").read_text())
    assert [row["photos"] for row in rows] == [4, 8]
    assert "## How many photos are enough" in Path("out/model/README.md").read_text()
    with Image.open("out/curve.png") as picture:
        assert picture.size == (640, 400)
    monkeypatch.setattr("energycomp_objects.validate.fit_held_out", None)
    assert run(*command)[0] == 0
    assert json.loads(Path("out/curve.json").read_text()) == rows


@pytest.mark.usefixtures("_tiny")
def test_ten_photos_that_are_kept_back_tell_photos_of_another_kind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(Path("photos/train"), 4)
    draw(Path("photos/valid"), 10, first=4)
    assert run(*TRAIN, "--steps", 2, "--option", "batch_size=4")[0] == 0
    model = load(Path("out/model"))
    assert model.defaults.calibration is not None
    assert model.defaults.calibration.images == 10
    noise = Image.effect_noise((SIDE, SIDE), 200).convert("RGB")
    with pytest.warns(OutOfDistributionWarning):
        assert infer(noise, model, generator=0, progress=False).out_of_distribution
    solution = infer("photos/valid/6.png", model, generator=0, progress=False)
    assert not solution.out_of_distribution
    assert solution.sure is not None
    assert 0 < solution.sure < 0.5  # a model that has learned nothing is seldom right


def test_a_curve_says_whether_more_photos_would_help() -> None:
    names = ("precision", "all_attributes", "count_in_90", "calibration_error", "average_precision")
    rest = dict.fromkeys(names, 0.5)
    rows = [
        {"photos": n, "recall": r, "count_error": e, **rest} for n, r, e in ((25, 0.6, 3), (50, 0.7, 2), (99, 0.7, 1))
    ]
    assert "from 50 to 99 photos (error of the count 2.00 to 1.00): more photos would help" in describe_curve(rows)
    assert "hardly improves from 25 to 50" in describe_curve([rows[0], {**rows[0], "photos": 50}])
    assert draw_curve(rows).getpixel((320, 200)) is not None


def test_photos_that_disagree_with_their_marks_come_first(tmp_path: Path) -> None:
    photos = read_marks(draw(tmp_path, 4))
    model = build(make_plan(photos), module.Objects(photos.attributes), channels=(8, 16, 16), head=8)
    answers = read_photos(model, photos, Propose(least=0.001, draws=2))
    entries = find_disagreements(model, answers)
    assert [entry["surprise"] for entry in entries] == sorted((entry["surprise"] for entry in entries), reverse=True)
    assert {entry["file_name"] for entry in entries} <= {photo.path.name for photo in photos}
    for entry, line in zip(entries, map(describe_disagreement, entries), strict=True):
        assert line.startswith(f"{entry['file_name']}: read ")
        assert len(entry["not_read"]) <= sum(entry["marked"].values())


COCO: dict[str, Any] = {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("files", "train", "held"),
    [
        (("train/metadata.jsonl", "valid/metadata.jsonl"), "train", "valid"),
        (("train/_annotations.coco.json", "val/_annotations.coco.json"), "train", "val"),
        (("train/metadata.jsonl",), "train", None),
        (("train/metadata.jsonl", "metadata.jsonl"), ".", None),
        (("labels/train/0.txt", "labels/val/0.txt", "images/train/0.png", "data.yaml"), "images/train", "images/val"),
        (
            ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
        ),
    ],
)
def test_splits_are_found(tmp_path: Path, files: tuple[str, ...], train: str, held: str | None) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if "images/train/0.png" in files:
        (tmp_path / "images/val").mkdir()
    assert find_splits(tmp_path) == (tmp_path / train, None if held is None else tmp_path / held)


def test_copies_are_left_out_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, held = draw(tmp_path / "train", 4), draw(tmp_path / "val", 2)
    (held / "1.png").write_bytes((train / "3.png").read_bytes())
    chosen = choose_photos(tmp_path)
    assert [photo.path.name for photo in chosen.train] == ["1.png", "2.png"]  # 0 is a copy, too
    assert len(chosen.held) == 2
    assert "3.png is left out: the same picture is 1.png of validation" in capsys.readouterr().out
    (train / "2.png").write_bytes((train / "1.png").read_bytes())
    assert len(choose_photos(train, kept=1).train) == 2
    assert "2.png is left out: the same picture is 1.png of the photos" in capsys.readouterr().out


def rewrite(folder: Path, name: str, text: str) -> Path:
    (folder / "metadata.jsonl").unlink()
    (folder / name).write_text(text)
    return folder


def turned(folder: Path) -> Path:
    """Marks of the picture before EXIF turns it, with its size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIDE, 32)).save(folder / "t.jpg", exif=exif)
    picture = {"id": 1, "file_name": "t.jpg", "width": SIDE, "height": 32}
    return rewrite(folder, "a.json", json.dumps({**COCO, "images": [picture]}))


def removed(folder: Path) -> Path:
    (folder / "0.png").unlink()
    return folder


def empty(folder: Path) -> Path:
    (folder / "metadata.jsonl").unlink()
    return folder


def copied(folder: Path) -> Path:
    draw(folder / "train", 3)
    draw(folder / "val", 3)
    return folder


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"data": None}, "got no data; .*pass --data FOLDER"),
        (empty, {}, "without labels; expected .*; check the path"),
        (lambda folder: draw(folder, 1), {}, "got 1 photos with 1 objects; expected two photos .*; mark more"),
        (
            lambda folder: rewrite(folder, "a.csv", "file,x,y,w,h,label\n0.png,nan,0.5,0.1,0.1,a\n"),
            {},
            "with 'nan'; exp",
        ),
        (
            lambda folder: rewrite(folder, "a.csv", "file,x,y,w,h,label\n0.png,2,9,9,9,a\n"),
            {},
            "expected shares of the",
        ),
        (removed, {}, "1 of 6 pictures missing: 0.png; expected them in"),
        (turned, {}, "which EXIF turns, of 32x64; expected marks of the upright picture; label it again"),
        (copied, {}, "with all photos of .*; expected others; give photos that are kept back"),
        (None, {"turns": "maybe"}, "got turns=maybe; expected true or false"),
        (None, {"preset": "paper"}, "got preset 'paper'; expected default"),
        (None, {"kept": 6}, "6 photos to keep back of 6; expected fewer; lower kept"),
        (None, {"kept": "2", "validation": "x"}, "got kept=2 and validation=x; expected one of them"),
        (None, {"validation": "nowhere"}, "got nowhere, which does not exist"),
        (None, {"photos": 0}, "got photos=0; expected one at least"),
        (None, {"curve": "2,all"}, "with no photos that are kept back; expected"),
        (None, {"curve": "0,all", "kept": 1}, "got curve=0,all; expected numbers of photos from 2 on"),
        (None, {"curve": "true", "kept": 1}, "for 5 photos; expected fewer in a part of them"),
    ],
)
def test_bad_input_is_named_in_one_line(
    tmp_path: Path, change: Callable[[Path], Path] | None, options: dict[str, Any], message: str
) -> None:
    folder = draw(tmp_path, 6)
    folder = folder if change is None else change(folder)
    with pytest.raises(InputError, match=message) as caught:
        objects(**{"data": folder, "init": None, **options})
    assert "\n" not in str(caught.value)


def test_what_is_odd_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [f"{k}.png,{0.2 if k else 0.99},0.5,0.2,0.2,{'rare' if k < 2 else 'disc'}" for k in range(6)]
    folder = rewrite(draw(tmp_path, 6), "a.csv", "\n".join(["file,x,y,w,h,label", *photos]))
    with pytest.warns(EnergycompWarning, match="over the edge of the picture, which are cut off there: 1"):
        objects(data=folder, init=None)
    assert "few examples: disc (4), rare (2); expect errors, or mark more" in capsys.readouterr().out
