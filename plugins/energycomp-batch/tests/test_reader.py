"""A reader gives the same columns in one process, in two, and under two engines."""

import io
import json
import math
import os
import pickle
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import to_output
from energycomp.inference import infer
from energycomp.models import Calibration, save_pretrained
from energycomp.testing import bumps_model, planted, tiny_model
from energycomp_batch import Reader

EXAMPLE = Path(__file__).parents[3] / "examples" / "many_images.py"
PLACES = [[(0.25, 0.5)]]


def picture(places: list[tuple[float, float]]) -> Image.Image:
    made: Image.Image = to_output(planted(bumps_model(), torch.tensor(places).reshape(-1, 2)), "pil")[0]
    return made


def content(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(bumps_model, solver="pursuit", count=(0, 2))


def test_answers_are_those_of_infer_in_every_form_of_an_image(reader: Reader, tmp_path: Path) -> None:
    image, file = picture(PLACES[0]), tmp_path / "one.png"
    image.save(file)
    cells = [{"bytes": content(image), "path": None}, {"bytes": None, "path": str(file)}]
    forms: list[Any] = [image, np.asarray(image), content(image), *cells, str(file), file]
    found = reader({"image": forms, "id": range(7)})
    expected = infer(image, bumps_model(), solver="pursuit", count=(0, 2), generator=0).record()
    assert found["id"] == range(7)
    assert found["failed"] == [""] * 7
    for name in ("count", "rows", "trusted", "error", "p_value"):
        assert found[name] == [expected[name]] * 7
    assert (expected["out_of_distribution"], found["out_of_distribution"]) == (None, [False] * 7)  # a column of bools
    assert [json.loads(text) for text in found["objects"]] == [expected["objects"]] * 7
    assert all(math.isnan(value) for value in found["typicality"])  # the model has no calibration


@pytest.mark.parametrize("bad", [b"no image", "absent.png", {"text": "no image"}, np.zeros((2, 2)), 3, None])
def test_a_bad_image_is_a_reason_and_no_exception(reader: Reader, bad: Any) -> None:
    found = reader({"image": [picture(PLACES[0]), bad]})
    assert found["failed"][0] == ""
    assert found["failed"][1].startswith("got ")
    assert (found["count"], found["rows"][1], found["objects"][1]) == ([1, -1], -1, "[]")
    assert {name: type(values[0]) for name, values in found.items() if name != "image"} == {
        name: type(values[1]) for name, values in found.items() if name != "image"
    }


def test_an_image_of_another_kind_is_not_searched_and_a_column_says_so() -> None:
    known = Calibration((1,), mean=((0.0, 0.0),), std=((9.0, 9.0),), scores=(9.0,) * 9, images=99, background=(-12, 2))
    model = bumps_model(solver="pursuit", calibration=known)
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    found = Reader(model)({"image": [picture(PLACES[0]), noise]})
    assert (found["out_of_distribution"], found["count"]) == ([False, True], [1, -1])
    assert "a kind that bumps does not know" in found["failed"][1]
    assert Reader(model, count=(0, 1), anyway=True)({"image": [noise]})["failed"] == [""]


def test_columns_that_do_not_fit_are_refused(reader: Reader) -> None:
    with pytest.raises(InputError, match=r"without 'image' among \['photo'\]"):
        reader({"photo": []})
    with pytest.raises(InputError, match="with a column 'count', which an answer has"):
        reader({"image": [], "count": []})


def test_a_pickled_reader_has_its_arguments_no_model_and_one_thread_in_another_process(reader: Reader) -> None:
    reader({"image": [picture(PLACES[0])]})
    again, threads = pickle.loads(pickle.dumps(reader)), torch.get_num_threads()  # noqa: S301 - our own
    assert again.__getstate__() == Reader(bumps_model, solver="pursuit", count=(0, 2)).__getstate__()
    assert len(pickle.dumps(reader)) < 1000
    assert again._loaded is None
    try:
        torch.set_num_threads(2)
        reader.load()
        assert torch.get_num_threads() == 2
        again.load()
        assert torch.get_num_threads() == 1
        assert again._process == os.getpid()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("engine", ["joblib", "datasets"])
def test_two_processes_of_an_engine(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_pretrained(tiny_model(solver="pursuit"), tmp_path / "model")
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    for number, path in enumerate(paths[:4]):
        Image.new("RGB", (16, 16), (60 * number, 90, 120)).save(path)
    Path(paths[4]).write_bytes(b"no image")
    command = [str(EXAMPLE), engine, str(tmp_path), "--model", str(tmp_path / "model"), "--count", "0-1"]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr(os, "environ", os.environ)  # datasets leaves a copy, which rich does not follow
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    if engine == "joblib":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown()  # its processes would wait for more
    lines = sorted(line for line in out.splitlines() if line.startswith(str(tmp_path)))
    found = Reader(tmp_path / "model", count=(0, 1))({"image": paths})
    assert lines == [" ".join(map(str, row)) for row in zip(paths, found["count"], found["failed"], strict=True)]
