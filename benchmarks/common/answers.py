"""Candidates for attributes of an image, and the identity of a model in stored results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp import Model

ATTRIBUTES = ("black_hair", "eyeglasses", "smiling")  # those of the thesis


def candidates_of(model: Model, attributes: Sequence[str]) -> Tensor:
    """Both values of each of some yes/no attributes, (2 A,)."""
    parse = model.conditioner.parse
    return torch.cat([parse(**{name: value}) for name in attributes for value in (False, True)])


def fingerprint(model: Model) -> str:
    """A digest of the weights of a model's network: stored results of other weights are not reused."""
    digest = hashlib.sha256()
    for tensor in model.denoiser.network.state_dict().values():
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
