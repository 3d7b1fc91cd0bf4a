"""Lifts against their closed form and against compositions run one by one; the best of several samples."""

import math
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp import Composer, Model
from energycomp.components import combine, predict
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.images import to_unit
from energycomp.inference import draw_bank
from energycomp.testing import Gaussian, Halved, bumps_model, labels_model, planted, tiny_model
from energycomp_samplers import Ranking, rank, sample_best
from energycomp_samplers.rankable import as_rankable
from energycomp_samplers.ranking import DRAWS, rank_samples

A, B, ELSEWHERE = (0.2, 0.3), (0.7, 0.8), (0.8, 0.2)


def image(model: Model, *places: tuple[float, float]) -> Tensor:
    return planted(model, torch.tensor(places).reshape(-1, 2))


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_the_rate_of_components_that_are_taken_for_shown(spread: float) -> None:
    """Half of the pattern of b: a composition with b and one without leave the same error, so the lift is 0."""
    model = labels_model(2, spread=spread)
    network: Any = model.denoiser.network
    a, b = model(0), Conditional(model.denoiser, model(1).condition)
    one, other = (network.pattern(leaf.condition.rows[:, 0]) for leaf in (a, b))
    picture = (network.background + one + other / 2).detach()
    asked = as_rankable(a & b)
    options: Any = {"model": None, "draws": DRAWS, "constraint": None}
    shown = [bool(rank_samples(picture, asked, generator=seed, **options).shown[0, 1]) for seed in range(200)]
    assert sum(shown) / 200 < 0.03  # LEVEL says 1 to 2 %


def test_an_image_that_lacks_a_component_comes_last() -> None:
    model = bumps_model()
    images = torch.cat([image(model, A), image(model, A, B), image(model), image(model, B, ELSEWHERE)])
    ranking = rank(to_unit(images), model(*A) & model(*B), model=model)
    assert ranking.shown.tolist() == [[True, False], [True, True], [False, False], [False, True]]
    assert ranking.complete.tolist() == [False, True, False, False]
    assert ranking.order[0] == 1
    a, b = "bumps(0.2, 0.3)", "bumps(0.7, 0.8)"
    assert ranking.missing == ((b,), (), (a, b), (a,))
    assert ranking.components == (a, b)


