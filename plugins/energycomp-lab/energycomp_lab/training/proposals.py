"""How the proposals of a model are trained: `energycomp.models.proposals` says what they are.

1. Data      The training data of the model's own recipe, with a value for each component; without a recipe, samples of
             the model under random conditions. No labels beyond conditions are needed.
2. Targets   The cell of a place holds its component; it and the cells around it say where the place is, and its words.
3. Loss      Cross entropy of presence, over all cells of an image; absolute errors of places; cross entropy of words,
             those that are left open do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components import random_values
from energycomp.components.support import MixedSupport
from energycomp.errors import InputError
from energycomp.files import atomic_file, fingerprint, read_tensors, write_tensors
from energycomp.images import from_bytes
from energycomp.models import Model
from energycomp.models.proposals import ProposalNetwork, Proposer, network_for
from energycomp.plugins import find
from energycomp.plugins.registry import registers
from energycomp.progress import progress
from energycomp.sampling import Composer
from energycomp_lab.training.config import FitConfig, Step
from energycomp_lab.training.recipe import Recipe, collate, option_number

SAMPLES = 2_000  # of a model without a recipe
STEPS = 20  # of a sample
APART = 0.15  # of two places of a sample
AROUND = 0.3  # weight of the cells around that of a place
PLACE = 2.0  # weight of places, in cells


@attrs.frozen(eq=False)
class ProposalTraining:
    """A model, and the network of its proposals, which is trained. `energycomp train` saves the model with it."""

    model: Model
    trained: ProposalNetwork

    def to(self, device: Any) -> Self:
        return attrs.evolve(self, trained=self.trained.to(device))

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        network = self.trained.eval()
        attrs.evolve(self.model, proposals=Proposer.of(network, self.model)).save_pretrained(folder, dtype=dtype)


def proposals(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    recipe: str | None = None,
    samples: int | str = SAMPLES,
) -> Recipe:
    """The recipe of the proposals of a model, `init`: minutes on a core.

    Args:
        data: as of the recipe of the model.
        preset: as of that recipe.
        recipe: the name of that recipe; that of the model when left out, or samples of the model where none has it.
        samples: how many samples of the model are drawn where there is no recipe, once.

    Raises:
        InputError: no model, one whose components have no places, or data without a value for each component.
    """
    if init is None:
        raise InputError("got no model; expected one that reads objects; pass --init MODEL, such as clevr")
    model = init
    network = network_for(model)
    known = None if model.proposals is None else model.proposals.network(model)
    if known is not None and known.config == network.config:  # whose training goes on
        network.load_state_dict(known.state_dict())
    name = model.name if recipe is None else recipe
    if recipe is not None or registers("recipes", name):
        own = find("recipes", name)(data=data, init=model, preset=preset, cache=cache)
        items = own.data
    elif data is not None:
        raise InputError(f"got --data {data} for {name}, which no recipe trains; expected --option recipe=NAME, too")
    else:
        items = draw_samples(model, round(option_number("samples", samples)), cache)
    _check(model, items)
    config = FitConfig(
        steps=4_000,
        batch_size=32,
        learning_rate=2e-3,
        ema_decay=0.995,
        weight_decay=0.05,
        max_grad_norm=20.0,
        mixed_precision="bf16",
    )
    made = ProposalTraining(model, network)
    loss = _Loss(model)
    return Recipe(
        model=made, module=network, loss=loss, data=items, config=config, collate_fn=_together, can_sample=False
    )


def draw_samples(model: Model, count: int, cache: Path) -> list[dict[str, Tensor]]:
    """Samples of a model (C, H, W), drawn once, each with the values (K, *V) of its components."""
    key = fingerprint({name: model.weights[name] for name in sorted(model.weights)})
    file = cache / f"samples-{key}-{count}.safetensors"
    generator = torch.Generator().manual_seed(0)
    low, high = model.defaults.counts
    values = [
        _spread(model, low + int(torch.randint(high - low + 1, (), generator=generator)), generator)
        for _ in range(count)
    ]
    if not file.is_file():
        made = []
        for some in progress(values, "drawing samples"):
            composer = Composer(model.compose(some))
            made.append(
                composer.sample(
                    generator=generator, num_inference_steps=STEPS, progress=False, output_type="latent",
                    report=lambda _: None,
                )
            )  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            write_tensors(temporary, {"samples": torch.cat(made).half()})
    drawn = read_tensors(file)["samples"]
    return [{"image": image, "values": some} for image, some in zip(drawn, values, strict=True)]


def _spread(model: Model, count: int, generator: torch.Generator) -> Tensor:
    """Random values (K, *V), those that are too near to earlier ones left out."""
    values = random_values(model.conditioner, count, generator=generator)
    kept: list[int] = []
    for k in range(count):
        if all(float((values[k, :2] - values[j, :2]).norm()) > APART for j in kept):
            kept.append(k)
    return values[kept]


def _check(model: Model, items: Any) -> None:
    first = items[0] if isinstance(items, Sequence) and len(items) else None
    known = isinstance(first, dict) and {"image", "values"} <= first.keys()
    if not known or first["values"].ndim != 2 or first["values"].shape[1] < 2:  # type: ignore[index]
        raise InputError(
            f"got data of {model.name} without values of their components; expected items with image (C, H, W) and "
            "values (K, *V), as recipes of clevr have them; name such a recipe: --option recipe=NAME"
        )


def _together(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return collate([{"image": item["image"], "values": item["values"]} for item in items])


@attrs.frozen(eq=False)
class _Loss:
    """The loss of a batch of images (or latents) with their values."""

    model: Model

    def __call__(self, module: nn.Module, batch: dict[str, Tensor], _step: Step) -> Tensor:
        maps = module(_samples(self.model, batch["image"])).float()
        support = self.model.conditioner.support
        words = support.words if isinstance(support, MixedSupport) else ()
        return proposal_loss(maps, batch["values"], batch["owner"], words)


def _samples(model: Model, images: Tensor) -> Tensor:
    """Samples of images: bytes are pictures, which a codec encodes."""
    if images.dtype != torch.uint8:
        return images.float()
    pictures = from_bytes(images)
    codec = model.denoiser.codec
    return pictures if codec is None else codec.encode(pictures)


def proposal_loss(maps: Tensor, values: Tensor, owner: Tensor, words: Sequence[int]) -> Tensor:
    """The loss of maps (B, ., h, w) of a `ProposalNetwork`, for R values of their owners.

    >>> maps = torch.zeros(1, 3, 4, 4)
    >>> far, near = (torch.tensor([[place, 0.125]]) for place in (0.30, 0.125))
    >>> owner = torch.tensor([0])
    >>> bool(proposal_loss(maps, near, owner, ()) < proposal_loss(maps, far, owner, ()))  # a place in the middle
    True
    """
    height, width = maps.shape[2:]
    # The cell of each component, and where in it the component is
    places = values[:, :2] * values.new_tensor([width, height])
    column = places[:, 0].floor().clamp(0, width - 1).long()
    row = places[:, 1].floor().clamp(0, height - 1).long()
    presence = torch.zeros_like(maps[:, 0])
    presence[owner, row, column] = 1.0
    loss = F.binary_cross_entropy_with_logits(maps[:, 0], presence, reduction="sum") / len(maps)
    if not len(values):
        return loss

    # What the cells around a place say of it: a cell that is near two belongs to its own
    total = maps.new_zeros(())
    weights = maps.new_zeros(())
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            is_own = down == 0 and right == 0
            y, x = row + down, column + right
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
            if not is_own:
                inside &= presence[owner, y, x] == 0
            weight = inside.float() * (1.0 if is_own else AROUND)
            said = maps[owner, :, y, x]
            middle = torch.stack([x, y], dim=1) + 0.5
            error = PLACE * (said[:, 1:3] + middle - places).abs().sum(1)
            for attribute, logits in enumerate(said[:, 3:].split(list(words), dim=1) if words else ()):
                code = values[:, 2 + attribute].long() - 1  # -1 where it is open, which does not count
                error = error + F.cross_entropy(logits, code, ignore_index=-1, reduction="none")
            total = total + (weight * error).sum()
            weights = weights + weight.sum()
    return loss + total / weights.clamp(min=1.0) * len(values) / len(maps)
