"""Best of several samples: more are drawn than are asked for, and those that show every component are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import EnergyComponent
from energycomp.denoisers.evaluator import count_rows
from energycomp.errors import InputError
from energycomp.images import decoded
from energycomp.inference.ranking import DRAWS, Ranking, rank_samples, rankable
from energycomp.models.model import Model
from energycomp.sampling.composer import Composer
from energycomp.seeds import Generator, as_generators

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@attrs.frozen(eq=False)
class BestSamples:
    """The samples that were kept of all that were drawn.

    Args:
        images: the n kept samples, best first, in the output type.
        ranking: of all samples that were drawn, in the order in which they were drawn.
        kept: the indices of the kept samples in the ranking, best first.
        rows: network evaluations of sampling and ranking.
    """

    images: Any
    ranking: Ranking
    kept: tuple[int, ...]
    rows: int

    @property
    def dropped(self) -> tuple[int, ...]:
        """The indices of the other samples, best first; `ranking.missing` says what each lacks."""
        return self.ranking.order[len(self.kept) :]

    @property
    def complete(self) -> int:
        """How many of the kept samples show every component; the others are kept for want of better ones."""
        return int(self.ranking.complete[list(self.kept)].sum())

    @property
    def rows_per_sample(self) -> float:
        """Network evaluations per kept sample."""
        return self.rows / len(self.kept)


def sample_best(
    composition: EnergyComponent | Sequence[EnergyComponent],
    n: int = 1,
    *,
    best_of: int = 4,
    until_complete: bool = False,
    model: Model | None = None,
    draws: int = DRAWS,
    generator: Generator = None,
    output_type: str = "pil",
    **options: Any,
) -> BestSamples:
    """Draws n * best_of samples and keeps the best n: those that show every component, by their least lift.

    Where fewer than n show every component, the best of the others fill up. `rank` defines lift and order. Costs
    best_of times the network evaluations of `Composer.sample`, and those of `rank`.

    Args:
        composition: as `rank` takes it, or a list for `Composer`.
        n: the number of samples that are kept.
        best_of: samples drawn for each that is kept.
        until_complete: draw n samples at a time, and no more once n of them show every component. The first n samples
            are then those of `Composer.sample`. Where most samples are complete, this costs little more than one each.
        model, draws: as for `rank`.
        generator: one, or a seed, for samples and ranking; or a list, one for each of the n * best_of samples, which
            are then ranked with the seed 0, as they are with `until_complete`.
        output_type: as for `Composer.sample`.
        options: other keywords of `Composer.sample`, such as `num_inference_steps` and `scheduler`.

    Raises:
        CompositionError, InputError, NonFiniteError: as `rank` and `Composer.sample`, the first before any sampling.

    >>> from energycomp.testing import bumps_model
    >>> model = bumps_model()
    >>> both = model(0.2, 0.3) & model(0.7, 0.8)
    >>> best = sample_best(both, 2, best_of=3, generator=0, num_inference_steps=5, progress=False)
    >>> len(best.images), len(best.dropped), best.complete
    (2, 4, 2)
    """
    if n < 1 or best_of < 1:
        raise InputError(f"got n={n} and best_of={best_of}; expected at least 1 of each")
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"got output_type {output_type!r}; expected one of {', '.join(map(repr, OUTPUT_TYPES))}")
    if "return_dict" in options:
        raise InputError("got return_dict for sample_best, which returns BestSamples; leave it out")
    composer = Composer(composition)
    denoiser, _, _ = rankable(composer)
    generators = as_generators(generator)
    clipped = denoiser.noised_space.value_range  # an image shows what is left after clipping
    size = n if until_complete else n * best_of
    own = generators if isinstance(generators, torch.Generator) and not until_complete else 0
    drawn: list[Tensor] = []
    rankings: list[Ranking] = []
    with count_rows() as spent:
        for start in range(0, n * best_of, size):
            some = generators[start : start + size] if isinstance(generators, list) else generators
            drawn.append(composer.sample(size, generator=some, output_type="latent", **options))
            seen = drawn[-1] if clipped is None else drawn[-1].clamp(*clipped)
            rankings.append(rank_samples(seen, composer, model=model, draws=draws, generator=own))
            if sum(int(ranking.complete.sum()) for ranking in rankings) >= n:
                break
    samples, ranking = torch.cat(drawn), _joined(rankings)
    kept = ranking.order[:n]
    with torch.no_grad():
        images = decoded(samples[list(kept)], output_type, decode=denoiser.decode, value_range=clipped)
    return BestSamples(images, ranking, kept, spent.rows)


def _joined(rankings: Sequence[Ranking]) -> Ranking:
    """The ranking of all images of several rankings of one composition."""
    return attrs.evolve(
        rankings[0],
        lift=torch.cat([one.lift for one in rankings]),
        stderr=torch.cat([one.stderr for one in rankings]),
        p_value=torch.cat([one.p_value for one in rankings]),
        rows=sum(one.rows for one in rankings),
    )
