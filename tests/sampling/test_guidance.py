"""One contract of all guidance, also of plugins: against diffusers and closed forms, on compositions with mass."""

from typing import Any

import attrs
import numpy as np
import pytest
import torch
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    SkipLayerGuidance,
    TangentialClassifierFreeGuidance,
)

from energycomp import Composer, plugins, ramp, region
from energycomp.components import Composition
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError, NotFoundError
from energycomp.sampling import ClassifierFree, Guide, Target, conditional, interval, make_guidance, unconditional
from energycomp.testing import Gaussian, tiny_model
from energycomp_lab.checks import check_guidance
from energycomp_samplers.guidance import AdaptiveProjected, Rescaled, ZeroStar

HIGH = ["apg", "rescale", "zero-star"]  # of two predictions, for high scales
NAMES = ["cfg", "interval", *HIGH]
STEPS = 5


def leaves(kind: str = "sample") -> tuple[Any, Any, Any]:
    model = tiny_model(rule="product", prediction_type=kind)
    return model(0.2, 0.2), model(0.8, 0.7), model.unconditional


def sampled(composition: Any, **options: Any) -> torch.Tensor:
    options = {"num_inference_steps": STEPS, "generator": 0, "output_type": "latent", "progress": False, **options}
    result: torch.Tensor = Composer(composition).sample(**options)
    return result


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert float((a - b).abs().max() / b.abs().max()) < tolerance


@pytest.mark.parametrize("name", NAMES)
def test_what_is_registered_conforms(name: str) -> None:
    assert name in plugins.names("guidances")
    check_guidance(plugins.find("guidances", name)(scale=3.0))


AT_3 = {"guidance_scale": 3.0}
MOMENTUM = {"adaptive_projected_guidance_momentum": -0.5, "adaptive_projected_guidance_rescale": 2.0}
# s - 1: the original formulation begins at c
APG = AdaptiveProjectedGuidance(guidance_scale=2.0, use_original_formulation=True, eta=0.2, **MOMENTUM)
PAIRS: dict[str, tuple[str, Any, Any]] = {
    # the type of the model's predictions, ours, that of diffusers
    "cfg": ("sample", ClassifierFree(3.0), ClassifierFreeGuidance(**AT_3)),
    "rescale": ("sample", Rescaled(3.0, 0.7), ClassifierFreeGuidance(**AT_3, guidance_rescale=0.7)),
    "rescale of v": ("v_prediction", Rescaled(3.0, 0.7), ClassifierFreeGuidance(**AT_3, guidance_rescale=0.7)),
    "apg": ("sample", AdaptiveProjected(3.0, parallel=0.2, momentum=-0.5, norm=2.0), APG),
    "zero-star": ("flow", ZeroStar(3.0, zero_until=0.25), ClassifierFreeZeroStarGuidance(**AT_3, zero_init_steps=2)),
}


@pytest.mark.parametrize("case", PAIRS)
def test_predictions_and_samples_are_those_of_the_guiders_of_diffusers(case: str) -> None:
    kind, ours, theirs = PAIRS[case]
    a, b, _ = leaves(kind)
    targets = [Target(a & b, guide=make_guidance(guidance).guide(STEPS)) for guidance in (ours, theirs)]
    generator = torch.Generator().manual_seed(0)
    for timestep in Target(a).timesteps(STEPS):
        x, at = torch.randn(2, 3, 16, 16, generator=generator), timestep.expand(2)
        with torch.no_grad():
            one, other = (target.compose(x, at, prediction_type=kind) for target in targets)
            plain = (a & b).eps(x, at)
        assert float((other - plain).abs().max()) > 1e-3  # it changes something
        close(one, other) if other.any() else close(one + 1, other + 1)
    expected = sampled(a & b, guidance=theirs)
    close(sampled(a & b, guidance=ours), expected, 1e-4)  # rounding grows with the steps
    close(sampled(a & b, guidance=theirs), expected, 1e-6)  # a run leaves nothing in the guider


@pytest.mark.parametrize("name", NAMES)
def test_a_composition_with_mass_is_guided_by_its_residual(name: str) -> None:
    """`a + b`, of mass 2, has the residual of `a & b`; one leaf is itself; scale 1 is what it was."""
    a, b, u = leaves("epsilon")
    x, at = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([600.0, 300.0])
    for one, other in ((a + b, a & b), (a & b, a & b), (2 * a - u, 2 * a & u), (3 * a, 3 * a & u)):
        guided = [guided_eps(name, 3.0, c, x, at) for c in (one, other)]
        close(*guided)
        close(guided_eps(name, 1.0, one, x, at), (one & u).eps(x, at).detach())
    expected = (u + 3 * (a + b - 2 * u)).eps(x, at).detach()
    close(guided_eps("cfg", 3.0, a + b, x, at), expected)


