"""The conformance check of models."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch

from energycomp.components import Composition, predict
from energycomp.decomposition import decomposer_of, takes_apart
from energycomp.models import Model, from_pretrained, save_pretrained
from energycomp.plugins import Kind, find, names
from energycomp_lab.checks.component import check_component
from energycomp_lab.checks.conditioner import check_conditioner, legal_values
from energycomp_lab.checks.decomposer import check_decomposer
from energycomp_lab.checks.expect import expect

TOLERANCE = 1e-3  # float32 convolutions sum in another order when the batch changes


@torch.no_grad()
def check_model(model: Model) -> None:
    """Checks a model: names, conditioner, a leaf, its decomposer if it has one, saving and loading.

    Costs about 15 network evaluations, those of the decomposer, and the model's size on disk for a moment.

    >>> check_model("clevr")
    Traceback (most recent call last):
    energycomp_lab.checks.expect.ConformanceError: got a str; expected an energycomp.Model; ...
    """
    expect(isinstance(model, Model), f"a {type(model).__name__}", "an energycomp.Model", "return one")
    named = {"networks": model.network_name, "conditioners": model.conditioner_name, "solvers": model.defaults.solver}
    named["processors"] = model.processor.registered_name
    if model.denoiser.codec is not None:
        named["codecs"] = model.denoiser.codec.registered_name
    if model.decomposer_name is not None:
        named["decomposers"] = model.decomposer_name
    for kind, name in named.items():
        known = names(cast("Kind", kind))
        hint = "register it, or depend on the plugin that does"
        expect(name in known, f"{name!r}, which is not among the {kind}", ", ".join(known), hint)
    with torch.enable_grad():
        check_conditioner(model.conditioner, factory=find("conditioners", model.conditioner_name))
    check_component(model.leaf(legal_values(model.conditioner)[:1]), tolerance=TOLERANCE)
    if takes_apart(model):
        check_decomposer(decomposer_of(model))
    _check_saved(model)


def _check_saved(model: Model) -> None:
    with TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder) / "model")
        again = from_pretrained(Path(folder) / "model")
    values = legal_values(model.conditioner)[:1]
    shape = tuple(model.denoiser.sample_shape)
    sample = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([0.4 * len(model.denoiser.alphas_cumprod)])
    before, after = (predict(Composition.of(m.leaf(values)), sample, timestep) for m in (model.to("cpu"), again))
    off = float((after - before).abs().max() / before.abs().max())
    got = f"a prediction that is off by {off:.2g} after saving and loading"
    expect(off < TOLERANCE, got, "the same prediction", "complete the configs")
