"""A composition for each sample of a batch: batched is looped, and a sample costs the leaves of its own composition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from energycomp import Composer, Composition, during, per_sample, region
from energycomp.components import combine, native_type
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import LinearGuidance, Target, make_guidance
from energycomp.testing import Gaussian, tiny_model

KINDS = ["epsilon", "sample", "v_prediction", "flow"]
GUIDANCES = ["cfg", "interval", "rescale", "apg", "zero-star"]
STEPS = 5


def compositions(kind: str = "sample") -> list[Any]:
    """Of as many leaves at a step as `LEAVES`; the last is one prompt at first and another after."""
    model = tiny_model(rule="product", prediction_type=kind)
    a, b, c, u = model(0.2, 0.2), model(0.8, 0.7), model(0.5, 0.1), model.unconditional
    halves = region("left half") * 2 * a & region("right half") * c
    return [a & b, 3 * a & u, a & b & ~c, c, halves, during(until=0.4) * a & during(from_=0.4) * b]


LEAVES = [3, 2, 3, 1, 3, 1]  # at each step
ROUNDING = 1e-3  # of samples, in which it grows with the steps


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(6)]


def sampled(composition: Any, **options: Any) -> torch.Tensor:
    options = {"num_inference_steps": STEPS, "output_type": "latent", "progress": False, **options}
    result: torch.Tensor = Composer(composition).sample(**options)
    return result


def looped(parts: list[Any], **options: Any) -> torch.Tensor:
    return torch.cat([sampled(c, generator=[g], **options) for c, g in zip(parts, generators(), strict=False)])


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


def test_equal_compositions_are_as_many_samples() -> None:
    a, b, *_ = compositions()
    for one in (a, 2 * a & region("left half") * b):
        close(sampled(per_sample([one] * 6), generator=generators()), looped([one] * 6), ROUNDING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [None, *GUIDANCES])
def test_predictions_are_those_of_each_composition(kind: str, guidance: str | None) -> None:
    """Also at timesteps that differ within the batch."""
    parts = compositions(kind)
    x, at = torch.randn(6, 3, 16, 16), torch.tensor([950.0, 10.0, 400.0, 990.0, 700.0, 300.0])

    def predicted(composition: Any, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        made = None if guidance is None else make_guidance(guidance, 2.0)
        if isinstance(made, LinearGuidance):
            return Target(made.weighted(composition)).compose(x, at)
        return Target(composition, guide=None if made is None else made.guide(STEPS)).compose(x, at)

    with torch.no_grad():
        expected = torch.cat([predicted(part, x[i : i + 1], at[i : i + 1]) for i, part in enumerate(parts)])
        close(predicted(per_sample(parts), x, at), expected, 2e-5)  # of single precision, times the scale


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in KINDS},
    **{name: ("sample", {"guidance": name, "guidance_scale": 2.0}) for name in GUIDANCES},
    **{name: ("sample", {"scheduler": name}) for name in ("DDPMScheduler", "HeunDiscreteScheduler")},
}


@pytest.mark.parametrize("way", WAYS)
def test_batched_is_looped(way: str) -> None:
    kind, options = WAYS[way]
    parts = compositions(kind)
    close(sampled(per_sample(parts), generator=generators(), **options), looped(parts, **options), ROUNDING)


def test_a_sample_costs_its_own_leaves_in_one_batch() -> None:
    reports: list[Any] = []
    with count_rows() as spent:
        sampled(per_sample(compositions()), report=reports.append)
    assert spent.rows == reports[0].evaluations == STEPS * sum(LEAVES)
    assert spent.trunks == 6 * STEPS
    with count_rows() as spent:
        sampled(per_sample(compositions()), guidance="apg")
    assert spent.rows == STEPS * (3 + 2 + 4 + 2 + 3 + 2)  # and u, where it is not among them


def test_any_batch_of_a_multiple_takes_turns() -> None:
    parts = compositions()[:3]
    whole = per_sample(parts)
    x, at = torch.randn(6, 3, 16, 16), torch.tensor([900.0, 10.0, 400.0, 5.0, 700.0, 300.0])
    expected = torch.cat([parts[i % 3].eps(x[i : i + 1], at[i : i + 1]) for i in range(6)])
    close(whole.eps(x, at).detach(), expected.detach())
    with count_rows() as spent, pytest.raises(InputError, match="got a batch of 4 samples for 3 compositions"):
        sampled(whole, n=4)
    assert spent.rows == 0


def test_the_algebra_holds_for_every_sample() -> None:
    a, b, u = (Gaussian(m, name=name, unconditional="self") for m, name in ((1.0, "a"), (2.0, "b"), (0.0, "u")))
    both = per_sample([a + b, 2 * b])
    assert repr(both) == "[1, 0 by sample] a + [1, 2 by sample] b"
    assert dict(per_sample([a + b, 2 * b + a]).terms) == {a: 1.0, b: both.terms[b]}
    assert repr(per_sample([a])) == "a"
    x, at = torch.randn(2, 1, 1, 1), torch.tensor([100.0, 800.0])
    for made, parts in (
        (3 * both - u, [3 * (a + b) - u, 6 * b - u]),
        (region("left half") * both, [region("left half") * (a + b), region("left half") * 2 * b]),
        (both / 2 + per_sample([u, a]), [(a + b) / 2 + u, b + a]),
        (combine([both, a], "mean"), [combine([a + b, a], "mean"), combine([2 * b, a], "mean")]),
    ):
        close(made.eps(x, at), torch.cat([part.eps(x[i : i + 1], at[i : i + 1]) for i, part in enumerate(parts)]))


def test_components_of_several_models_are_mixed() -> None:
    one, other = tiny_model(rule="product"), tiny_model(rule="product")
    parts: list[Any] = [one(0.1, 0.2) & one(0.5, 0.5), other(0.3, 0.3)]
    whole = per_sample(parts)
    x, at = torch.randn(2, 3, 16, 16), torch.tensor([900.0, 10.0])
    expected = torch.cat([Composition.of(part).eps(x[i : i + 1], at[i : i + 1]) for i, part in enumerate(parts)])
    with count_rows() as spent:
        close(whole.eps(x, at).detach(), expected.detach())
    assert (spent.rows, spent.trunks) == (4, 2)  # a denoiser runs its trunk for its own samples


def test_mixtures_are_components_of_a_sample() -> None:
    parts: list[Any] = [Gaussian(1.0, 0.25, name="a") | Gaussian(-1.0, 0.25, name="b"), Gaussian(2.0, 0.25, name="c")]
    close(sampled(per_sample(parts), generator=generators()[:2]), looped(parts))


def test_a_leaf_with_one_value_per_sample_is_among_them() -> None:
    model = tiny_model(rule="product")
    values = torch.tensor([[0.1, 0.2], [0.5, 0.6], [0.9, 0.3]])
    three, one, u = model.leaf(values), model(0.4, 0.4), model.unconditional
    x, at = torch.randn(3, 3, 16, 16), torch.full((3,), 500.0)
    got = per_sample([three & one, one, three]).eps(x, at).detach()
    alone = [model.leaf(value[None]) for value in values]
    for i, part in enumerate((alone[0] & one, one & u, alone[2])):
        close(got[i : i + 1], Composition.of(part).eps(x[i : i + 1], at[i : i + 1]).detach())


def test_rows_of_a_condition_take_turns_in_a_larger_batch() -> None:
    """Sample i has row i mod n, alone and in a composition for each sample."""
    model = tiny_model(rule="product")
    values = torch.tensor([[0.1, 0.2], [0.5, 0.6]])
    two, one = model.leaf(values), model(0.4, 0.4)
    x, at = torch.randn(4, 3, 16, 16), torch.full((4,), 500.0)
    alone = [model.leaf(value[None]).eps(x, at).detach() for value in values]
    close(two.eps(x, at).detach(), torch.stack([alone[i % 2][i] for i in range(4)]))
    got = per_sample([two, one, two, two]).eps(x, at).detach()
    close(got[[0, 2, 3]], torch.stack([alone[i % 2][i] for i in (0, 2, 3)]))


def test_the_type_that_is_summed_follows_all_masses() -> None:
    a = tiny_model(rule="product", prediction_type="sample")(0.2, 0.2)
    assert native_type(per_sample([a & a, a])) == "sample"
    assert native_type(per_sample([2 * a, a])) == "epsilon"


A, B = Gaussian(0.0, name="a"), Gaussian(1.0, name="b")


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: per_sample([]), "got no compositions"), (lambda: per_sample(A), "expected a list of compositions"),
        (lambda: per_sample([A, tiny_model()(0.2, 0.2)]), "got a with space gaussian and tiny"),
        (lambda: per_sample([per_sample([A, B]), A]), "one list of all compositions"),
        (lambda: sampled(per_sample([A, 2 * A]) + per_sample([A, B, B])), "for 2 and 3 samples"),
        (lambda: per_sample([A, 2 * A]) | B, "varies over samples; expected a number, .* a part of a mix"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(attempt: Callable[[], Any], said: str) -> None:
    with pytest.raises((CompositionError, InputError), match=said):
        attempt()
