"""Damaged and hostile files are refused: a part of benchmarks/robustness/fuzz.py, which has many more cases."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from benchmarks.common.memory import resident
from benchmarks.robustness import fuzz_attacks, fuzz_images, fuzz_models, fuzz_mutations
from benchmarks.robustness.fuzz_watch import Tally, WrongError
from energycomp.cli.options import numbers
from energycomp.errors import InputError
from energycomp.fields import parse_range

SOUND = fuzz_images.sound_images()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> fuzz_models.Saved:
    return fuzz_models.Saved.make(tmp_path_factory.mktemp("saved") / "model")


def test_damaged_weight_files(saved: fuzz_models.Saved, tmp_path: Path) -> None:
    verdicts, kinds = Counter[str](), Counter[str]()

    def each(case: tuple[str, fuzz_models.Files]) -> None:
        kind, files = case
        verdict = fuzz_models.judge_weights(saved, files, tmp_path / "model")
        assert verdict == "refused" or kind.endswith("corrected") or kind == "manifest", kind
        verdicts[verdict] += 1
        kinds[kind] += 1

    fuzz_mutations.run(fuzz_models.damaged(saved), 60, 1, each)
    assert verdicts["refused"] >= 40
    assert len(kinds) >= 12


@pytest.mark.parametrize(
    ("attacks", "every"),
    [(fuzz_attacks.pickles, 11), (fuzz_attacks.names, 3), (fuzz_attacks.links, 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_attacks_run_nothing_and_read_nothing(
    saved: fuzz_models.Saved,
    tmp_path: Path,
    attacks: Callable[[fuzz_attacks.Attacked], Iterator[fuzz_attacks.Attack]],
    every: int,
) -> None:
    attacked = fuzz_attacks.Attacked(saved, tmp_path)
    found = list(attacks(attacked))
    first = {kind: number for number, (kind, _, _) in reversed(list(enumerate(found)))}
    for number, (_, prepare, may_load) in enumerate(found):
        if number in first.values() or number % every == 0:
            attacked.judge(prepare, may_load=may_load)


def test_the_watch_sees_what_a_loader_must_not_do(saved: fuzz_models.Saved, tmp_path: Path) -> None:
    attacked = fuzz_attacks.Attacked(saved, tmp_path)
    (tmp_path / "payload").write_bytes(fuzz_attacks.payloads(attacked.marker)["torch.save"])

    def judge(action: Callable[[], Any]) -> None:
        def load() -> None:
            action()

        attacked.judge(lambda: load, may_load=False)

    secret = tmp_path / "secret" / "config.json"
    sys.modules.pop("this", None)  # another test may have imported it
    for action, what in (
        (lambda: torch.load(tmp_path / "payload", weights_only=False), "unpickling"),
        (lambda: os.system("true"), "os.system"),  # noqa: S605, S607
        (secret.read_text, "opened outside"),
        (lambda: __import__("intruder"), "opened outside .*intruder"),
        (lambda: __import__("this"), "imported: .'this'"),
    ):
        with pytest.raises(WrongError, match=what):
            judge(action)
    del sys.modules["intruder"], sys.modules["this"]


def test_configs_load_as_stated_or_not_at_all(tmp_path: Path) -> None:
    verdicts = Counter[str]()
    for saved in fuzz_models.two_networks(tmp_path).values():
        fuzz_mutations.run(
            fuzz_mutations.json_texts(saved.config),
            20,
            1,
            lambda text, saved=saved: verdicts.update([fuzz_models.judge_config(saved, text, tmp_path / "model")]),
        )
    assert verdicts["refused"] >= 20
    assert verdicts["a right model"] >= 1


def test_a_size_that_the_network_cannot_take_is_refused(saved: fuzz_models.Saved, tmp_path: Path) -> None:
    odd = fuzz_mutations.changed(saved.config, ("denoiser", "sample_shape"), [3, 15, 15])
    odd = fuzz_mutations.changed(odd, ("processor", "size"), [15, 15])
    assert fuzz_models.judge_config(saved, json.dumps(odd), tmp_path / "model") == "refused"


@pytest.mark.parametrize("name", SOUND)
def test_images_are_read_as_they_show(name: str, tmp_path: Path) -> None:
    assert fuzz_images.judge_right(SOUND[name], tmp_path) == "right"


def test_damaged_images(tmp_path: Path) -> None:
    verdicts, data = Counter[str](), {name: image.data for name, image in SOUND.items()}
    fuzz_mutations.run(
        fuzz_mutations.images(data), 150, 1, lambda case: verdicts.update([fuzz_images.judge(case[1], tmp_path)])
    )
    assert min(verdicts["refused"], verdicts["an image"]) >= 30


def test_paths_without_an_image(tmp_path: Path) -> None:
    for action in fuzz_images.odd_paths(tmp_path).values():
        assert fuzz_images.judge_path(action) == "refused"


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory is read from Linux")
@pytest.mark.parametrize("name", (stated := fuzz_images.stated()))
def test_images_with_large_stated_sizes_take_no_memory(name: str, tmp_path: Path) -> None:
    fuzz_images.judge(SOUND["PNG RGB"].data, tmp_path)
    (tmp_path / "a.bomb").write_bytes(stated[name])
    tally = Tally(baseline=resident(), limit=64e6)
    tally.add(name, lambda: fuzz_images.judge_bomb(tmp_path / "a.bomb"))
    assert not tally.wrong
    assert tally.verdicts[name] == {"refused": 1}


WRITTEN = (
    st.text(max_size=12)
    | st.text("0123456789-.,+einfa \u0663\n", max_size=12)
    | st.sampled_from(["nan", "1,inf", "1e999"])
)
REPEATABLE = settings(derandomize=True, database=None, deadline=None)


@REPEATABLE
@given(st.integers(-9, 99), st.integers(-9, 99))
def test_ranges_are_read_as_written(low: int, high: int) -> None:
    assert _ours(lambda: parse_range(f"{low}-{high}")) == ((low, high) if 0 <= low <= high <= 64 else None)


@REPEATABLE
@given(WRITTEN)
def test_ranges_that_a_person_writes(text: str) -> None:
    low, high = _ours(lambda: parse_range(text)) or (0, 0)
    assert 0 <= low <= high <= 64


@REPEATABLE
@given(WRITTEN)
def test_numbers_that_a_person_writes(text: str) -> None:
    found = _ours(lambda: numbers(text, "--at"))
    assert found is None or (len(found) == text.count(",") + 1 and bool(np.isfinite(found).all()))


@REPEATABLE
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_as_written(values: list[float]) -> None:
    assert numbers(",".join(map(repr, values)), "--at") == tuple(values)


def _ours(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except InputError:
        return None
