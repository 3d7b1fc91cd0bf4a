"""A reader gives the same columns in one process, in two, and under every engine that is installed."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.batch import Reader
from energycomp.errors import InputError
from energycomp.images import to_output
from energycomp.inference import infer
from energycomp.testing import bumps_model, planted

PLACES = [[(0.25, 0.5)], [(0.25, 0.25), (0.75, 0.75)], []]


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
    image = picture(PLACES[0])
    image.save(tmp_path / "one.png")
    forms: list[Any] = [
        image,
        np.asarray(image),
        content(image),
        {"bytes": content(image), "path": None},
        {"bytes": None, "path": str(tmp_path / "one.png")},
        str(tmp_path / "one.png"),
        tmp_path / "one.png",
    ]
    found = reader({"image": forms, "id": range(7)})
    expected = infer(image, bumps_model(), solver="pursuit", count=(0, 2), generator=0).record()
    assert found["id"] == range(7)
    assert found["failed"] == [""] * 7
    for name in ("count", "rows", "out_of_distribution", "error", "p_value"):
        assert found[name] == [expected[name]] * 7
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


def test_columns_that_do_not_fit_are_refused(reader: Reader) -> None:
    with pytest.raises(InputError, match=r"without 'image' among \['photo'\]"):
        reader({"photo": []})
    with pytest.raises(InputError, match="with a column 'count', which an answer has"):
        reader({"image": [], "count": []})
    assert "read_count" in Reader(bumps_model, prefix="read_")({"image": [], "count": []})


def test_a_pickled_reader_has_its_arguments_and_no_model(reader: Reader) -> None:
    reader({"image": [picture(PLACES[0])]})
    again = pickle.loads(pickle.dumps(reader))  # noqa: S301 - our own
    assert again.__getstate__() == Reader(bumps_model, solver="pursuit", count=(0, 2)).__getstate__()
    assert len(pickle.dumps(reader)) < 1000
    assert again._loaded is None


def expected_columns(reader: Reader) -> dict[str, Any]:
    found = reader({"image": [*map(picture, PLACES), b"no image"]})
    return {name: found[name] for name in ("count", "objects", "error", "failed")}


def test_two_processes_of_joblib(reader: Reader) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib is not installed")
    batches = [{"image": [content(picture(places))]} for places in PLACES] + [{"image": [b"no image"]}]
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(reader)(batch) for batch in batches)
    for name, values in expected_columns(reader).items():
        assert [batch[name][0] for batch in found] == pytest.approx(values, nan_ok=True), name


def test_two_processes_of_datasets(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    images = [{"bytes": content(picture(places)), "path": None} for places in PLACES]
    data = datasets.Dataset.from_dict({"image": [*images, {"bytes": b"no image", "path": None}]})
    data = data.cast_column("image", datasets.Image(decode=False))
    found = data.map(reader, batched=True, batch_size=2, num_proc=2, load_from_cache_file=False)
    for name, values in expected_columns(reader).items():
        assert list(found[name]) == pytest.approx(values, nan_ok=True), name


def test_two_actors_of_ray(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed")
    pytest.importorskip("ray.data", reason="ray is installed without its data")
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        items = [{"image": content(picture(places))} for places in PLACES] + [{"image": b"no image"}]
        data = ray.data.from_items(items).repartition(2)
        compute = ray.data.ActorPoolStrategy(size=2)
        rows = data.map_batches(Actor, fn_constructor_args=(reader,), batch_size=2, compute=compute, num_cpus=0.8)
        found = {row["image"]: row for row in rows.take_all()}
    finally:
        ray.shutdown()
    expected = expected_columns(reader)
    for number, item in enumerate(items):
        for name, values in expected.items():
            assert found[item["image"]][name] == pytest.approx(values[number], nan_ok=True), name


class Actor:
    """Holds a reader in each process of Ray Data."""

    def __init__(self, reader: Reader) -> None:
        self.read = reader

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.read(batch)


def test_another_process_has_one_thread(reader: Reader) -> None:
    threads = torch.get_num_threads()
    again = pickle.loads(pickle.dumps(reader))  # noqa: S301 - our own
    try:
        torch.set_num_threads(2)
        reader.load()
        assert torch.get_num_threads() == 2
        again.load()
        assert torch.get_num_threads() == 1
        assert again._process == os.getpid()
    finally:
        torch.set_num_threads(threads)
