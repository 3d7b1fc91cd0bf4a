"""Proposals: values that the components of an image may have, by a small network that has seen such images.

A solver may begin with them; the energy of the model accepts or refuses each. A proposal that is wrong costs network
evaluations, and one that is missing is searched for as without proposals: answers are those of the model.

They are kept in the folder `proposals` of a model. What they depend on is the space of samples and what values mean,
not the weights of the denoiser: they stay valid when it is trained further. Their stamp says so, see `stamp_of`.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.components.conditioning import Conditioner
from energycomp.components.support import MixedSupport
from energycomp.denoisers.configured import configured
from energycomp.errors import CheckpointError, EnergycompWarning, InputError
from energycomp.files import read_tensors, write_tensors
from energycomp.models.weights import check_fit

if TYPE_CHECKING:
    from energycomp.models.parts import ModelParts

FOLDER = "proposals"  # inside that of a model
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MOST_CONFIG = 100_000  # characters of it
FINEST = 24  # cells along the longer side of a sample, at most
EDGE = 1e-3  # least distance of a proposed place from the edge
SAME = 0.75  # cells between two places that are proposed for one component, at most
LEAST = 2e-3  # probability of a proposal
MOST = 32  # proposals of an image


class ProposalsWarning(EnergycompWarning):
    """Proposals in the folder of a model that cannot be used: images are read without them."""


@attrs.frozen(eq=False)
class Proposals:
    """Values that an image may show, the likeliest first.

    Args:
        values: (M, *V), with the likeliest word of each attribute.
        probability: (M,), that there is a component.
        words: of each attribute, the logarithms of the probabilities of its words, (M, n).
    """

    values: Tensor
    probability: Tensor
    words: tuple[Tensor, ...] = ()


@configured
class ProposalNetwork(nn.Module):
    """For each cell of a grid over a sample: whether a component is there, its place in the cell, and its words.

    Args:
        sample_shape: (C, H, W).
        words: how many words each attribute has.
        width: channels.
        blocks: residual blocks of the fine grid, and of one of half its side.

    >>> network = ProposalNetwork(sample_shape=(3, 64, 64), words=(2, 3))
    >>> network(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 8, 16, 16])
    """

    config: dict[str, Any]  # by `configured`

    def __init__(
        self,
        *,
        sample_shape: Sequence[int],
        words: Sequence[int] = (),
        width: int = 64,
        blocks: Sequence[int] = (3, 3),
    ) -> None:
        super().__init__()
        channels, *sides = sample_shape
        self.words = tuple(words)
        patch = 2 ** max(0, math.ceil(math.log2(max(sides) / FINEST)))
        self.grid = tuple(max(1, side // patch) for side in sides)
        first = blocks[0] - blocks[0] // 2
        self.enter = nn.Conv2d(channels, width, patch + 2, stride=patch, padding=1)
        self.position = nn.Conv2d(2, width, 1, bias=False)
        self.first = nn.Sequential(*(_Block(width) for _ in range(first)))
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(_Block(width) for _ in range(blocks[1])))
        self.last = nn.Sequential(*(_Block(width) for _ in range(blocks[0] - first)))
        self.out = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 3 + sum(self.words), 1))
        nn.init.constant_(self.out[2].bias[:1], -4.0)  # type: ignore[index]  # few cells hold a component

    def forward(self, samples: Tensor) -> Tensor:
        """Logits of presence, the place in cells from the middle of the cell, and logits of words, (B, ., h, w)."""
        x, y = _middles(self.grid, samples)
        places = torch.stack([x[None].expand(self.grid), y[:, None].expand(self.grid)])[None]
        entered = self.enter(samples)[..., : self.grid[0], : self.grid[1]]
        fine = self.first(entered + self.position(2 * places - 1))
        wide = F.interpolate(self.coarse(self.down(fine)), size=self.grid, mode="nearest")
        maps: Tensor = self.out(self.last(fine + wide))
        return maps

    @torch.no_grad()
    def propose(self, sample: Tensor) -> Proposals:
        """The proposals for one sample (1, C, H, W). It is no network evaluation of the denoiser."""
        maps = self(sample.float())[0].flatten(1).cpu()
        here = maps[0].sigmoid()
        # The place that each cell says, in cells
        x, y = (middle.cpu() * cells for middle, cells in zip(_middles(self.grid, maps), self.grid[::-1], strict=True))
        middles = torch.stack([x[None].expand(self.grid), y[:, None].expand(self.grid)]).flatten(1)
        places = (middles + maps[1:3]).T
        # The likeliest cell, with those that mean the same component, until none is likely
        chosen: list[int] = []
        probability: list[float] = []
        while len(chosen) < MOST and float(here.max()) >= LEAST:
            best = int(here.argmax())
            same = (places - places[best]).norm(dim=1) < SAME
            same[best] = True
            chosen.append(best)
            probability.append(min(1.0, float(here[same].sum())))
            here = here.masked_fill(same, 0.0)
        numbers = (places[chosen] / torch.tensor(self.grid[::-1])).clamp(EDGE, 1 - EDGE)
        words = tuple(each.T.log_softmax(1) for each in maps[3:, chosen].split(self.words)) if self.words else ()
        codes = torch.stack([1.0 + each.argmax(1) for each in words], dim=1) if words else numbers[:, :0]
        order = torch.tensor(probability).argsort(descending=True, stable=True)
        values = torch.cat([numbers, codes], dim=1)[order]
        return Proposals(values, torch.tensor(probability)[order], tuple(each[order] for each in words))


def _middles(grid: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """The middles of the columns and of the rows of a grid, in [0, 1]."""
    rows, columns = ((torch.arange(side).to(like) + 0.5) / side for side in grid)
    return columns, rows


class _Block(nn.Module):
    """A residual block, which adds nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.two.weight)
        nn.init.zeros_(self.two.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.two(F.silu(self.one(F.silu(self.norm(x)))))
        return out


@attrs.frozen(eq=False, slots=False)  # a cached property is kept in the dictionary of an instance
class Proposer:
    """The proposals of a model: a network, or the folder from which it is read when it is first asked for.

    Args:
        stamp: of the model that it was trained for, see `stamp_of`; None to read it from the folder.
    """

    folder: Path | None = None
    stamp: str | None = None
    made: ProposalNetwork | None = None

    @classmethod
    def of(cls, network: ProposalNetwork, model: ModelParts) -> Self:
        return cls(stamp=stamp_of(model), made=network)

    @cached_property
    def _read(self) -> tuple[ProposalNetwork, str]:
        if self.folder is None or self.made is not None:
            return self.made, self.stamp  # type: ignore[return-value]
        return read_proposals(self.folder)

    def network(self, model: ModelParts) -> ProposalNetwork | None:
        """The network; None, with a warning, for files that cannot be read or are of another model."""
        try:
            network, stamp = self._read
        except CheckpointError as error:
            _warn(f"{error}; images are read without proposals")
            return None
        given = (stamp, network.config["sample_shape"], list(network.words))
        if given != (
            stamp_of(model),
            list(model.denoiser.sample_shape),
            list(words_of_places(model.conditioner) or ()),
        ):
            _warn(
                f"got proposals that were trained for other samples or values than those of {model.name}; images are "
                "read without them; train them again: energycomp train proposals"
            )
            return None
        return network

    def save(self, folder: Path) -> None:
        """Writes network and stamp into the folder `proposals` of a model's folder; what cannot be read is left out."""
        try:
            network, stamp = self._read
        except CheckpointError as error:
            _warn(f"{error}; the model is saved without proposals")
            return
        folder /= FOLDER
        folder.mkdir()
        config = {"network": network.config, "stamp": stamp}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_tensors(folder / WEIGHTS, {name: tensor.half() for name, tensor in network.state_dict().items()})


def read_proposals(folder: Path) -> tuple[ProposalNetwork, str]:
    """The network of a folder, in float32, and its stamp; raises `CheckpointError` for what is none."""
    file = folder / CONFIG
    try:
        with file.open(encoding="utf-8") as stream:
            config = json.loads(stream.read(MOST_CONFIG))
        network = ProposalNetwork(**config["network"])
        stamp = str(config["stamp"])
    except Exception as error:  # whatever a network raises for arguments that are none
        raise CheckpointError(f"got {file} that describes no proposals ({type(error).__name__}: {error})") from error
    tensors = {name: tensor.float() for name, tensor in read_tensors(folder / WEIGHTS).items()}
    check_fit(network.state_dict(), tensors, f"the proposals of {folder}")
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(requires_grad=False), stamp


def network_for(model: ModelParts) -> ProposalNetwork:
    """An untrained network for the samples and values of a model.

    Raises:
        InputError: samples that are no pictures, or values that do not begin with a place.

    >>> from energycomp.testing import tinted_model
    >>> network_for(tinted_model()).words
    (3, 2)
    """
    words = words_of_places(model.conditioner)
    shape = tuple(model.denoiser.sample_shape)
    if words is None or len(shape) != 3:
        raise InputError(
            f"got {model.name}, whose components have no places in an image; expected values that begin with x and y "
            "in [0, 1], as those of clevr; its images are read without proposals"
        )
    return ProposalNetwork(sample_shape=shape, words=words)


def words_of_places(conditioner: Conditioner) -> tuple[int, ...] | None:
    """How many words the attributes behind a place have, () for places alone; None where values are no places."""
    support = conditioner.support
    words: tuple[int, ...] = ()
    if isinstance(support, MixedSupport):
        words = support.words
        length = support.length
        support = support.continuous
    else:
        length = conditioner.value_shape[0] if len(conditioner.value_shape) == 1 else 0
    inner = getattr(support, "base_constraint", support)
    is_unit = getattr(inner, "lower_bound", None) == 0 and getattr(inner, "upper_bound", None) == 1
    return words if length == 2 and is_unit and not support.is_discrete else None


def stamp_of(model: ModelParts) -> str:
    """What proposals depend on: the space of samples, and what values mean; 16 hex digits.

    It is the same for other weights of the denoiser, and another one for another codec or conditioner.
    """
    codec = model.denoiser.codec
    said = {
        "samples": list(model.denoiser.sample_shape),
        "codec": model.processor.config() if codec is None else codec.identity,
        "values": [model.conditioner_name, model.conditioner.config()],
    }
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _warn(message: str) -> None:
    warnings.warn(message, ProposalsWarning, stacklevel=3)
