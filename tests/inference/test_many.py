"""Images read side by side: the answers and the cost of one after another, in larger calls or each in a thread."""

import sys
import time
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from PIL import Image

from energycomp import infer
from energycomp.denoisers import count_rows, evaluator
from energycomp.denoisers.together import Gathering, run_together
from energycomp.errors import InputError
from energycomp.inference import infer_many
from energycomp.testing import bumps_model, planted, tinted_model, tiny_model

PLACES = ([[0.2, 0.2]], [[0.3, 0.7], [0.8, 0.3]], [[0.5, 0.5], [0.2, 0.8], [0.85, 0.2]])


def images(model: Any) -> list[torch.Tensor]:
    width = model.conditioner.value_shape[0]
    values = [torch.tensor([[*place, *([1.0] * (width - 2))] for place in places]) for places in PLACES]
    return [(planted(model, one)[0] / 2 + 0.5).clamp(0, 1) for one in values]


@pytest.mark.parametrize(("make", "merged"), [(bumps_model, True), (tinted_model, True), (bumps_model, False)])
def test_the_answers_and_their_cost_are_those_of_one_after_another(
    make: Any, merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator, and on a CPU."""
    run = partial(run_together, merged=merged)
    monkeypatch.setattr(sys.modules["energycomp.inference.infer"], "run_together", lambda tasks, **_: run(tasks))
    model = make(solver="pursuit", counts=(0, 4))
    alone = [infer(image, model, generator=3) for image in images(model)]
    with count_rows() as spent:
        found = list(infer_many(images(model), model, seed=3, batch_size=2))
    assert [one.count for one in found] == [one.count for one in alone]
    assert [one.rows for one in found] == [one.rows for one in alone]
    assert spent.rows == sum(one.rows for one in alone)
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one.conditions, other.conditions, atol=1e-4, rtol=0)
        assert one.error == pytest.approx(other.error, rel=1e-4)


def test_an_open_file_that_is_given_several_times_is_read_as_often(tmp_path: Path) -> None:
    """Pillow decodes an open file at its first use, which no two threads may do."""
    model = bumps_model(solver="pursuit", counts=(0, 2))
    model.decode(planted(model, torch.tensor([[0.3, 0.7]])))[0].resize((1024, 1024)).save(tmp_path / "large.png")
    for _ in range(3):
        with Image.open(tmp_path / "large.png") as image:
            assert [one.count for one in infer([image] * 4, model)] == [1] * 4


def test_a_network_of_one_stage_and_calls_of_two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images at a time: a call holds the rows of both, and those of another shape run by themselves."""
    calls: list[int] = []
    original = evaluator._rows

    def counted(denoiser: Any, shared: Any, condition: Any, owner: Any) -> Any:
        calls.append(len(owner))
        return original(denoiser, shared, condition, owner)

    monkeypatch.setattr(evaluator, "_rows", counted)
    model, other = tiny_model(), bumps_model()
    x, t = torch.zeros(2, *model.denoiser.sample_shape), torch.tensor([10.0, 20.0])
    y = torch.zeros(1, *other.denoiser.sample_shape)

    def task(place: float) -> Any:
        return lambda: torch.no_grad()(model(place, 0.2).eps)(x, t)

    def foreign() -> Any:
        with torch.no_grad():
            return other(0.5, 0.5).eps(y, t[:1])

    found = run_together([task(0.1), task(0.9), foreign])
    assert sorted(calls) == [1, 4]
    for place, result in zip((0.1, 0.9), found, strict=False):
        torch.testing.assert_close(result, model(place, 0.2).eps(x, t).detach(), atol=1e-3, rtol=1e-3)


def test_an_error_of_one_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one of a shared call is raised by those who made it."""
    model = tiny_model()
    x, t = torch.zeros(1, *model.denoiser.sample_shape), torch.zeros(1)
    done: list[int] = []

    def good() -> None:
        for _ in range(3):
            with torch.no_grad():
                model(0.1, 0.2).eps(x, t)
        done.append(1)

    def bad() -> None:
        raise InputError("got none; expected one; give one")

    with pytest.raises(InputError, match="got none"):
        run_together([good, bad, good])
    assert done == [1, 1]

    def broken(*_: Any) -> Any:
        raise MemoryError("too much")

    monkeypatch.setattr(evaluator, "_rows", broken)
    with pytest.raises(MemoryError, match="too much"):
        run_together([good] * 2)


@pytest.mark.parametrize(
    ("available", "tasks", "at_a_time", "threads"), [(2, 4, 2, 1), (4, 2, 2, 2), (1, 2, 1, 1), (2, 0, 1, 2)]
)
def test_tasks_that_are_not_merged_share_the_threads_of_torch(
    available: int, tasks: int, at_a_time: int, threads: int
) -> None:
    together = Barrier(at_a_time, timeout=20)
    before = torch.get_num_threads()

    def task() -> int:
        together.wait()  # for others that run at the same time
        return torch.get_num_threads()

    try:
        torch.set_num_threads(available)
        assert run_together([task] * tasks, merged=False) == [threads] * tasks
        assert torch.get_num_threads() == available
    finally:
        torch.set_num_threads(before)


def test_no_images_and_a_batch_of_none() -> None:
    model = bumps_model(solver="pursuit")
    assert list(infer_many([], model)) == []
    for size in (0, 1.5):
        with pytest.raises(InputError, match=f"batch_size={size}"):
            list(infer_many(images(model), model, batch_size=size))  # type: ignore[arg-type]


def test_calls_run_without_gradients_whoever_serves_them() -> None:
    """A thread that ends serves the others, although gradients are on in it."""
    seen = list[bool]()

    def batched(arguments: Any) -> list[torch.Tensor]:
        seen.append(torch.is_grad_enabled())
        return [torch.zeros(()) for _ in arguments]

    gathering = Gathering(2)
    caller = Thread(target=gathering.call, args=(("key",), batched))
    caller.start()
    while not gathering._waiting:
        time.sleep(0.001)
    gathering.leave()
    caller.join()
    assert torch.is_grad_enabled()
    assert seen == [False]


def test_a_gathering_that_is_stopped_ends_its_threads_at_their_next_call() -> None:
    gathering = Gathering(1)
    gathering.stop()
    with pytest.raises(KeyboardInterrupt):
        gathering.call("key", lambda calls: [torch.zeros(()) for _ in calls])
