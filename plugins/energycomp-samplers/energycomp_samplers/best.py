"""The best of several samples, by `rank`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import EnergyComponent
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.images import decoded
from energycomp.models import Model
from energycomp.sampling import OUTPUT_TYPES, Composer, Generator
from energycomp.seeds import as_generators
from energycomp_samplers.rankable import as_rankable
from energycomp_samplers.ranking import DRAWS, Ranking, rank_samples


@attrs.frozen(eq=False)
class BestSamples:
    """The samples that were kept of all that were drawn.

    Args:
        images: the n kept samples, best first, in the output type.
        ranking: of all samples, in the order in which they were drawn.
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
        """How many of the kept samples are complete; the others are kept for want of better ones."""
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
    constraint: Callable[[Tensor], Tensor] | None = None,
    generator: Generator = None,
    output_type: str = "pil",
    **options: Any,
) -> BestSamples:
    """Draws n * best_of samples and keeps the best n: those that show every component, by their least lift.

    Where fewer than n show every component, or are allowed by the constraint, the best of the others follow; a warning
    says how many of the kept ones the constraint rules out. Costs best_of times the network evaluations of
    `Composer.sample`, and those of `rank`, which defines lift and order.

    Args:
        composition: as `rank` takes it, or a list for `Composer`.
        n: the number of samples that are kept.
        best_of: samples drawn for each that is kept.
        until_complete: draw n samples at a time, and no more once n of them are complete: they show every component,
            and the energy of the constraint is finite.
        model, draws, constraint: as for `rank`.
        generator: one, or a seed, for samples and ranking; or a list, one for each of the n * best_of samples, which
            are then ranked with the seed 0, as they are with `until_complete`.
        output_type, options: as for `Composer.sample`.

    Raises:
        CompositionError, InputError, NonFiniteError: as `rank` and `Composer.sample`, the first before any sampling.

    >>> from energycomp.testing import bumps_model
    >>> model = bumps_model()
    >>> both = model(0.2, 0.3) & model(0.7, 0.8)
    >>> best = sample_best(both, 2, best_of=3, generator=0, num_inference_steps=5, progress=False)
    >>> len(best.images), len(best.dropped), best.complete
    (2, 4, 2)
    """
    if not all(is_whole(number) and number >= 1 for number in (n, best_of)):
        raise InputError(f"got n={n} and best_of={best_of}; expected whole numbers, at least 1 of each")
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"got output_type {output_type!r}; expected one of {OUTPUT_TYPES}")
    if "return_dict" in options:
        raise InputError("got return_dict for sample_best, which returns BestSamples; leave it out")
    # What cannot be ranked is refused before anything is drawn
    composer = Composer(composition)
    asked = as_rankable(composer, model)
    # One generator draws samples and ranks them; rankings that are joined need the same draws, of the seed 0
    generators = as_generators(generator)
    own = generators if isinstance(generators, torch.Generator) and not until_complete else 0
    # All samples at once, or n at a time until n are complete
    size = n if until_complete else n * best_of
    value_range = asked.denoiser.noised_space.value_range
    batches: list[Tensor] = []
    rankings: list[Ranking] = []
    with count_rows() as spent:
        for start in range(0, n * best_of, size):
            some = generators[start : start + size] if isinstance(generators, list) else generators
            batches.append(composer.sample(size, generator=some, output_type="latent", **options))
            # Rank what an image shows: what is left after clipping
            seen = batches[-1] if value_range is None else batches[-1].clamp(*value_range)
            how: dict[str, Any] = {"model": model, "draws": draws, "constraint": constraint, "generator": own}
            rankings.append(rank_samples(seen, asked, **how))
            # No more than it takes to have n that show all that was asked for
            if sum(int(ranking.complete.sum()) for ranking in rankings) >= n:
                break
    # Keep the best n
    samples = torch.cat(batches)
    ranking = _join(rankings)
    kept = ranking.order[:n]
    # Warn of those that are kept though the constraint rules them out
    out = 0 if ranking.energy is None else int(ranking.energy[list(kept)].isinf().sum())
    if out:
        warnings.warn(
            f"the constraint rules {out} of the {n} kept samples out, because it allows no others of the "
            f"{len(samples)} that were drawn; raise best_of",
            stacklevel=2,
        )
    # Only what is kept goes through the codec
    with torch.no_grad():
        images = decoded(samples[list(kept)], output_type, decode=asked.denoiser.decode, value_range=value_range)
    return BestSamples(images, ranking, kept, spent.rows)


def _join(rankings: Sequence[Ranking]) -> Ranking:
    """The ranking of all images of several rankings of one composition."""
    energies = [one.energy for one in rankings if one.energy is not None]
    return attrs.evolve(
        rankings[0],
        lift=torch.cat([one.lift for one in rankings]),
        stderr=torch.cat([one.stderr for one in rankings]),
        p_value=torch.cat([one.p_value for one in rankings]),
        rows=sum(one.rows for one in rankings),
        energy=torch.cat(energies) if energies else None,
    )
