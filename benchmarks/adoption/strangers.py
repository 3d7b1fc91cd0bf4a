"""Small networks that `mistakes.py` adopts, with the data on which each is trained and how it is adopted.

Trained once, in about half a minute each on one thread, and kept in a folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

import energycomp
from benchmarks.adoption.data import bars, blobs, digits, patches, points, repeated, skewed, table
from benchmarks.adoption.networks import MLP, DiT, Mixer, Plain, Row, UNet
from energycomp.components import cosine_schedule
from energycomp_adopt import adopt

STEPS, BATCH = 1500, 64
LINEAR = torch.linspace(1e-4, 0.02, 1000)


def betas_noised(alphas: Tensor) -> Callable[[Tensor, Tensor], tuple[Any, ...]]:
    """What a network of betas is given, the time, and (eps, x0, v, score) that it may predict."""

    def noised(x0: Tensor, eps: Tensor) -> tuple[Any, ...]:
        t = torch.randint(len(alphas), (len(x0),))
        s, n = (one.reshape(-1, *[1] * (x0.ndim - 1)) for one in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
        return s * x0 + n * eps, t, {"eps": eps, "x0": x0, "v": s * eps - n * x0}

    return noised


def flow_noised(x0: Tensor, eps: Tensor) -> tuple[Any, ...]:
    """Noise at t = 1."""
    t = torch.randn(len(x0)).sigmoid()
    wide = t.reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - wide) * x0 + wide * eps, t, {"flow": eps - x0}


def data_noised(x0: Tensor, eps: Tensor) -> tuple[Any, ...]:
    """Data at t = 1."""
    x, t, known = flow_noised(x0, eps)
    return x, 1 - t, {"flow": -known["flow"]}


def edm_noised(x0: Tensor, eps: Tensor) -> tuple[Any, ...]:
    """The preconditioning of Karras et al. (2022), with sigma_data = 0.5."""
    sigma = (1.2 * torch.randn(len(x0)) - 0.8).exp()
    wide = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    noisy, total = x0 + wide * eps, (wide**2 + 0.25).sqrt()
    return noisy / total, sigma.log() / 4, {"edm": (x0 - noisy * 0.25 / total**2) * total / (wide * 0.5)}


@attrs.frozen(eq=False)
class Stranger:
    """A network, the data on which it was trained, and how it is adopted.

    Args:
        data: clean samples (N, ...) in the numbers of the network, and their labels (N,).
        null: the label that stands for none in a tenth of the training.
        options: of `energycomp_adopt.adopt`.
        held: how many of the data, the last ones, are held out of the training.
        seed: of the weights and of the training.
        drawn: whether the data are images of things that are not the same mirrored or transposed.
        quantiles: whether the data are normal scores of a table.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[..., tuple[Tensor, Tensor]]
    noised: Callable[[Tensor, Tensor], tuple[Any, ...]]
    options: dict[str, Any]
    null: int | None = None
    held: int = 64
    seed: int = 0
    drawn: bool = False
    quantiles: bool = False

    def network(self, folder: Path) -> nn.Module:
        """Trained, or as it was kept."""
        torch.manual_seed(self.seed)
        net, file = self.make(), folder / f"{self.name}{f'-{self.seed}' if self.seed else ''}.safetensors"
        if not file.exists():
            net = self._train(net)
            folder.mkdir(parents=True, exist_ok=True)
            save_model(net, str(file))
        load_model(net, str(file))
        return net.eval()

    def _train(self, net: nn.Module) -> nn.Module:
        x, labels = (part[: -self.held] for part in self.data())
        predicts, mean = self.options["predicts"], copy.deepcopy(net)
        optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.01)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for step in range(STEPS):
            index = torch.randint(len(x), (BATCH,))
            label = labels[index]
            if self.null is not None:
                label = torch.where(torch.rand(BATCH) < 0.1, self.null, label)
            given, t, known = self.noised(x[index], torch.randn_like(x[index]))
            out = net(given, t, label if self.options.get("classes") else None)
            optimizer.zero_grad()
            functional.mse_loss(out, known[predicts]).backward()
            optimizer.step()
            rate.step()
            with torch.no_grad():
                for kept, new in zip(mean.parameters(), net.parameters(), strict=True):
                    kept.lerp_(new, max(1 / (step + 1), 0.005))
        return mean

    def adopted(self, folder: Path, **changed: Any) -> energycomp.Model:
        """The network as a model, with options changed."""
        return adopt(self.network(folder), **{**self.options, **changed})

    @property
    def drops(self) -> bool:
        """Whether it has dropout."""
        return any(isinstance(part, nn.Dropout) and part.p > 0 for part in self.make().modules())

    def samples(self, of: slice | None = None) -> tuple[Tensor, Tensor]:
        """Held-out samples, or some of all, as `check_adoption` takes them, and their labels."""
        x, labels = (part[slice(-self.held, None) if of is None else of] for part in self.data())
        if len(self.options["shape"]) == 3:
            low, high = self.options.get("data_range", (-1.0, 1.0))
            x = (x - low) / (high - low)  # images are in [0, 1]
        return x, labels