@pytest.mark.parametrize(
    ("rule", "kind"), [("product", "epsilon"), ("product", "sample"), ("product", "flow"), ("mean", "v_prediction")]
)
def test_a_lift_is_the_error_of_the_composition_without_a_component_minus_its_error(rule: Any, kind: str) -> None:
    """It costs a row for each component and one trunk, for each image and draw."""
    model = tiny_model(rule=rule, prediction_type=kind)
    leaves = [model(0.2, 0.3), model(0.7, 0.8), model(0.5, 0.1)]
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with count_rows() as spent:
        ranking = rank(to_unit(x), Composer(leaves), model=model, draws=6, generator=3)
    assert ranking.rows == spent.rows == 2 * 6 * (3 + (rule == "product"))
    assert spent.trunks == 2 * 6
    schedule = model.denoiser.alphas_cumprod
    bank = draw_bank(6, (3, 16, 16), schedule, timesteps=(300, 900), gamma=4.0, generator=3)
    noised = bank.noised(x[:1], schedule)

    def error(chosen: list[Conditional]) -> float:
        with torch.no_grad():
            eps = predict(combine(chosen, rule), noised, bank.timestep)
        return float((bank.weight * (bank.noise - eps).square().sum((1, 2, 3))).double().mean())

    expected = [error(leaves[:k] + leaves[k + 1 :]) - error(leaves) for k in range(3)]
    torch.testing.assert_close(ranking.lift[0], torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_images_share_their_draws_and_a_seed_repeats_them() -> None:
    model = tiny_model()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def lift(images: Tensor = x, **options: Any) -> Tensor:
        return rank(images, model(*A) & model(*B), model=model, **options).lift

    first = lift(generator=5)
    for same in (lift(generator=5), lift(generator=torch.Generator().manual_seed(5))):
        assert torch.equal(first, same)
    assert not torch.equal(first, lift(generator=6))
    assert torch.equal(lift(x[1:], generator=5), first[1:])
    assert torch.equal(lift(), lift(generator=0))


def test_a_negated_component_is_unwanted() -> None:
    model = bumps_model()
    images = torch.cat([image(model, A, B), image(model, A)])
    ranking = rank(to_unit(images), model(*A) & ~model(*B), model=model)
    assert ranking.negated == (False, True)
    assert ranking.shown.tolist() == [[True, True], [True, False]]
    assert ranking.unwanted == (("bumps(0.7, 0.8)",), ())
    assert ranking.missing == ((), ())
    assert ranking.order == (1, 0)
    assert rank(to_unit(images), ~model(*B), model=model).complete.tolist() == [False, True]


def test_guidance_is_not_read_but_a_weak_component_is() -> None:
    model = bumps_model()
    a, b, both = model(*A), model(*B), image(model, A, B)
    plain, guided = (rank(to_unit(both), one, model=model).lift for one in (a & b, (7.5 * a) & (2.0 * b)))
    assert torch.equal(plain, guided)
    half = both - 0.5 * (both - image(model, B))
    ranking = rank(to_unit(half), Composer([0.5 * a, b]), model=model)
    assert bool(ranking.complete)
    assert ranking.lift[0, 0] > plain[0, 0] / 5


def test_images_are_read_as_the_model_reads_them() -> None:
    model = bumps_model()
    pictures = model.decode(torch.cat([image(model, A), image(model, A, B)]))
    large = [picture.resize((64, 64)) for picture in pictures]
    for images, given in ((pictures, None), (pictures, model), (large, model)):
        assert rank(images, model(*A) & model(*B), model=given).order == (1, 0)


def test_ties_of_the_least_lift_go_to_the_greater_sum() -> None:
    p = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
    lift = torch.tensor([[2.0, 1.0], [3.0, 1.0], [9.0, 8.0], [4.0, 0.5]])
    ranking = Ranking(("a", "b"), (False, False), lift, torch.ones(4, 2), p, 0)
    assert ranking.order == (1, 0, 3, 2)


def refused() -> dict[str, tuple[Any, type[Exception], str]]:
    model, other, tiny = bumps_model(), bumps_model(), tiny_model(rule="mean")
    total, both = labels_model(4, rule="sum"), model(*A) & model(*B)
    return {
        "nothing": (model.unconditional, CompositionError, "without components"),
        "nothing but 0": (both - both + model.unconditional, CompositionError, "without components"),
        "two denoisers": (0.5 * model(*A) + 0.5 * other(*B), CompositionError, "several denoisers"),
        "a mixture": (Gaussian(0.0) | Gaussian(1.0), CompositionError, "no leaf of a denoiser"),
        "mass 2": (model(*A) + model(*B), CompositionError, "of mass 2; expected weights whose sum is 1"),
        "a sum": (Composer([total(1), total(2)]), CompositionError, "under the rule 'sum'"),
        "a mean of one": (tiny(*A), CompositionError, "expected two of its components with positive weights"),
        "a negative mean": (2 * tiny(*A) - tiny(*B), CompositionError, "positive weight"),
        "a batch": (model.leaf(torch.tensor([A, B])), CompositionError, "with 2 conditions"),
        "no component": ("clevr", CompositionError, "expected a component"),
    }


@pytest.mark.parametrize("name", refused())
def test_compositions_without_lifts_are_refused_before_any_row(name: str) -> None:
    composition, kind, message = refused()[name]
    with count_rows() as spent, pytest.raises(kind, match=message):
        rank(torch.zeros(1, 3, 16, 16), composition)
    with pytest.raises(kind, match=message):
        sample_best(composition, progress=False)
    assert spent.rows == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, "got draws=1; expected 2 to"), ({"draws": 10**9}, "got draws=1000000000; expected 2 to"),
        ({"model": bumps_model()}, "of another denoiser than the components"),
        ({"model": "bumps"}, "for a model; expected a Model"), ({"generator": "0"}, "expected a seed"),
        ({"images": torch.full((1, 3, 16, 16), math.nan)}, r"between nan and nan; expected an image in \[0, 1\]"),
        ({"images": torch.zeros(0, 3, 16, 16)}, "expected float"), ({"images": []}, "got no images"),
    ],
)  # fmt: skip
def test_other_input_is_refused(options: dict[str, Any], message: str) -> None:
    images = options.pop("images", torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match=message):
        rank(images, bumps_model()(*A), **options)


def test_a_prediction_that_is_not_finite_names_its_component() -> None:
    model = bumps_model()
    condition = attrs.evolve(model(*B).condition, rows=torch.full((1, 1, 2), math.nan))
    with pytest.raises(NonFiniteError, match="predictions of broken that"):
        rank(to_unit(image(model, A)), model(*A) & Conditional(model.denoiser, condition, name="broken"), model=model)


# the best of several samples


