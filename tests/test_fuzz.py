"""Nothing is let in: a part of benchmarks/fuzz.py, which has many more cases of each kind."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from energycomp.cli.options import numbers
from energycomp.errors import InputError
from energycomp.evaluation import parse_range

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import fuzz_attacks
import fuzz_configs
import fuzz_pictures
import fuzz_weights
from fuzz_watch import Tally, WrongError, resident

SOUND = fuzz_pictures.pictures()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> fuzz_weights.Saved:
    return fuzz_weights.Saved.make(tmp_path_factory.mktemp("saved") / "model")


def test_fifty_mutated_weight_files(saved: fuzz_weights.Saved, tmp_path: Path) -> None:
    rng, verdicts = np.random.default_rng(1), Counter[str]()
    for _ in range(50):
        kind, files = fuzz_weights.case(saved, rng)
        verdict = fuzz_weights.judge(saved, files, tmp_path / "model")
        verdicts[verdict] += 1
        assert verdict == "refused" or kind.endswith("corrected") or kind == "manifest", kind
    assert verdicts["refused"] >= 40


@pytest.mark.parametrize(
    ("attacks", "every"),
    [(fuzz_attacks.pickles, 11), (fuzz_attacks.names, 3), (fuzz_attacks.links, 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_attacks_run_nothing_and_read_nothing(
    saved: fuzz_weights.Saved,
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


def test_the_watch_sees_what_a_loader_must_not_do(saved: fuzz_weights.Saved, tmp_path: Path) -> None:
    attacked = fuzz_attacks.Attacked(saved, tmp_path)
    (tmp_path / "payload").write_bytes(fuzz_attacks.payloads(attacked.marker)["torch.save"])

    def judge(action: Callable[[], Any]) -> None:
        def load() -> None:
            action()

        attacked.judge(lambda: load, may_load=False)

    secret = tmp_path / "secret" / "config.json"
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


def test_configs_load_as_they_say_or_not_at_all(tmp_path: Path) -> None:
    verdicts = Counter[str]()

    def each(_: str, base: fuzz_configs.Base, text: str) -> None:
        verdicts[fuzz_configs.judge(base, text, tmp_path / "model")] += 1

    for kind, base in fuzz_configs.bases(tmp_path).items():
        fuzz_configs.run(each, kind, base, 20, seed_=1)
    assert verdicts["refused"] >= 20
    assert verdicts["a right model"] >= 1


def test_a_size_that_the_network_cannot_take_is_refused(tmp_path: Path) -> None:
    base = fuzz_configs.bases(tmp_path)["two_stage"]
    odd = fuzz_configs.changed(base.config, ("denoiser", "sample_shape"), lambda _: [3, 15, 15])
    odd = fuzz_configs.changed(odd, ("processor", "size"), lambda _: [15, 15])
    assert fuzz_configs.judge(base, json.dumps(odd), tmp_path / "model") == "refused"


@pytest.mark.parametrize("name", SOUND)
def test_pictures_are_what_they_show(name: str, tmp_path: Path) -> None:
    assert fuzz_pictures.judge_right(SOUND[name], tmp_path) == "right"


def test_mutated_pictures(tmp_path: Path) -> None:
    rng, verdicts = np.random.default_rng(1), Counter[str]()
    for _ in range(150):
        data = SOUND[fuzz_weights.pick(rng, list(SOUND))].data
        verdicts[fuzz_pictures.judge(fuzz_pictures.mutate(data, rng), tmp_path)] += 1
    assert min(verdicts["refused"], verdicts["a picture"]) >= 30


def test_paths_that_hold_no_picture(tmp_path: Path) -> None:
    for action in fuzz_pictures.odd_paths(tmp_path).values():
        assert fuzz_pictures.judge_path(action) == "refused"


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory is Linux's to tell")
@pytest.mark.parametrize("name", (boasts := fuzz_pictures.boasts()))
def test_pictures_that_say_more_than_they_hold_take_no_memory(name: str, tmp_path: Path) -> None:
    fuzz_pictures.judge(SOUND["PNG RGB"].data, tmp_path)
    (tmp_path / "a.bomb").write_bytes(boasts[name])
    tally = Tally(baseline=resident(), limit=64e6)
    tally.add(name, lambda: fuzz_pictures.judge_bomb(tmp_path / "a.bomb"))
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
