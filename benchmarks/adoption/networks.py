"""Small networks in plain torch that `mistakes.py` adopts, each trained in the way of another library.

Trained once, in about half a minute each on one thread, and kept in a folder.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional

import energycomp
from energycomp.components import cosine_schedule

STEPS, BATCH = 1500, 64
LINEAR = torch.linspace(1e-4, 0.02, 1000)


def waves(time: Tensor, width: int) -> Tensor:
    """Sinusoids (R, width) of a time of any scale up to 1000."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Told(nn.Module):
    """An embedding of time, scaled to what sinusoids resolve, and of the label."""

    def __init__(self, width: int, labels: int, scale: float) -> None:
        super().__init__()
        self.scale, self.width = scale, width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(labels, width) if labels else None

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        told = self.time(waves(self.scale * t, self.width))
        return told if self.label is None or label is None else told + self.label(label)


class Block(nn.Module):
    """A block of a DiT (Peebles and Xie, 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        a, b, c, d, e, f = self.modulation(functional.silu(told))[:, None].chunk(6, 2)
        x = self.first(tokens) * (1 + a) + b
        tokens = tokens + c * self.attention(x, x, x, need_weights=False)[0]
        return tokens + f * self.mlp(self.second(tokens) * (1 + d) + e)


class DiT(nn.Module):
    """A transformer over the 2x2 patches of grey images (1, 8, 8)."""

    def __init__(self, labels: int, scale: float = 1.0, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.told, self.patches = Told(width, labels, scale), nn.Linear(4, width)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, tokens = self.told(t, label), self.patches(functional.pixel_unshuffle(x, 2).flatten(2).mT) + self.place
        for block in self.blocks:
            tokens = block(tokens, told)
        return functional.pixel_shuffle(self.out(tokens).mT.unflatten(2, (4, 4)), 2)


class Residual(nn.Module):
    def __init__(self, width: int, told: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))
        self.told, self.dropout = nn.Linear(told, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        y = self.first(functional.silu(self.norms[0](x))) + self.told(told)[..., None, None]
        return x + self.second(self.dropout(functional.silu(self.norms[1](y))))


class UNet(nn.Module):
    """Two resolutions with a skip connection, for grey images (1, 8, 8)."""

    def __init__(self, labels: int, scale: float = 1.0, width: int = 24, dropout: float = 0.0) -> None:
        super().__init__()
        self.told, self.enter = Told(64, labels, scale), nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(width, 64, dropout) for _ in range(4))
        self.down, self.up = nn.Conv2d(width, width, 3, 2, 1), nn.ConvTranspose2d(width, width, 2, 2)
        self.out = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told = self.told(t, label)
        wide = self.blocks[0](self.enter(x), told)
        deep = self.blocks[2](self.blocks[1](self.down(wide), told), told)
        return self.out(self.blocks[3](wide + self.up(deep), told))


class MLP(nn.Module):
    """For rows of numbers."""

    def __init__(self, numbers: int, labels: int, scale: float = 1.0, width: int = 192, dropout: float = 0.0) -> None:
        super().__init__()
        self.told, self.enter, self.out = Told(64, labels, scale), nn.Linear(numbers, width), nn.Linear(width, numbers)
        self.skip = nn.Linear(64, numbers)
        self.layers = nn.ModuleList(nn.Linear(width + 64, width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label), self.enter(x)
        for layer in self.layers:
            h = h + self.dropout(functional.silu(layer(torch.cat([h, told], 1))))
        return self.out(h) + self.skip(told) * x


class Mixer(nn.Module):
    """Layers over the 2x2 patches of images (C, 8, 8), and over their channels (Tolstikhin et al., 2021)."""

    def __init__(self, channels: int, labels: int, scale: float = 1.0, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.told, self.enter, self.out = (
            Told(width, labels, scale),
            nn.Linear(4 * channels, width),
            nn.Linear(width, 4 * channels),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(depth)
        )
        self.along = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label)[:, None], self.enter(functional.pixel_unshuffle(x, 2).flatten(2).mT)
        for first, second, across, along in zip(
            self.norms[::2], self.norms[1::2], self.across, self.along, strict=True
        ):
            h = h + across((first(h) + told).mT).mT
            h = h + along(second(h) + told)
        return functional.pixel_shuffle(self.out(h).mT.unflatten(2, (4, 4)), 2)


class Plain(nn.Module):
    """Dilated convolutions at one resolution, whose channels are scaled and moved (Perez et al., 2018)."""

    def __init__(self, channels: int, labels: int, scale: float, width: int = 32) -> None:
        super().__init__()
        self.told = Told(64, labels, scale)
        self.enter, self.out = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=n, dilation=n) for n in (1, 2, 4, 2, 1))
        self.films = nn.ModuleList(nn.Linear(64, 2 * width) for _ in self.layers)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label), self.enter(x)
        for layer, film in zip(self.layers, self.films, strict=True):
            a, b = film(told)[..., None, None].chunk(2, 1)
            h = h + functional.silu(layer(h) * (1 + a) + b)
        return self.out(h)


class Row(nn.Module):
    """A transformer over the numbers of a row."""

    def __init__(self, numbers: int, labels: int, width: int = 48) -> None:
        super().__init__()
        self.told = Told(width, labels, 1.0)
        self.of, self.place = (nn.Parameter(0.3 * torch.randn(numbers, width)) for _ in range(2))
        layer = nn.TransformerEncoderLayer(width, 4, 96, batch_first=True, norm_first=True)
        self.layers, self.out = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        tokens = torch.cat([self.told(t, label)[:, None], x[..., None] * self.of + self.place], 1)
        return self.out(self.layers(tokens))[:, 1:, 0]


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
        options: of `energycomp.adopt`.
        held: how many of the data, the last ones, are held out of the training.
        seed: of the weights and of the training.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[..., tuple[Tensor, Tensor]]
    noised: Callable[[Tensor, Tensor], tuple[Any, ...]]
    options: dict[str, Any]
    null: int | None = None
    held: int = 64
    seed: int = 0

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
        return energycomp.adopt(self.network(folder), **{**self.options, **changed})

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


def digits(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    def data() -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        loaded = load_digits()
        order = torch.randperm(len(loaded.target), generator=torch.Generator().manual_seed(0))
        images = torch.as_tensor(loaded.images).float()[:, None] / 16
        return (low + (high - low) * images)[order], torch.as_tensor(loaded.target)[order]

    return data


def table(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def data(*, raw: bool = False) -> tuple[Tensor, Tensor]:
        from sklearn import datasets

        loaded = getattr(datasets, f"load_{name}")()
        order = torch.randperm(len(loaded.target), generator=torch.Generator().manual_seed(0))
        rows = torch.as_tensor(loaded.data).float()
        rows = rows if raw else (rows - rows.mean(0)) / rows.std(0)
        return rows[order], torch.as_tensor(loaded.target)[order]

    return data


def blobs(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """A bright spot in one of four quarters: its label."""

    def data() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        label = torch.randint(4, (4000,), generator=generator)
        centre = 2 + 3.5 * torch.stack([label % 2, label // 2], 1) + torch.rand(4000, 2, generator=generator) - 0.5
        width = 0.8 + 0.8 * torch.rand(4000, generator=generator)
        axis = torch.arange(8.0)
        far = (axis[None] - centre[:, :1]).square()[:, None] + (axis[None] - centre[:, 1:]).square()[:, :, None]
        return low + (high - low) * (-far / (2 * width.square())[:, None, None]).exp()[:, None], label

    return data


def bars(low: float, high: float) -> Callable[[], tuple[Tensor, Tensor]]:
    """A coloured bar on a grey ground; its label is one of three colours and of two directions."""

    def data() -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        label = torch.randint(6, (4000,), generator=generator)
        centre, width, ground = torch.rand(3, 4000, 1, generator=generator)
        centre, width, ground = 1.5 + 4 * centre, 0.6 + width, 0.2 + 0.3 * ground[:, 0]
        shape = (-(torch.arange(8.0) - centre).square() / (2 * width.square())).exp()
        along = torch.where((label % 2 == 0)[:, None, None], shape[:, None], shape[:, :, None]).expand(-1, 8, 8)
        colour = 0.15 + 0.8 * torch.eye(3)[label // 2]
        image = ground[:, None, None, None] * (1 - along[:, None]) + colour[..., None, None] * along[:, None]
        return low + (high - low) * image, label

    return data


def patches() -> tuple[Tensor, Tensor]:
    """Patches of two photos, halved; the label is the photo."""
    from sklearn.datasets import load_sample_images

    generator, found = torch.Generator().manual_seed(2), []
    for photo in load_sample_images().images:
        image = functional.avg_pool2d(torch.tensor(photo).float().permute(2, 0, 1)[None] / 127.5 - 1, 4)[0]
        y, x = (torch.randint(size - 8, (2000,), generator=generator).tolist() for size in image.shape[1:])
        found.append(torch.stack([image[:, a : a + 8, b : b + 8] for a, b in zip(y, x, strict=True)]))
    order = torch.randperm(4000, generator=generator)
    return torch.cat(found)[order], (torch.arange(4000) // 2000)[order]


GREY, COSINE = (1, 8, 8), cosine_schedule()
TABLE = (
    Stranger(
        "dit", lambda: DiT(10), digits(-1, 1), betas_noised((1 - LINEAR).cumprod(0)),
        {"shape": GREY, "classes": 10, "predicts": "eps", "process": "linear"},
    ),
    Stranger(
        "edm", lambda: DiT(10, scale=250.0), digits(-1, 1), edm_noised,
        {"shape": GREY, "classes": 10, "predicts": "edm", "process": (0.002, 80.0)},
    ),
    Stranger(
        "flow", lambda: UNet(11, scale=1000.0, dropout=0.1), digits(0, 1), data_noised,
        {
            "shape": GREY, "classes": 10, "null": 10, "predicts": "flow", "process": "flow to data",
            "data_range": (0.0, 1.0),
        }, null=10,
    ),
    Stranger(
        "unet", lambda: UNet(0, dropout=0.1), digits(-1, 1), betas_noised(COSINE),
        {"shape": GREY, "predicts": "v", "process": "cosine"},
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
