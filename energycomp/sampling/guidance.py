"""Guidance: predictions of a composition and of what it is compared with become one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import Tensor

from energycomp.components import Composition, EnergyComponent, PredictionType, combine, compositions_in, during
from energycomp.components.algebra import sole_leaf
from energycomp.components.groups import rewrap, unwrap
from energycomp.components.weights import AnyWeight, Weight, positive, scalar
from energycomp.denoisers.denoiser import Conditional
from energycomp.errors import InputError
from energycomp.fields import FINITE, is_number, legal, number
from energycomp.plugins import find, names

SCALE = 7.5  # the default of diffusers' guiders

SCALES = legal(lambda value: isinstance(value, Weight) or is_number(value), "a finite number, or a Weight")

PAIR = ["pred_cond", "pred_uncond"]  # what a guider of diffusers may ask for
ROUNDING = 1e-6  # of a share times a number of steps


def conditional(composition: Composition) -> Composition:
    """The composition at mass 1: c = u + R(C)."""
    return combine([composition], "product")


def unconditional(composition: Composition) -> Composition:
    """The unconditional leaf u."""
    return Composition.of(composition.unconditional)


@attrs.frozen(eq=False)
class Guide:
    """A guidance during one run.

    Args:
        combine: `(*predictions, share (B,))`, the guided prediction of those that it needs, (B, C, H, W) each; called
            once per evaluation, and may keep what it has seen.
        prediction_type: the type of all predictions; None for that of the composition.
        needs: functions of the composition to what is predicted, all in one batch; c and u by default.

    >>> guide = Guide(lambda cond, uncond, share: uncond + 2.0 * (cond - uncond))
    >>> guide.combine(Tensor([3.0]), Tensor([1.0]), Tensor([0.5]))
    tensor([5.])
    """

    combine: Callable[..., Tensor]
    prediction_type: PredictionType | None = None
    needs: tuple[Callable[[Composition], Composition], ...] = (conditional, unconditional)


@runtime_checkable
class Guidance(Protocol):
    """How the predictions of a composition and of what it is compared with, such as u, become one.

    The registered factory takes `scale`. `energycomp_lab.checks.check_guidance` checks one.

    >>> class Doubled:
    ...     def guide(self, num_inference_steps, /):
    ...         return Guide(lambda cond, uncond, share: uncond + 2.0 * (cond - uncond))
    >>> isinstance(Doubled(), Guidance), isinstance(Doubled(), LinearGuidance)
    (True, False)
    """

    def guide(self, num_inference_steps: int, /) -> Guide:
        """The guidance for one run of N steps, without what other runs have seen."""


@runtime_checkable
class LinearGuidance(Protocol):
    """A guidance that is a composition: the weights of its leaves say all. Samplers take it where they take these."""

    def weighted(self, composition: EnergyComponent, /) -> Composition:
        """The guided composition.

        >>> from energycomp.testing import tiny_model
        >>> ClassifierFree(2.0).weighted(tiny_model()(0.1, 0.2))
        -u + 2 tiny(0.1, 0.2)
        """


def classifier_free(cond: Tensor, uncond: Tensor, scale: float | Tensor) -> Tensor:
    """u + s (c - u), Ho and Salimans (2021).

    >>> classifier_free(Tensor([2.0]), Tensor([1.0]), 3.0).item()
    4.0
    """
    return uncond + scale * (cond - uncond)


@attrs.frozen
class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans, 2021): `scale * composition & u`. The names `cfg` and `interval`.

    Costs K + 1 network evaluations per sample and step for K components, and K where the scale is 1.

    Args:
        scale: s, a number or a `Weight`: it may vary over the trajectory and pixels.
    """

    scale: AnyWeight = attrs.field(default=SCALE, converter=scalar, validator=SCALES)

    def weighted(self, composition: EnergyComponent, /) -> Composition:
        """u + s R(C); of what is observed, inside: an observation counts once, whatever the scale."""
        whole = Composition.of(composition)
        # An observed composition is guided inside of the observation
        leaf = sole_leaf(whole)
        if hasattr(leaf, "gathered"):
            return Composition.of(leaf.remade([self.weighted(part) for part in compositions_in(leaf)]))
        # s C & u, which is u where the scale is 0
        return combine([self.scale * whole, whole.unconditional], "product")

    def guide(self, num_inference_steps: int, /) -> Guide:  # noqa: ARG002
        def combine(cond: Tensor, uncond: Tensor, share: Tensor) -> Tensor:
            # The scale at each sample's share of the trajectory, and at each pixel
            shape = tuple(cond.shape[1:])
            scale = self.scale.at(share, shape).to(cond) if isinstance(self.scale, Weight) else self.scale
            return classifier_free(cond, uncond, scale)

        return Guide(combine)