def test_the_best_are_kept_and_what_others_lack_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bumps_model()
    kinds = [image(model, A, B), image(model, A), image(model, B)]

    def sampled(composer: Composer, n: int, **options: Any) -> Tensor:
        return torch.cat([kinds[k % 3] for k in range(n)])

    monkeypatch.setattr(Composer, "sample", sampled)
    best = sample_best(model(*A) & model(*B), 2, best_of=3, model=model, output_type="pt")
    assert set(best.kept) == {0, 3}
    assert best.complete == 2
    torch.testing.assert_close(best.images, to_unit(torch.cat([kinds[0]] * 2)))
    assert {best.ranking.missing[i] for i in best.dropped} == {("bumps(0.2, 0.3)",), ("bumps(0.7, 0.8)",)}
    assert best.rows_per_sample == 6 * 32 * 3 / 2
    few = sample_best(model(*A) & model(*B), 2, best_of=1, model=model, output_type="pt")
    assert (few.kept, few.complete, few.dropped) == ((0, 1), 1, ())


def test_drawing_stops_when_all_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bumps_model()
    kinds = {"both": image(model, A, B), "one": image(model, A)}
    rounds = iter(["one", "both", "both", "both", "one", "one", "one", "one"])

    def sampled(composer: Composer, n: int, **options: Any) -> Tensor:
        return torch.cat([kinds[next(rounds)] for _ in range(n)])

    monkeypatch.setattr(Composer, "sample", sampled)
    composition = model(*A) & model(*B)
    options: Any = {"best_of": 4, "until_complete": True, "model": model, "output_type": "pt"}
    best = sample_best(composition, 2, **options)
    assert (best.complete, len(best.ranking.lift)) == (2, 4)
    assert set(best.kept) < {1, 2, 3}
    assert best.rows == 4 * 32 * 3
    missed = sample_best(composition, 1, **options)
    assert (missed.complete, len(missed.ranking.lift)) == (0, 4)


def test_the_first_sample_is_that_of_the_composer() -> None:
    model = tiny_model()
    composition = model(*A) & model(*B)
    options: Any = {"num_inference_steps": 2, "output_type": "latent", "progress": False}
    plain = Composer(composition).sample(1, generator=7, **options)
    one, more, listed = (
        sample_best(composition, best_of=count, until_complete=True, model=model, generator=generator, **options)
        for count, generator in ((1, 7), (3, 7), (2, [1, 2]))
    )
    assert torch.equal(one.images, plain)
    assert torch.equal(more.ranking.lift[0], one.ranking.lift[0])
    assert len(listed.images) == 1


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
def test_kept_samples_are_those_of_the_composer(output_type: Any) -> None:
    model = tiny_model()
    composition = model(*A) & model(*B)
    options: Any = {"num_inference_steps": 2, "output_type": output_type, "progress": False}
    best, again, listed = (
        sample_best(composition, 2, best_of=2, model=model, generator=generator, **options)
        for generator in (7, 7, [1, 2, 3, 4])
    )
    everything = Composer(composition).sample(4, generator=7, **options)
    for k, sample in zip(best.kept, best.images, strict=True):
        assert np.array_equal(np.asarray(sample), np.asarray(everything[k]))
    assert best.rows == 4 * 3 * (2 + 32)
    assert again.kept == best.kept
    assert torch.equal(again.ranking.lift, best.ranking.lift)
    assert len(listed.images) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "got n=0"), ({"n": 1.5}, "got n=1.5"), ({"best_of": 0}, "best_of=0"),
        ({"output_type": "png"}, "got output_type 'png'"),
        ({"return_dict": True}, "got return_dict for sample_best"),
        ({"n": 2, "generator": [0, 1]}, "one generator or 8"),
    ],
)  # fmt: skip
def test_best_of_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_best(bumps_model()(*A), num_inference_steps=1, progress=False, **options)


def test_latents_are_ranked_and_kept_samples_decoded() -> None:
    pixels = bumps_model()
    processor = attrs.evolve(pixels.processor, size=(32, 32))
    model = attrs.evolve(pixels, denoiser=attrs.evolve(pixels.denoiser, codec=Halved()), processor=processor)
    composition, latents = model(*A) & model(*B), torch.cat([image(pixels, A), image(pixels, A, B)])
    pictures = model.decode(latents)
    for images, given in ((latents, model), (latents, None), (pictures, model)):
        assert rank(images, composition, model=given).order == (1, 0)
    with pytest.raises(InputError, match="expected latents, or the model whose codec"):
        rank(pictures, composition)
    best = sample_best(composition, best_of=2, generator=0, num_inference_steps=2, progress=False)
    assert best.images[0].size == (32, 32)
