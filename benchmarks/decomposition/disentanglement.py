"""Measure whether latents separate independent factors: MIG and MCC beside a beta-VAE (thesis Table 4.2).

python benchmarks/decomposition/disentanglement.py [--models lit] [--kl 4e-4 1.5e-3] [--covariance 0] [--steps 5000]
    [--seeds 0] [-n 5000] [--seed 0] [-o runs/benchmarks]

The beta-VAE has the encoder of the model, the same number of latent dimensions and the same number of training images.
One is trained for each of --seeds; with --covariance it gets the covariance term of the model as well (DIP-VAE). For
the first model, single latents are exchanged between two images, and each result is compared with images in which one
factor is exchanged instead.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from benchmarks.common.training import trained
from energycomp import load
from energycomp.denoisers import GroupNorm
from energycomp.files import atomic_file
from energycomp.images import grid
from energycomp_datasets.shapes.disentanglement import information_gaps, matched_correlations
from energycomp_datasets.shapes.lit import FACTORS, factors, render
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_decomp import DiffusionDecomposer
from energycomp_decomp.encoders import FactorsEncoder
from energycomp_decomp.loss import covariance
from energycomp_lab.training import Step

COMMAND = "python benchmarks/decomposition/disentanglement.py"
DRAWN = 20_000
SHOWN = 200  # pictures whose reconstruction is compared
PAIRS, COLUMNS, SIDE = 50, 8, 112  # whose latents are exchanged; how many are shown, and the px of an image


class BetaVAE(nn.Module):
    """A variational autoencoder (Higgins et al., 2017) of 32x32 pictures, with `width` latent dimensions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encoder = FactorsEncoder(parts=1, token_width=width, name_width=0)
        self.enter = nn.Sequential(nn.Linear(width, 256), nn.SiLU(), nn.Linear(256, 64 * 8 * 8))
        self.grow = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), GroupNorm(8, 64), nn.SiLU(),
            nn.Conv2d(64, 128, 3, padding=1), nn.PixelShuffle(2), GroupNorm(8, 32), nn.SiLU(),
            nn.Conv2d(32, 32, 3, padding=1), GroupNorm(8, 32), nn.SiLU(),
            nn.Conv2d(32, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, 32, 32) of latents (B, D)."""
        pictures: Tensor = self.grow(self.enter(latents).unflatten(1, (64, 8, 8)))
        return pictures

    def loss(self, pictures: Tensor, kl_weight: float, covariance_weight: float, generator: torch.Generator) -> Tensor:
        """Squared error, divergence and covariance, weighted as in `factors_loss`."""
        mean, log_variance = (part[:, 0] for part in self.encoder.posterior(pictures))
        drawn = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        error = F.mse_loss(self.decode(drawn), pictures)
        return error + kl_weight * divergence + covariance_weight * covariance(mean)


def make_vae(width: int, kl_weight: float, covariance_weight: float, steps: int, seed: int, out: Path) -> BetaVAE:
    """A trained beta-VAE; a finished run is read again."""
    images = torch.cat([render(part) for part in factors(DRAWN, seed=0).split(500)])

    def loss(module: Any, batch: tuple[Tensor], step: Step) -> Tensor:
        value: Tensor = module.loss(batch[0], kl_weight, covariance_weight, step.generator)
        return value

    return trained(
        lambda: BetaVAE(width), loss, TensorDataset(images), out, steps=steps, batch_size=32, learning_rate=1e-3,
        warmup_fraction=0.02, ema_decay=0.998, seed=seed, save_every=1000,
    )  # fmt: skip


def row(name: str, latents: Tensor, true: Tensor, error: float) -> list[str]:
    """A line of the table, for latents (N, D) of pictures with factors (N, 5)."""
    gaps, correlations = information_gaps(latents, true), matched_correlations(latents, true)
    by_factor = [f"{gap:.2f} / {corr:.2f}" for gap, corr in zip(gaps.tolist(), correlations.tolist(), strict=True)]
    used = int((latents.std(0) > 0.1).sum())
    return [name, f"{100 * gaps.mean():.1f}", f"{100 * correlations.mean():.1f}", f"{error:.5f}", str(used), *by_factor]


def exchanged(decomposer: Any, seed: int, pairs: int = PAIRS) -> tuple[list[list[str]], Tensor]:
    """For each latent, what the picture with that latent of another one shows, and the pictures (2 + K, pairs, ...).

    A picture is explained by the set of factors, out of all 32, that leads from one picture to the nearest.
    """
    true = factors(2 * pairs, HELD_OUT + seed + 1)
    a, b = true[:pairs], true[pairs:]
    latents = decomposer.encode(render(true))
    count = latents.shape[1]
    made = []
    for part in range(count):
        mixed = latents[:pairs].clone()
        mixed[:, part] = latents[pairs:, part]
        made.append(decomposer.decode(mixed, generator=torch.Generator().manual_seed(seed)))
    sets = [[k for k in range(len(FACTORS)) if number >> k & 1] for number in range(2 ** len(FACTORS))]
    explained = []
    for chosen in sets:
        values = a.clone()
        values[:, chosen] = b[:, chosen]
        explained.append(render(values))
    errors = (torch.stack(made)[:, None] - torch.stack(explained)[None]).square().flatten(3).mean(3)  # (K, 32, pairs)
    rows = []
    for part, best in enumerate(errors.argmin(1).tolist()):
        names = [" and ".join(FACTORS[k] for k in sets[one]) or "nothing" for one in best]
        shares = sorted(((names.count(name) / pairs, name) for name in set(names)), reverse=True)
        at_most_one = sum(len(sets[one]) <= 1 for one in best) / pairs
        likeliest = ", ".join(f"{name} {100 * share:.0f} %" for share, name in shares[:3])
        rows.append([str(part), f"{100 * at_most_one:.0f} %", likeliest])
    return rows, torch.stack([render(a), render(b), *made])


@torch.no_grad()
def main() -> None:
    """Writes disentanglement.md, exchanged.md and exchanged.png."""
    made = parser(
        __doc__, models=(["lit"], "names or folders"), kl=([4e-4, 1.5e-3], "its loss weight in a VAE"),
        covariance=([0.0], "its loss weight in a VAE"), steps=(5000, "of a VAE"), n=5000, seed=(0, "of the images"),
        out="runs/benchmarks",
    )  # fmt: skip
    made.add_argument("--seeds", nargs="*", type=int, default=[0], help="of the VAEs; none is trained without a value")
    options = made.parse_args()
    torch.set_num_threads(1)
    true = factors(options.n, HELD_OUT + options.seed)
    pictures = torch.cat([render(part) for part in true.split(500)])
    rows = []
    for name in options.models:
        decomposer = DiffusionDecomposer(load(name))
        encoder: Any = decomposer.model.encoder
        latents = torch.cat([decomposer.encode(part) for part in pictures.split(500)])
        whole = decomposer.decode(latents[:SHOWN], generator=torch.Generator().manual_seed(options.seed))
        said = latents[..., : latents.shape[2] - encoder.config["name_width"]].flatten(1)
        rows.append(row(Path(name).parent.name if "/" in name else name, said, true, _error(whole, pictures)))
        width = said.shape[1]
    for kl_weight, covariance_weight, seed in product(options.kl, options.covariance, options.seeds):
        folder = options.out / f"vae-{width}-{kl_weight:g}-{covariance_weight:g}-{seed}"
        with torch.enable_grad():
            vae = make_vae(width, kl_weight, covariance_weight, options.steps, seed, folder)
        latents = torch.cat([vae.encoder(part)[:, 0] for part in pictures.split(500)])
        error = _error(vae.decode(latents[:SHOWN]), pictures)
        kind = f"beta-VAE, {kl_weight:g}" if not covariance_weight else f"DIP-VAE, {kl_weight:g}, {covariance_weight:g}"
        rows.append(row(f"{kind}, seed {seed}", latents, true, error))
    kinds = (("--kl", options.kl), ("--covariance", options.covariance), ("--seeds", options.seeds))
    given = " ".join(
        f"{name} {' '.join(map(str, values))}".rstrip() for name, values in (("--models", options.models), *kinds)
    )
    note = (
        f"`{COMMAND} {given} --steps {options.steps} -n {options.n} --seed {options.seed}`: {options.n} held-out "
        f"images of one lit object, {width} latent dimensions, MIG with 20 bins; the error is over {SHOWN} "
        "reconstructions."
    )
    columns = ("model", "MIG, %", "MCC, %", "mean squared error", "dimensions in use")
    text = table((*columns, *(f"{name}: gap / correlation" for name in FACTORS)), rows, note)
    write(options.out / "disentanglement", text)
    found, shown = exchanged(DiffusionDecomposer(load(options.models[0])), options.seed)
    note = (
        f"`{COMMAND} --models {options.models[0]} --seed {options.seed}`: {PAIRS} pairs of held-out images. One image "
        "gets a latent of the other. Of all 32 sets of factors, the change is attributed to the set whose exchange "
        "gives the nearest image."
    )
    write(options.out / "exchanged", table(("latent", "at most one factor", "what changes most often"), found, note))
    names = ["first image", "second image", *(f"latent {k} of the second" for k in range(len(shown) - 2))]
    with atomic_file(options.out / "exchanged.png") as temporary:
        image = grid(shown[:, :COLUMNS].flatten(0, 1), columns=COLUMNS, side=SIDE, names=names)
        image.save(temporary, format="PNG")


def _error(made: Tensor, pictures: Tensor) -> float:
    return float((made - pictures[: len(made)]).square().mean())


if __name__ == "__main__":
    main()
