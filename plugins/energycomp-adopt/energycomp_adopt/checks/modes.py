"""Whether predictions repeat, and whether samples are of the range that was said."""

from __future__ import annotations

from typing import Literal

import torch

from energycomp_adopt.checks.case import Case, Finding, Verdict, once, predict

Mode = Literal["repeats", "train mode", "random", "not finite"]
CHANGES: dict[Mode, str] = {
    "repeats": "",
    "train mode": "network.eval()",
    "random": "switch dropout off in call=",
    "not finite": "the weights, the precision, or what call= gives to the network",
}


@once
def measure_mode(case: Case) -> Mode:
    """Whether predictions are finite and repeat. The network is in eval mode afterwards; what it gave is kept if so."""
    network = case.model.denoiser.network
    noised = case.rows[: max(4, 256 // case.numbers)]
    condition = case.condition(noised.index)
    training = any(part.training for part in network.modules())
    first = predict(case.model, noised, condition) if training else None
    network.eval()
    second = predict(case.model, noised, condition)
    third = predict(case.model, noised, condition)
    if not bool(second.isfinite().all()):
        return "not finite"
    if not torch.allclose(second, third, 1e-3, 1e-4):
        return "random"
    case.calls.known = {}
    return "repeats" if first is None or torch.allclose(first, second, 1e-3, 1e-4) else "train mode"


def check_mode(case: Case) -> Finding:
    """A prediction repeats."""
    mode: Mode = measure_mode(case)
    measured = "random in eval mode" if mode == "random" else mode
    verdict: Verdict = "ok" if mode == "repeats" else "wrong"
    return Finding("mode", measured, "a prediction repeats", verdict, CHANGES[mode])


def check_range(case: Case) -> Finding:
    """Samples are inside the range of the data."""
    low, high = float(case.samples.min()), float(case.samples.max())
    measured = f"{low:.3g} to {high:.3g}"
    if case.model.denoiser.value_range is None:
        return Finding("samples", measured, "", "ok")
    if max(-low, high) < 1.02:
        return Finding("samples", measured, "-1 to 1", "ok")
    return Finding("samples", measured, "-1 to 1", "wrong", "scale the samples to [-1, 1], or data_range=None")
