"""Whether predictions repeat, and whether samples are of the range that was said."""

from __future__ import annotations

from typing import Literal

import torch

from energycomp_adopt.checks.case import Case, Finding, once, predicted

Mode = Literal["repeats", "train mode", "random", "not finite"]


@once
def mode(case: Case) -> Mode:
    """Whether predictions are finite and repeat. The network is in eval mode afterwards; what it gave is kept if so."""
    network = case.model.denoiser.network
    noised = case.rows[: max(4, 256 // case.numbers)]
    condition = case.condition(noised.index)
    training = any(part.training for part in network.modules())
    first = predicted(case.model, noised, condition) if training else None
    network.eval()
    second, third = (predicted(case.model, noised, condition) for _ in range(2))
    if not bool(second.isfinite().all()):
        return "not finite"
    if not torch.allclose(second, third, 1e-3, 1e-4):
        return "random"
    case.calls.known = {}
    return "repeats" if first is None or torch.allclose(first, second, 1e-3, 1e-4) else "train mode"


def check_mode(case: Case) -> Finding:
    """A prediction repeats."""
    found: Mode = mode(case)
    measured = "random in eval mode" if found == "random" else found
    change = {
        "repeats": "",
        "train mode": "network.eval()",
        "random": "switch dropout off in call=",
        "not finite": "the weights, the precision, or what call= gives to the network",
    }[found]
    return Finding("mode", measured, "a prediction repeats", "wrong" if change else "ok", change)


def check_range(case: Case) -> Finding:
    """Samples are inside the range of the data."""
    low, high = float(case.samples.min()), float(case.samples.max())
    bounded = case.model.denoiser.value_range is not None
    inside = not bounded or max(-low, high) < 1.02
    change = "" if inside else "scale the samples to [-1, 1], or data_range=None"
    expected = "-1 to 1" if bounded else ""
    return Finding("samples", f"{low:.3g} to {high:.3g}", expected, "ok" if inside else "wrong", change)
