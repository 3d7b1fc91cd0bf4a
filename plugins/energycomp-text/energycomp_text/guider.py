"""A composition as a guider of diffusers, for its modular pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from diffusers.modular_pipelines.modular_pipeline import BlockState
from torch import Tensor

from energycomp.components import Composition, EnergyComponent, Weight, group_of, is_constant, timestep_of, weights_at
from energycomp.denoisers import Conditional
from energycomp.errors import InputError


class CompositionGuider(BaseGuidance):  # type: ignore[misc]
    """A guider of diffusers that is a composition: modular pipelines sample it, `pipe.update_components(guider=...)`.

    For each leaf whose weight is not 0 at a step, the pipeline runs its network once, with the inputs of the leaf. The
    result is the weighted sum of the predictions, with weights that may vary over pixels and the trajectory.

    Args:
        composition: of mass 1, such as `3 * a & 3 * b`, of which any type of prediction may be summed.
        inputs: of each leaf, by the name that the denoising block gives to its guider, such as
            `{"prompt_embeds": (1, L, D)}`. An input that a leaf does not have is that of the pipeline: of its negative
            prompt for the unconditional leaf, and of its prompt for others. Left out, "prompt_embeds" are the rows of
            the leaf's condition.
    """

    _input_predictions: list[str] = []  # noqa: RUF012 - of the base class

    def __init__(self, composition: EnergyComponent, inputs: Mapping[Any, Mapping[str, Tensor]] | None = None) -> None:
        super().__init__()
        self.composition = Composition.of(composition)
        self.register_to_config(composition=repr(self.composition))  # what a pipeline writes of its parts
        if any(isinstance(weight, Weight) and weight.samples for weight in self.composition.terms.values()):
            raise InputError(
                f"got {self.composition!r}, whose weights vary over samples; expected one composition for all samples "
                "of a pipeline; sample it with a Composer, or make a guider of each composition"
            )
        _check_leaves(self.composition)
        self._shape = tuple(self.composition.noised_space.sample_shape)
        if not is_constant(self.composition.mass, 1.0, self._shape):
            raise InputError(
                f"got {self.composition!r} of mass {self.composition.mass!r}; expected mass 1 everywhere, since a "
                "pipeline may predict other than noise; compose with `&`"
            )
        self._is_flow = all(group_of(leaf).prediction_type == "flow" for leaf in self.composition.terms)
        self._names = {id(leaf): f"leaf {number}" for number, leaf in enumerate(self.composition.terms)}
        self._inputs = {id(leaf): _own(leaf, inputs) for leaf in self.composition.terms}

    @property
    def num_conditions(self) -> int:
        """How often the network runs at this step."""
        return len(self._active(self._shape))

    @property
    def is_conditional(self) -> bool:
        """Whether the leaf that runs is not the unconditional one."""
        active = self._active(self._shape)
        leaf, _ = active[min(max(self._count_prepared - 1, 0), len(active) - 1)]
        return not _is_unconditional(leaf)

    def prepare_inputs(self, data: Mapping[str, Any]) -> list[Any]:
        """The inputs of each leaf that has a weight at this step."""
        return [
            BlockState(
                **{name: self._value(leaf, name, value) for name, value in data.items()},
                **{self._identifier_key: self._names[id(leaf)]},
            )
            for leaf, _ in self._active(self._shape)
        ]

    def _value(self, leaf: Any, name: str, given: Any) -> Any:
        own = self._inputs[id(leaf)]
        if name in own:  # one row for every image of the prompt
            like = given[0] if isinstance(given, tuple) else given
            return own[name].expand(len(like), *own[name].shape[1:]) if isinstance(like, Tensor) else own[name]
        return given[1 if _is_unconditional(leaf) else 0] if isinstance(given, tuple) else given

    def __call__(self, data: Sequence[Any]) -> Any:
        """The weighted sum of the predictions `noise_pred` (B, C, H, W)."""
        return self.forward(**{getattr(state, self._identifier_key): state.noise_pred for state in data})

    def forward(self, **predictions: Tensor) -> Any:
        """The weighted sum of predictions (B, C, H, W) by the identifiers that `prepare_inputs` gave."""
        if self._timestep is None:
            raise InputError(
                f"got predictions for {self!r} without a timestep; expected its weights at one; call set_state(step=, "
                "num_inference_steps=, timestep=) before each step"
            )
        first = next(iter(predictions.values()))
        total = first.new_zeros(first.shape)
        active = self._active(tuple(first.shape[1:]))
        if first.ndim != 4 and any(isinstance(weight, Tensor) for _, weight in active):
            raise InputError(
                f"got predictions of shape {tuple(first.shape)} for {self.composition!r}, whose weights vary over "
                "pixels; expected (B, C, H, W); sample it with a Composer"
            )
        for leaf, weight in active:
            part = predictions[self._names[id(leaf)]]
            total = total + part * (weight.to(part) if isinstance(weight, Tensor) else weight)
        return GuiderOutput(pred=total, pred_cond=None, pred_uncond=None)

    def __repr__(self) -> str:
        return f"CompositionGuider({self.composition!r})"

    def _active(self, shape: tuple[int, ...]) -> list[tuple[Any, float | Tensor]]:
        """Leaves with their weights at the current step."""
        if self._timestep is None:  # pipelines ask how many conditions there are before they begin
            return [(leaf, 1.0) for leaf in self.composition.terms]
        timestep = self._timestep.reshape(-1)[:1].double()
        if self._is_flow:  # schedulers for flow matching give a noise level, as a share of their timesteps
            alphas = self.composition.noised_space.alphas_cumprod
            timestep = timestep_of(alphas, -2 * torch.logit(timestep.to(alphas.device) / len(alphas)))
        return weights_at(self.composition.terms, timestep, shape)


def _check_leaves(composition: Composition) -> None:
    """Raises `InputError` where the network of a pipeline does not predict the leaves: it knows only their inputs."""
    leaves = list(composition.terms)
    for leaf in leaves:
        if not isinstance(leaf, Conditional):
            raise InputError(
                f"got {leaf!r}, which is no leaf of a denoiser; expected prompts of the pipeline's model, since the "
                "pipeline runs its own network; sample the composition with a Composer"
            )
    if len({id(leaf.denoiser) for leaf in leaves}) > 1 or leaves[0].denoiser.base is not None:
        raise InputError(
            f"got {composition!r}, leaves of several denoisers or with LoRA; expected those of one model without LoRA, "
            "since the pipeline runs its own network with one set of weights; sample the composition with a Composer"
        )


def _is_unconditional(leaf: Conditional) -> bool:
    return bool(leaf.condition.null.all())


def _own(leaf: Conditional, inputs: Mapping[Any, Mapping[str, Tensor]] | None) -> Mapping[str, Tensor]:
    if inputs is not None:
        found = [own for other, own in inputs.items() if other is leaf]
        if not found and not _is_unconditional(leaf):
            raise InputError(f"got no inputs of {leaf!r}; expected them for every leaf but u; add them to `inputs`")
        return found[0] if found else {}
    if _is_unconditional(leaf):
        return {}
    condition = leaf.condition
    more = {"a pooled vector": condition.pooled, "a mask of tokens": condition.mask}
    if lacking := [name for name, part in more.items() if part is not None]:
        raise InputError(
            f"got {leaf!r}, whose network takes {' and '.join(lacking)} beside the rows, and no inputs; expected all "
            "inputs of its prompt, by the names that the denoising block gives to its guider; give `inputs`, for SDXL "
            'such as {leaf: {"prompt_embeds": ..., "text_embeds": ...}} with the pooled vector as "text_embeds"'
        )
    return {"prompt_embeds": condition.rows}