@attrs.frozen
class AttributeGuidance:
    """Classifier-free guidance of each component towards its attributes, from the same one with its attributes left
    open. The name `attributes`.

    sum_k w_k c_k + (s - 1) max(w_k, 0) (c_k - c_k,open), in each component of a mixture, and in what is observed. The
    mass stays. Costs one more network evaluation a component, sample and step after the start, before which s is 1:
    there the noise decides where and how many components are, and guidance loses some.

    Args:
        scale: s.
        start: share of the trajectory, in [0, 1].

    >>> from energycomp.testing import tinted_model
    >>> model = tinted_model()
    >>> AttributeGuidance(2.5, start=0.0).weighted(model(0.2, 0.2, tint="red") & ~model(0.8, 0.8, tint="blue"))
    u + 2.5 tinted(0.2, 0.2, tint=red) - 1.5 tinted(0.2, 0.2, tint=red) without attributes - tinted(0.8, ...)
    """

    scale: float = attrs.field(default=3.0, converter=scalar, validator=FINITE)
    start: float = attrs.field(default=0.3, validator=number(least=0.0, most=1.0))

    def weighted(self, composition: EnergyComponent, /) -> Composition:
        """The composition with further leaves: those with attributes left open."""
        whole = Composition.of(composition)
        if self.scale == 1.0:
            return whole
        # s from the start on, and 1 before
        scale = 1.0 + (self.scale - 1.0) * during(self.start) if self.start else self.scale
        terms: list[tuple[Any, AnyWeight]] = []
        for leaf, weight in whole.terms.items():
            # Each component of a mixture, or of what is observed.
            if inside := compositions_in(leaf):
                terms.append((leaf.remade([self.weighted(part) for part in inside]), weight))
                continue
            # A leaf without attributes stays.
            bare = unwrap(leaf)
            if not isinstance(bare, Conditional) or bare.opened is None:
                terms.append((leaf, weight))
                continue
            # s c_k + (1 - s) c_k,open where the weight is above 0; a leaf is guided once.
            above = positive(weight, whole.noised_space.sample_shape)
            guided = attrs.evolve(bare, opened=None)
            opened = attrs.evolve(guided, condition=bare.opened, is_open=True, name=f"{bare.name} without attributes")
            terms += [
                (rewrap(leaf, guided), scale * above + (weight - above)),
                (rewrap(leaf, opened), (1.0 - scale) * above),
            ]
        return Composition([(leaf, weight) for leaf, weight in terms if weight != 0.0])


def interval(scale: float = SCALE, *, start: float = 0.2, stop: float = 0.8) -> ClassifierFree:
    """Guidance in an interval of the trajectory, and none outside (Kynkäänniemi et al., 2024).

    Costs one network evaluation fewer outside, where u has no weight.

    Args:
        scale: inside the interval.
        start, stop: shares of the trajectory. On the cosine schedule, [0.2, 0.8) is the interval (0.34, 3.11] of
            sigma; the paper found (0.28, 2.9] for EDM2.

    >>> interval(3.0)
    ClassifierFree(scale=1 + 2 [0.2 to 0.8])
    """
    scale = scalar(scale)
    if not is_number(scale):
        raise InputError(f"got scale={scale!r}; expected a finite number")
    return ClassifierFree(1.0 + (scale - 1.0) * during(start, stop))


def check_sampled(guidance: Any, name: str | None = None) -> None:
    """Raises `InputError` for a guidance that a sampler does not take: it follows densities, as a composition has."""
    if guidance is None or isinstance(guidance, LinearGuidance):
        return
    raise InputError(
        f"got the guidance {name or type(guidance).__name__} with a sampler, which needs a density at every noise "
        "level; expected one that is a composition, such as 'attributes', 'cfg' or 'interval'; choose it, or leave the "
        "sampler out (sampler= or --sampler)"
    )


def make_guidance(guidance: Any, scale: float | None = None) -> Guidance | LinearGuidance | None:
    """The guidance that `Composer.sample` was given, with the scale of one by name, as an object.

    Raises:
        InputError: another object, or a scale beside an object, which has its own.
        NotFoundError: a name that no plugin registers.
    """
    if guidance is None and scale is None:
        return None
    # By name; a scale alone is that of "cfg".
    if guidance is None or isinstance(guidance, str):
        factory = find("guidances", "cfg" if guidance is None else guidance)
        return factory() if scale is None else factory(scale=scale)
    # An object, which has its own scale.
    if scale is not None:
        got = f"got guidance_scale={scale!r} beside {guidance!r}, which has a scale of its own"
        raise InputError(f"{got}; expected one of them; leave guidance_scale out")
    if isinstance(guidance, type):
        raise InputError(f"got the class {guidance.__name__} as guidance; expected an object; call the class")
    if isinstance(guidance, Guidance | LinearGuidance):
        return guidance
    # A guider of diffusers.
    if getattr(guidance, "_input_predictions", None) == PAIR:
        return _OfDiffusers(guidance)
    known = ", ".join(names("guidances"))
    raise InputError(
        f"got an object of {type(guidance).__name__} as guidance; expected one of the registered names {known}, an "
        "object with `guide`, or a guider of diffusers over pred_cond and pred_uncond"
    )


@attrs.frozen
class _OfDiffusers:
    """A guider of diffusers of two predictions, of which each run has a copy. Its steps are evenly spaced shares."""

    guider: Any

    def guide(self, num_inference_steps: int, /) -> Guide:
        guider = copy.deepcopy(self.guider)  # its own `new` forgets arguments given by position

        def combine(cond: Tensor, uncond: Tensor, share: Tensor) -> Tensor:
            # The step that this share of the trajectory is, of as many that are evenly spaced
            step = min(int(float(share[0]) * num_inference_steps + ROUNDING), num_inference_steps - 1)
            guider.set_state(step=step, num_inference_steps=num_inference_steps, timestep=None)
            guider.prepare_inputs({})  # where those with momentum begin anew
            guided: Tensor = guider.forward(pred_cond=cond, pred_uncond=uncond).pred
            return guided

        return Guide(combine)
