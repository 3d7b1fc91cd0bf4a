"""A model of the library behind the adapter, so that the check can try other options of it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from energycomp.components import Condition, PredictionType, by_sample, timestep_of
from energycomp.denoisers import Denoiser, rows, trunk
from energycomp.models import Model, VAECodec
from energycomp_adopt.adapter import Adopted, Predicts
from energycomp_adopt.adopting import adopt
from energycomp_adopt.process import name_process

PREDICTS: dict[PredictionType, Predicts] = {
    "epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow": "flow",
}  # fmt: skip


class Wrapped(nn.Module):
    """The network of a denoiser as a stranger's, which is told the timestep of its own schedule, or t of a flow.

    Its conditions are those of the library, with their null rows.
    """

    takes_conditions = True

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.network = denoiser.network
        self.denoiser = denoiser

    def forward(self, sample: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """What the network predicts of samples (R, ...) of its own process, at times (R,), under R conditions."""
        timestep = time
        if self.denoiser.prediction_type == "flow":
            # (1 - t) x0 + t eps, which the denoiser takes with its variance preserved
            t = time.clamp(1e-6, 1 - 1e-6)
            sample = sample / by_sample((t.square() + (1 - t).square()).sqrt(), sample.ndim).to(sample)
            timestep = timestep_of(self.denoiser.alphas_cumprod, 2 * ((1 - t) / t).log()).to(time)
        shared = trunk(self.denoiser, sample, timestep)
        return rows(self.denoiser, shared, condition, torch.arange(len(sample), device=sample.device))


def wrap(model: Model) -> Model:
    """The same model with its network behind the adapter; one that was adopted stays as it is.

    >>> from energycomp.testing import tiny_model
    >>> wrap(tiny_model()).denoiser
    Denoiser(Adopted, predicts sample (3, 16, 16), rule product)
    """
    denoiser = model.denoiser
    if isinstance(denoiser.network, Adopted):
        return model
    flow = denoiser.prediction_type == "flow"
    codec = denoiser.codec if isinstance(denoiser.codec, VAECodec) else None
    bounds = denoiser.value_range if denoiser.codec is None else None
    with warnings.catch_warnings():  # of a schedule that does not reach noise
        warnings.simplefilter("ignore")
        return adopt(
            Wrapped(denoiser),
            shape=denoiser.sample_shape,
            conditioner=model.conditioner,
            null=0 if denoiser.null_trained else None,
            predicts=PREDICTS[denoiser.prediction_type],
            process="flow" if flow else name_process(denoiser.alphas_cumprod),
            data_range=None if bounds is None else (bounds[0], bounds[1]),
            name=model.name,
            processor=model.processor,
            codec=codec,
        )