GREY, COSINE = (1, 8, 8), cosine_schedule()
TABLE = (
    Stranger(
        "dit", lambda: DiT(10), digits(-1, 1), betas_noised((1 - LINEAR).cumprod(0)),
        {"shape": GREY, "classes": 10, "predicts": "eps", "process": "linear"}, drawn=True,
    ),
    Stranger(
        "edm", lambda: DiT(10, scale=250.0), digits(-1, 1), edm_noised,
        {"shape": GREY, "classes": 10, "predicts": "edm", "process": (0.002, 80.0)}, drawn=True,
    ),
    Stranger(
        "flow", lambda: UNet(11, scale=1000.0, dropout=0.1), digits(0, 1), data_noised,
        {
            "shape": GREY, "classes": 10, "null": 10, "predicts": "flow", "process": "flow to data",
            "data_range": (0.0, 1.0),
        }, null=10, drawn=True,
    ),
    Stranger(
        "unet", lambda: UNet(0, dropout=0.1), digits(-1, 1), betas_noised(COSINE),
        {"shape": GREY, "predicts": "v", "process": "cosine"}, drawn=True,
    ),
    Stranger(
        "wine", lambda: MLP(13, 4, dropout=0.1), table("wine"), betas_noised(COSINE),
        {
            "shape": (13,), "classes": 3, "null": 3, "predicts": "eps", "process": "cosine", "data_range": None,
        }, null=3, held=60,
    ),
)  # fmt: skip
DEVELOPMENT = (
    Stranger(
        "cancer", lambda: MLP(30, 3), table("breast_cancer"), betas_noised((1 - LINEAR).cumprod(0)),
        {
            "shape": (30,), "classes": 2, "null": 2, "predicts": "x0", "process": "linear", "data_range": None,
        }, null=2,
    ),
    Stranger(
        "blobs", lambda: UNet(5, dropout=0.1), blobs(0, 1), betas_noised(COSINE),
        {
            "shape": GREY, "classes": 4, "null": 4, "predicts": "eps", "process": "cosine", "data_range": (0.0, 1.0),
        }, null=4,
    ),
    Stranger(
        "blobs-flow", lambda: DiT(4, scale=1000.0), blobs(-1, 1), flow_noised,
        {"shape": GREY, "classes": 4, "predicts": "flow", "process": "flow"},
    ),
    Stranger(
        "blobs-edm", lambda: UNet(0, scale=250.0), blobs(-1, 1), edm_noised,
        {"shape": GREY, "predicts": "edm", "process": (0.002, 80.0)},
    ),
)  # fmt: skip
COLOUR, SCALED = (3, 8, 8), (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)
BLIND = (
    Stranger(
        "mixer", lambda: Mixer(3, 6), bars(0, 1), betas_noised(SCALED),
        {
            "shape": COLOUR, "classes": 6, "predicts": "eps", "process": "stable diffusion", "data_range": (0.0, 1.0),
        },
    ),
    Stranger(
        "plain-edm", lambda: Plain(3, 3, 250.0), patches, edm_noised,
        {"shape": COLOUR, "classes": 2, "null": 2, "predicts": "edm", "process": (0.002, 80.0)}, null=2,
    ),
    Stranger(
        "mixer-flow", lambda: Mixer(3, 7, 1000.0), bars(-1, 1), flow_noised,
        {"shape": COLOUR, "classes": 6, "null": 6, "predicts": "flow", "process": "flow"}, null=6,
    ),
    Stranger(
        "patches", lambda: Mixer(3, 0), patches, betas_noised((1 - LINEAR).cumprod(0)),
        {"shape": COLOUR, "predicts": "x0", "process": "linear"},
    ),
    Stranger(
        "iris", lambda: Row(4, 4), table("iris"), betas_noised(COSINE),
        {
            "shape": (4,), "classes": 3, "null": 3, "predicts": "v", "process": "cosine", "data_range": None,
        }, null=3, held=50,
    ),
)  # fmt: skip
REPAIRED = (  # on which the check failed before
    Stranger(
        "points", lambda: MLP(2, 5, width=96), points, betas_noised(COSINE),
        {
            "shape": (2,), "classes": 4, "null": 4, "predicts": "v", "process": "cosine", "data_range": None,
        }, null=4,
    ),
    Stranger(
        "repeated", lambda: MLP(13, 3), repeated, betas_noised(COSINE),
        {
            "shape": (13,), "classes": 2, "null": 2, "predicts": "eps", "process": "cosine", "data_range": None,
        }, null=2, quantiles=True,
    ),
    Stranger(
        "skewed", lambda: MLP(8, 3), skewed, betas_noised(COSINE),
        {
            "shape": (8,), "classes": 2, "null": 2, "predicts": "v", "process": "cosine", "data_range": None,
        }, null=2, quantiles=True,
    ),
)  # fmt: skip