def guided_eps(name: str, scale: float, composition: Any, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    guide = make_guidance(name, scale).guide(STEPS)  # type: ignore[union-attr]
    with torch.no_grad():
        return Target(composition, guide=guide).compose(x, at)


COMPOSITIONS: dict[str, tuple[Any, int]] = {  # and how many leaves they and u have together
    "one": (lambda a, b: a, 2),
    "two": (lambda a, b: a & b, 3),
    "two, one in a region": (lambda a, b: 2 * region("left half") * a & b, 3),
}


@pytest.mark.parametrize("case", COMPOSITIONS)
def test_guidance_costs_the_rows_of_classifier_free_guidance(case: str) -> None:
    a, b, _ = leaves()
    make, count = COMPOSITIONS[case]
    for guidance in ("cfg", *HIGH):
        reports: list[Any] = []
        with count_rows() as rows:
            sampled(make(a, b), guidance=guidance, n=2, report=reports.append)
        assert reports[0].evaluations == rows.rows == 2 * STEPS * count, guidance
        assert rows.trunks == 2 * STEPS, guidance


def test_an_interval_costs_no_unconditional_row_outside() -> None:
    a, b, _ = leaves()
    with count_rows() as rows:
        sampled(a, guidance="interval", guidance_scale=3.0, num_inference_steps=10)
    assert rows.rows == 10 + 6  # [0.2, 0.8) of ten steps
    expected = sampled((1 + 2 * ramp(0.0, 1.0)) * (a & b) & a.unconditional)
    close(sampled(a & b, guidance=ClassifierFree(1 + 2 * ramp(0.0, 1.0))), expected)


def test_a_scale_alone_is_classifier_free_guidance() -> None:
    a, b, u = leaves()
    expected = sampled(3 * a & 3 * b & u)
    close(sampled(a & b, guidance_scale=3.0), expected)
    close(sampled(a & b, guidance="cfg", guidance_scale=3.0), expected)
    assert repr(ClassifierFree(3.0).weighted(a & b)) == repr(3 * a & 3 * b)
    close(sampled(a & b, guidance_scale=0.0), sampled(u))
    assert make_guidance(None) is None
    assert make_guidance("interval", 2.0) == interval(2.0)


@attrs.frozen
class Autoguidance:
    """c + s (c - w) + r (c - u), with the predictions w of a weaker model for the same leaves (Karras et al., 2024)."""

    weaker: Any
    scale: float = 2.0
    other: float = 0.5

    def guide(self, num_inference_steps: int, /) -> Guide:
        def combine(c: torch.Tensor, u: torch.Tensor, w: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return c + self.scale * (c - w) + self.other * (c - u)

        return Guide(combine, needs=(conditional, unconditional, self.of_the_weaker))

    def of_the_weaker(self, composition: Composition) -> Composition:
        return Composition([(attrs.evolve(leaf, denoiser=self.weaker), w) for leaf, w in composition.terms.items()])


def test_a_guidance_of_three_predictions() -> None:
    a, b, u = leaves()
    weaker = leaves()[2].denoiser
    autoguidance = Autoguidance(weaker)
    with count_rows() as rows:
        got = sampled(a & b, guidance=autoguidance)
    assert rows.rows == STEPS * 6  # a, b and u of both models
    c, w = a & b, autoguidance.of_the_weaker(a & b)
    close(got, sampled(c + 2.0 * (c - w) + 0.5 * (c - u)))


@pytest.mark.parametrize("scale", [np.float32(3.0), torch.tensor(3.0), np.array(3.0)])
@pytest.mark.filterwarnings("error")  # numpy warns where float32 is compared with numbers beyond its range
def test_numbers_of_other_libraries_are_scales(scale: Any) -> None:
    for name in NAMES:
        assert repr(make_guidance(name, scale)) == repr(make_guidance(name, 3.0))
    for broken in ({"share": 2.0}, {"share": "a"}, {"scale": None}):
        with pytest.raises(InputError, match=r"got (share|scale)"):
            Rescaled(**broken)


NAN = float("nan")
ONE_NUMBER = Gaussian(1.0, 0.5, unconditional=Gaussian(0.0, name="u", unconditional="self"))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"guidance": "apgg"}, NotFoundError, "Did you mean 'apg'"),
        ({"guidance": ""}, NotFoundError, "No guidance is named ''"),
        ({"guidance": 3.0}, InputError, "got an object of float as guidance; expected one of the registered names apg"),
        ({"guidance": ClassifierFree}, InputError, "call the class"),
        ({"guidance": ClassifierFree(3.0), "guidance_scale": 2.0}, InputError, "leave guidance_scale out"),
        ({"guidance": "cfg", "guidance_scale": NAN}, InputError, "got scale=nan for ClassifierFree; expected a finite"),
        ({"guidance": "apg", "guidance_scale": NAN}, InputError, "got scale=nan for AdaptiveProjected"),
        ({"guidance": "apg", "sampler": "smc"}, InputError, "expected one that is a composition"),
        ({"guidance": SkipLayerGuidance(skip_layer_guidance_layers=[0])}, InputError, "over pred_cond and pred_uncond"),
        ({"composition": Gaussian(0.5), "guidance": "apg"}, CompositionError, "no unconditional leaf"),
        ({"composition": ONE_NUMBER, "guidance": "rescale"}, InputError, "of one number under the guidance 'rescale'"),
    ],
)
def test_what_guidance_refuses(options: dict[str, Any], error: type[Exception], text: str) -> None:
    a, b, _ = leaves()
    with count_rows() as rows, pytest.raises(error, match=text):
        sampled(**{"composition": a & b, **options})
    assert rows.rows == 0 or options["guidance"] == "rescale"  # which looks at a prediction


def test_other_guiders_of_diffusers_are_taken_as_they_are() -> None:
    a, _, _ = leaves()
    guided = sampled(a, guidance=TangentialClassifierFreeGuidance(**AT_3))
    assert float((guided - sampled(a)).abs().max()) > 1e-3


def test_a_registered_guidance_may_be_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled:
        def weighted(self, composition: Any) -> Any:
            return 2 * composition

    monkeypatch.setattr("energycomp.plugins.registry._own", {})
    plugins.register("guidances", "doubled", Doubled)
    a, _, _ = leaves()
    close(sampled(a, guidance="doubled"), sampled(2 * a))
