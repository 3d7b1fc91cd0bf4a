"""The public doors of Python, one row for each call: it works, or it raises an error that says what to do."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from energycomp.components import random_values
from energycomp.decomposition import decompose, decomposer_of
from energycomp.errors import EnergycompError, InputError, NotFoundError
from energycomp.images import to_unit
from energycomp.inference import Problem, Solution, draw_bank, infer, make_problem
from energycomp.models import Defaults, Model, save_pretrained
from energycomp.plugins import register, registry
from energycomp.sampling import Composer
from energycomp.testing import attributes_model, bumps_model, labels_model, planted, stripes_model, tiny_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_edit import edit
from energycomp_lab.evaluation import CountAccuracy, Example, evaluate
from energycomp_lab.training import denoising_loss
from energycomp_samplers import rank

PLACES = torch.tensor([[0.2, 0.3], [0.7, 0.6]])
LABELS = torch.tensor([2, 5])
BLANK = torch.zeros(3, 16, 16)
BUMP = "bumps(0.2, 0.3)"


class First:
    """Answers the first candidates, as many as there may be; noise decides the error."""

    needs: ClassVar[None] = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        listed = problem.slots[0].candidates if problem.slots else None
        values = PLACES if listed is None else listed
        found = values[: problem.counts[1]]
        noise = float(torch.rand(1, generator=generator))
        return Solution(found, len(found), noise, 0.0, problem.rows)


class Needy(First):
    def __init__(self, width: int) -> None:
        self.width = width


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    register("solvers", "first", First)


def places(**options: Any) -> Solution:
    model = bumps_model(solver="first", counts=(0, 2))
    return infer(to_unit(planted(model, PLACES)), options.pop("model", model), **options)


def counted(count: Any, model: Model | None = None) -> Callable[[], tuple[int, int]]:
    return lambda: make_problem(BLANK[None], model or bumps_model(counts=(0, 4)), count=count).counts


def listed(candidates: Any, model: Model | None = None) -> list[Any]:
    problem = make_problem(BLANK[None], labels_model(8) if model is None else model, candidates=candidates)
    return [slot.candidates.tolist() for slot in problem.slots if slot.candidates is not None]


def scored(**options: Any) -> Any:
    model = bumps_model(solver="first", counts=(0, 2))
    examples = options.pop("examples", [Example(planted(model, PLACES), conditions=PLACES.tolist())])
    metrics = options.pop("metrics", MetricCollection({"count": CountAccuracy()}))
    return evaluate(options.pop("model", model), examples, metrics, progress=False, **options)


def edited(**options: Any) -> Tensor:
    model = bumps_model(solver="first", counts=(2, 2), num_inference_steps=4)
    return edit(to_unit(planted(model, PLACES)), model, **{"remove": [0], "progress": False, **options}).values


WORKS: dict[str, tuple[Callable[[], Any], Any]] = {
    "a solver's name": (lambda: places(solver="first").count, 2),
    "a solver's class": (lambda: places(solver=First).count, 2),
    "a solver": (lambda: places(solver=First()).count, 2),
    "count 3 of numpy": (counted(np.int64(3)), (3, 3)),
    "count 3 in a tensor": (counted(torch.tensor(3)), (3, 3)),
    "counts in a list": (counted([2, 4]), (2, 4)),
    "counts in an array": (counted(np.array([2, 4])), (2, 4)),
    "a count of attributes in a list": (counted([3, 3], attributes_model(3)), (3, 3)),
    "labels in a list": (lambda: listed([5, 1, 1])[0], [1, 5]),
    "labels in an array": (lambda: listed(np.array([1, 5]))[0], [1, 5]),
    "places in a list": (lambda: listed([(0, 0.5), (1, 0.25)], bumps_model())[0], [[0.0, 0.5], [1.0, 0.25]]),
    "places in an array": (lambda: listed(np.array([[0.0, 0.5]]), bumps_model())[0], [[0.0, 0.5]]),
    "places in tensors": (lambda: listed([torch.tensor([0.0, 0.5])], bumps_model())[0], [[0.0, 0.5]]),
    "an evaluated solver's name": (lambda: scored(solver="first").solver, "First"),
    "an evaluated solver's class": (lambda: scored(solver=First).solver, "First"),
    "evaluation with a seed of numpy": (lambda: scored(seed=np.int64(3)).seed, 3),
    "an edit with a solver's name": (lambda: edited(solver="first").tolist(), PLACES[1:].tolist()),
    "an edit with a place in an array": (
        lambda: edited(move={0: np.array([0.5, 0.25])}, remove=[]).tolist()[0],
        [0.5, 0.25],
    ),
    "arguments from an answer": (lambda: repr(bumps_model()(*PLACES[0])), BUMP),
    "a row of an answer": (lambda: repr(bumps_model()(PLACES[0])), BUMP),
    "a row of an answer of labels": (lambda: repr(labels_model(8)(LABELS[0])), "labels(2)"),
    "an answer of labels composed": (lambda: repr(labels_model(8).compose(LABELS)), "-u + labels(2) + labels(5)"),
    "a list composed": (lambda: repr(bumps_model().compose([(0.2, 0.3), (0.5, 1)])), f"-u + {BUMP} + bumps(0.5, 1)"),
    "numbers of numpy": (lambda: repr(bumps_model()(np.float32(0.25), np.float64(0.5))), "bumps(0.25, 0.5)"),
    "a label of numpy": (lambda: repr(labels_model(8)(np.int64(3))), "labels(3)"),
    "an array": (lambda: repr(bumps_model()(np.array([0.25, 0.5]))), "bumps(0.25, 0.5)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WORKS)
def test_works(case: str) -> None:
    call, expected = WORKS[case]
    assert call() == expected


def test_a_folder_or_a_name_stands_for_its_model(tmp_path: Path) -> None:
    register("models", "stripes", stripes_model)
    save_pretrained(tiny_model(solver="pursuit"), tmp_path / "tiny")
    picture = torch.rand(3, 16, 16)
    assert decompose(picture, "stripes", generator=0).latents.shape == (1, 4, 4)
    assert infer(picture, str(tmp_path / "tiny"), solver=First(), count=1).count == 1
    edited = edit(picture, str(tmp_path / "tiny"), solver=First(), count=1, remove=[0], generator=0, progress=False)
    assert edited.image.size == (16, 16)


MODEL = "expected a Model; .* energycomp.load"
SOLVER = "expected a solver"
COUNT = "expected a whole number, or least and greatest"
LISTED = "expected legal values"
SEED = "expected a seed"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown solver": (lambda: places(solver="frist"), "Did you mean 'first'"),
    "no solver for a model with an encoder": (
        lambda: infer(BLANK, stripes_model()),
        "whose encoder reads .*; use decompose, or name solver 'sgd'",
    ),
    "a class that needs arguments": (lambda: places(solver=Needy), "expected an object: call the class"),
    "no solver": (lambda: places(solver=object()), SOLVER),
    "an object without needs": (lambda: places(solver=SimpleNamespace(solve=print)), "without needs"),
    "a number as solver": (lambda: places(solver=3), SOLVER),
    "an evaluated solver that is none": (lambda: scored(solver=3), SOLVER),
    "an edit's solver that is none": (lambda: edited(solver=3), SOLVER),
    "a name without a model": (lambda: places(model="clver"), "Did you mean 'clevr'"),
    "no model": (lambda: places(model=None), MODEL),
    "no edited model": (lambda: edit(BLANK, 3, remove=[0]), MODEL),
    "no evaluated model": (lambda: scored(model=3), MODEL),
    "a solver that is to decompose": (
        lambda: evaluate(stripes_model(), [Example(torch.zeros(3, 8, 8))], MetricCollection({}), solver="first"),
        "a solver or a count with stripes, which decomposes images",
    ),
    "a decomposition in no step": (
        lambda: decompose(BLANK, stripes_model(), num_inference_steps=0),
        "got 0, expected 1 to",
    ),
    "no decomposing model": (lambda: decompose(BLANK, 3), MODEL),
    "a decomposer's class": (lambda: decompose(BLANK, DiffusionDecomposer), MODEL),
    "a decomposer of a number": (lambda: decomposer_of(3), MODEL),
    "a decomposer's own model's name": (lambda: DiffusionDecomposer("slots"), MODEL),
    "count in text": (counted("3"), COUNT),
    "counts in text": (counted("35"), COUNT),
    "one end of a range": (counted((0,)), COUNT),
    "half a component": (counted(2.5), COUNT),
    "a range with half a component": (counted((0, 2.5)), COUNT),
    "a flag as count": (counted(True), COUNT),
    "a flag of numpy as count": (counted(np.bool_(True)), COUNT),
    "a flag in a tensor as count": (counted(torch.tensor(True)), COUNT),
    "a negative count": (counted(-1), "0 <= least <= greatest"),
    "a range from below 0": (counted((-1, 2)), "0 <= least <= greatest"),
    "a range upside down": (counted((3, 1)), "0 <= least <= greatest"),
    "a count beyond memory": (counted(10**12), "0 <= least <= greatest"),
    "an evaluated count in text": (lambda: scored(count="3"), COUNT),
    "no candidates": (lambda: listed([]), LISTED),
    "one candidate without a list": (lambda: listed(3), LISTED),
    "a label that does not exist": (lambda: listed([1, 8]), LISTED),
    "a fraction of a label": (lambda: listed([0.5]), LISTED),
    "words for labels": (lambda: listed(["cat"]), "expected one label"),
    "text for candidates": (lambda: listed("cat"), LISTED),
    "places outside": (lambda: listed([(0.5, 1.5)], bumps_model()), LISTED),
    "places that are not numbers": (lambda: listed([(0.5, float("nan"))], bumps_model()), LISTED),
    "numbers for places": (lambda: listed([0.5, 0.5], bumps_model()), LISTED),
    "ragged places": (lambda: listed([(0.5, 0.5), (0.5,)], bumps_model()), "expected two numbers"),
    "a generator in text": (lambda: places(generator="1"), SEED),
    "a flag as generator": (lambda: places(generator=True), SEED),
    "a negative seed": (lambda: places(generator=-1), SEED),
    "a seed beyond 64 bits": (lambda: places(generator=2**64), SEED),
    "several generators for one image": (lambda: places(generator=[1, 2]), SEED),
    "a seed in text": (lambda: scored(seed="3"), SEED),
    "examples in text": (lambda: scored(examples="synthetic:3-5"), "expected a sequence of Example"),
    "one metric": (lambda: scored(metrics=CountAccuracy()), "expected a MetricCollection"),
    "a row outside": (lambda: bumps_model()(torch.tensor([0.5, 1.5])), "expected a legal value"),
    "a row that is no number": (lambda: bumps_model()(torch.tensor([0.5, torch.nan])), "expected a legal value"),
    "rows of an answer": (lambda: bumps_model()(PLACES[:, None]), "expected two numbers"),
    "a label outside": (lambda: labels_model(8)(torch.tensor(8)), "expected a legal value"),
    "words composed": (lambda: bumps_model().compose("ab"), LISTED),
    "one value composed": (lambda: bumps_model().compose(PLACES[0]), LISTED),
    "values outside composed": (lambda: bumps_model().compose(PLACES * 2), LISTED),
    "a solver object as default": (lambda: Defaults(solver=First()), "expected a text"),
    "a number as default counts": (lambda: Defaults(counts=3), "expected 0 <= low <= high"),
    "a word as default flag": (lambda: Defaults(distinct="no"), "expected True or False"),
    "an image of NaN": (lambda: infer(np.full((16, 16, 3), np.nan), bumps_model()), "expected uint8"),
    "a tensor of NaN": (lambda: infer(torch.full((3, 16, 16), torch.nan), bumps_model()), "expected an image in"),
    "an image without channels": (lambda: infer(torch.zeros(16, 16), bumps_model()), "expected float"),
    "no images": (lambda: infer([], bumps_model()), "expected at least one"),
    "two images": (lambda: infer(torch.zeros(2, 3, 16, 16), bumps_model()), "got 2 images.*call infer for each"),
    "no image": (lambda: infer(None, bumps_model()), "expected a path"),
    "no file": (lambda: infer(Path("nowhere.png"), bumps_model()), "check the path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(EnergycompError) as caught:
        call()
    assert isinstance(caught.value, InputError | NotFoundError)
    assert re.search(message, str(caught.value), re.IGNORECASE), str(caught.value)


def sampled(generator: Any) -> Tensor:
    options: Any = {"num_inference_steps": 1, "output_type": "latent", "scheduler": "DDPMScheduler", "progress": False}
    return Composer([bumps_model()(0.5, 0.5)]).sample(2, generator=generator, **options)


def decomposed(generator: Any) -> Tensor:
    """With a scheduler whose steps draw noise."""
    model = stripes_model(parts=2)
    model = attrs.evolve(model, defaults=attrs.evolve(model.defaults, scheduler="DDPMScheduler", num_inference_steps=3))
    return decompose(torch.zeros(2, 3, 16, 16), model, generator=generator).parts.whole


def banked(generator: Any) -> Tensor:
    bank = draw_bank(3, (1, 2, 2), torch.linspace(0.99, 0.01, 100), generator=generator)
    return torch.cat([bank.noise.flatten(), bank.timestep])


def trained(generator: Any) -> Tensor:
    model = bumps_model()
    given = (torch.zeros(1, 3, 16, 16), model.conditioner(PLACES), torch.tensor([0, 0]))
    return denoising_loss(model.denoiser, *given, generator=generator).detach()


def edited_sample(generator: Any) -> Tensor:
    model = bumps_model(num_inference_steps=4, scheduler="DDPMScheduler", solver="pursuit")
    given: Any = {"remove": [0], "solution": Solution(PLACES, 2, 0.0, 0.0, 0), "tries": 1, "progress": False}
    return edit(to_unit(planted(model, PLACES)), model, generator=generator, **given).sample


SEEDED: dict[str, Callable[[Any], Tensor]] = {
    "infer": lambda generator: torch.tensor(places(generator=generator).error),
    "edit": edited_sample,
    "sample": sampled,
    "decompose": decomposed,
    "draw_bank": banked,
    "Problem.draw": lambda generator: make_problem(BLANK[None], bumps_model()).draw(3, generator).noise,
    "denoising_loss": trained,
    "random_values": lambda generator: random_values(bumps_model().conditioner, 3, generator=generator),
}
SEVERAL = ("sample", "decompose")  # take a list, too


@pytest.mark.parametrize("name", SEEDED)
@pytest.mark.parametrize("seed", [0, np.int64(7)])
def test_a_number_seeds(name: str, seed: Any) -> None:
    call = SEEDED[name]
    assert torch.equal(call(seed), call(torch.Generator().manual_seed(int(seed))))
    if name in SEVERAL:
        generators = [torch.Generator().manual_seed(one) for one in (int(seed), 3)]
        assert torch.equal(call([int(seed), 3]), call(generators))
    for wrong in ("1",) if name in SEVERAL else ("1", [1, 2]):
        with pytest.raises(InputError, match=SEED):
            call(wrong)


def test_a_tensor_of_a_sample_is_read_as_its_image() -> None:
    model, stripes = bumps_model(num_inference_steps=4, solver="pursuit"), stripes_model()
    scene = Composer(model.compose(PLACES))
    tensors, pictures = (
        scene.sample(2, num_inference_steps=4, generator=0, output_type=kind, progress=False) for kind in ("pt", "pil")
    )
    answers = [infer(one[0], model, count=2) for one in (tensors, pictures)]
    torch.testing.assert_close(answers[0].conditions, answers[1].conditions, rtol=0, atol=1e-3)
    for given in (None, model):
        lifts = [rank(images, scene, model=given).lift for images in (tensors, pictures)]
        torch.testing.assert_close(*lifts, rtol=0.01, atol=0.01)
    edits = [edit(one[0], model, remove=[0], solution=answers[0], progress=False) for one in (tensors, pictures)]
    np.testing.assert_allclose(*(np.asarray(edited.image, dtype=float) for edited in edits), atol=1.01)
    parts = [decompose(images, stripes, generator=0).latents for images in (tensors, pictures)]
    torch.testing.assert_close(*parts, rtol=0, atol=0.01)


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_a_tensor_outside_of_the_range_is_one_line(value: float) -> None:
    model, image = bumps_model(), torch.full((3, 16, 16), value)
    calls: dict[str, Callable[[], object]] = {
        "infer": lambda: infer(image, model),
        "edit": lambda: edit(image, model, remove=[0]),
        "rank": lambda: rank([image], model(*PLACES[0]), model=model),
        "decompose": lambda: decompose(image[None], stripes_model()),
    }
    said = rf"^got a tensor between {value:g} and {value:g}; expected an image in \[0, 1\].*$"
    for call in calls.values():
        with pytest.raises(InputError, match=said):
            call()
