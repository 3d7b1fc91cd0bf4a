"""The benchmark of seeds: what it counts of answers that are known."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from benchmarks.inference.seeds import (
    by_chance,
    by_other_files,
    calibration,
    error_of_halves,
    fitted,
    judged,
    same,
    score,
    summary,
)


def line(sure: Sequence[float], right: bool, p_value: float = 0.5) -> dict[str, Any]:
    """The answers of some seeds to an image of two objects, with as many right words as that."""
    readings = [
        {
            "nats": 0.0,
            "rows": 1_000 + k,
            "p_value": p_value,
            "sure": each,
            "posterior": each,
            "found": 2,
            "words": 2 if right else 1,
            "count_right": True,
        }
        for k, each in enumerate(sure)
    ]
    return {"true": [[0.3, 0.4], [0.6, 0.7]], "readings": readings, "same": True}


def test_answers_that_are_right_as_often_as_they_say_have_an_error_that_falls_with_their_number() -> None:
    few, many = ([line([0.7] * 5, k % 10 < 7) for k in range(n)] for n in (20, 2_000))
    assert by_chance(few, times=50) > 0.05
    assert by_chance(many, times=20) < 0.03
    assert calibration(judged(many)) == pytest.approx(0.0, abs=0.02)
    # The answers to an image are right or wrong together: five are not five times as many
    alone = [line([0.7], k % 10 < 7) for k in range(20)]
    assert by_chance(few, times=50) == pytest.approx(by_chance(alone, times=50), abs=0.05)


def test_the_weights_are_those_by_which_answers_are_right_as_often_as_they_say() -> None:
    """Posteriors of 0.8 and 0.2 that are right in 0.6 and 0.4 of the cases: half as far from 1/2 in log-odds, about."""
    lines = [line([posterior], k % 10 < hits) for k in range(400) for posterior, hits in ((0.8, 6), (0.2, 4))]
    assert fitted(lines) == pytest.approx((0.0, math.log(1.5) / math.log(4)), abs=0.01)
    assert calibration(judged(lines)) > 0.1
    assert error_of_halves(lines, times=2) < 0.05
    # Of two kinds of images, one is right as often as it says: what it is worth by the weights of the other one
    honest = [line([posterior], k % 10 < hits) for k in range(400) for posterior, hits in ((0.8, 8), (0.2, 2))]
    told = by_other_files([lines, honest])
    assert told["error_of_files"] == pytest.approx([calibration(judged(lines))] * 2, abs=0.05)
    assert by_other_files([lines]) == {}


def test_the_summary_counts_images_answers_and_objects() -> None:
    found = summary([line([0.9, 0.9], True, 0.001), line([0.4, 0.4], False, 0.001), line([0.5, 0.5], False)])
    assert found["images"] == 3
    assert found["all_right"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["words"] == pytest.approx(8 / 12, abs=1e-4)
    assert (found["p_below_0.01"], found["wrong_of_p_below_0.01"]) == (4, 0.5)
    assert (found["sure"], found["unsure"]) == ((2, 1.0), (4, 0.0))
    assert found["nfe_easy_half"] == 1_000


def test_answers_are_the_same_by_their_words_wherever_they_list_an_object() -> None:
    one = torch.tensor([[0.3, 0.4, 1.0], [0.6, 0.7, 2.0]])
    assert same([one, one.flip(0) + torch.tensor([0.01, 0.0, 0.0])])
    assert not same([one, one[:1]])
    other = one.clone()
    other[1, 2] = 1.0
    assert not same([one, other])
    assert score(other, one) == {"found": 2, "words": 1, "count_right": True}
