"""The network of a stranger, with the best prediction of every kind: data are normal about the mean of their label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from energycomp.components.space import cosine_schedule, signal_noise

DATA_STD = 0.5  # of EDM, with which its network scales inputs and outputs (Karras et al., 2022, table 1)


class Ideal(nn.Module):
    """Predicts, in terms of eps, x0, the score, v, a flow or EDM's F, samples of N(mean of the label, std^2).

    The label after the last one, and no label, stand for the mixture of all.

    Args:
        means: of each label, (M, ...).
        predicts: "eps", "x0", "score", "v", "flow" or "edm".
        process: "vp", "ve", "flow" (t from data to noise) or "flow to data".
        alphas: alphas_cumprod of "vp", a cosine schedule by default.

    >>> Ideal(torch.zeros(1, 2))(torch.ones(1, 2), torch.tensor([999.0]), torch.tensor([0])).round()
    tensor([[1., 1.]])
    """

    def __init__(
        self, means: Tensor, std: float = 0.3, predicts: str = "eps", process: str = "vp", alphas: Tensor | None = None
    ) -> None:
        super().__init__()
        self.means = nn.Parameter(means, requires_grad=False)
        self.std = std
        self.predicts = predicts
        self.process = process
        self.alphas = cosine_schedule() if alphas is None else alphas

    def sigma(self, t: Tensor) -> Tensor:
        """Noise over signal."""
        if self.predicts == "edm":
            return (4 * t).exp()
        if self.process == "ve":
            return t
        if self.process == "vp":
            signal, noise = signal_noise(self.alphas, t, ndim=1)
            return noise / signal
        return t / (1 - t) if self.process == "flow" else (1 - t) / t

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        sigma = self.sigma(t).reshape(-1, *[1] * (x.ndim - 1))
        total = (sigma**2 + DATA_STD**2).sqrt()
        scale = {"vp": 1 / (1 + sigma**2).sqrt(), "ve": torch.ones_like(sigma)}.get(self.process, 1 / (1 + sigma))
        noisy = x * total if self.predicts == "edm" else x / scale
        variance = sigma**2 + self.std**2
        # The mean of the label, or of all labels by their posterior
        means = self.means.to(x)
        off = (noisy[:, None] - means).flatten(2).square().sum(2) / (2 * variance.reshape(-1, 1))
        share = (-off).softmax(1)
        if label is not None:
            count = len(means)
            own = nn.functional.one_hot(label.clamp(max=count), count + 1)[:, :-1].to(share)
            share = torch.where(label[:, None] < count, own, share)
        mean = (share @ means.flatten(1)).view_as(x)
        clean = (mean * sigma**2 + noisy * self.std**2) / variance
        eps = (noisy - mean) * sigma / variance
        flow = eps - clean if self.process == "flow" else clean - eps
        known = {
            "eps": eps, "x0": clean, "score": -eps / (scale * sigma), "v": scale * (eps - sigma * clean), "flow": flow,
            "edm": (clean - noisy * (DATA_STD / total) ** 2) * total / (sigma * DATA_STD),
        }  # fmt: skip
        return known[self.predicts]
