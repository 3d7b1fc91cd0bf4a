"""The conformance check of guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.sampling import Guidance
from energycomp_lab.checks.expect import expect, expect_same_state, expect_tensor

SHAPE = (3, 2, 4, 4)
STEPS = 4


def check_guidance(guidance: Guidance) -> None:
    """Checks a guidance on predictions of two components that are random numbers.

    Guided predictions must be finite and of the same shape; those of a sample must not depend on the others of its
    batch, nor on runs before; and where both predictions agree, the guided one is the same.

    >>> from energycomp.sampling import ClassifierFree
    >>> check_guidance(ClassifierFree(3.0))
    """
    name = type(guidance).__name__
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    pairs = [tuple(torch.randn(2, *SHAPE, generator=generator)) for _ in range(STEPS)]
    guided = _run(guidance, pairs)
    for step, one in enumerate(guided):
        what = f"a guided prediction of {name} at step {step}"
        expect_tensor(one, SHAPE, what, "return one prediction for each sample")
    again = _run(guidance, pairs)
    same = all(torch.equal(one, other) for one, other in zip(guided, again, strict=True))
    expect(same, f"another result of {name} in a second run", "the same", "keep what a run has seen in its `Guide`")
    alone = _run(guidance, [(c[1:2], u[1:2]) for c, u in pairs])
    close = all(torch.allclose(one[1:2], other, atol=1e-4) for one, other in zip(guided, alone, strict=True))
    expect(close, f"another result of {name} for a sample without its batch", "the same", "reduce over (1, 2, 3)")
    equal = _run(guidance, [(c, c) for c, _ in pairs])[-1]
    kept = torch.allclose(equal, pairs[-1][0], atol=1e-4)
    expect(kept, f"a change by {name} of predictions that agree", "no change", "guide by the difference")
    expect_same_state(state, f" by {name}")


def _run(guidance: Guidance, pairs: list[Any]) -> list[Tensor]:
    guide = guidance.guide(STEPS)
    shares = [torch.full((len(cond),), step / STEPS, dtype=torch.float64) for step, (cond, _) in enumerate(pairs)]
    return [guide.combine(cond, uncond, share) for (cond, uncond), share in zip(pairs, shares, strict=True)]
