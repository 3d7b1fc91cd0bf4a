"""Errors of every subset of M places: K + 1 evaluations per draw each, or the quadratic form, M + 1 in total.

python benchmarks/speed/looped_enumeration.py [--threads 2] [--repeats 2] [--draws 4] [--part 24] [-o runs/benchmarks]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, Ways, looped_row
from energycomp import Model, load
from energycomp.inference import make_problem, residual_errors
from energycomp.plugins import find
from energycomp_lab.evaluation import dataset_of, true_values

CASES = ("2^4", "2^8", "2^16")
LARGE = 2**12  # label sets beyond which the looped way runs a part only
COMMAND = "python benchmarks/speed/looped_enumeration.py"


def subsets(size: int) -> Tensor:
    """All 2^M subsets of M atoms as rows of 0 and 1, (2^M, M)."""
    return (torch.arange(2**size)[:, None] >> torch.arange(size)) & 1


def chosen_sets(size: int, part: int, seed: int) -> Tensor:
    """Which label sets the looped way runs: all, or random ones where that would take hours."""
    if 2**size <= LARGE:
        return torch.arange(2**size)
    return torch.randperm(2**size, generator=torch.Generator().manual_seed(seed))[:part]


def make_ways(
    model: Model, case: str, *, observation: Tensor, places: Tensor, draws: int, part: int, seed: int
) -> Ways:
    """Both ways to the errors (N, S) of all label sets, on the same noise draws; a part of them where looped is slow.

    The looped way runs u and each component of each label set through the whole network, all draws as one batch.
    """
    size, denoiser = int(case.removeprefix("2^")), model.denoiser
    atoms, sets = places[:size], subsets(size)
    some = chosen_sets(size, part, seed)
    u, conditions = denoiser.unconditional.condition, [model.conditioner(place[None]) for place in atoms]
    drawn = make_problem(observation, model, candidates=atoms).draw(draws, torch.Generator().manual_seed(seed))

    def looped() -> Tensor:
        noised, errors = drawn.noised(observation, denoiser.alphas_cumprod), []
        for chosen in sets[some]:
            total = base = looped_row(denoiser.network, noised, drawn.timestep, u)
            for k in chosen.nonzero()[:, 0].tolist():
                total = total + (looped_row(denoiser.network, noised, drawn.timestep, conditions[k]) - base)
            errors.append(residual_errors(denoiser, observation, drawn, total[None])[0])
        return torch.stack(errors)

    def ours() -> Tensor:
        problem = make_problem(observation, model, candidates=atoms)  # without a trunk of an earlier turn
        return problem.quadratic(atoms, drawn).weighted_errors(sets)

    return {LOOPED: torch.no_grad()(looped), OURS: torch.no_grad()(ours)}


def extrapolated(found: dict[str, Any], size: int, part: int, draws: int) -> dict[str, Any]:
    """What the looped way would take for all label sets, by its rows; its speed and share stay."""
    whole = draws * (size * 2 ** (size - 1) + 2**size)  # the subsets' components, and u for each
    way = found[LOOPED]
    factor = whole / way["rows"]
    scaled = {key: way[key] * factor for key in ("seconds", "gflop")}
    return {**found, LOOPED: {**way, **scaled, "rows": whole, "trunks": whole}, "part": part}


def scene(model: Model, seed: int) -> tuple[Tensor, Tensor]:
    """A rendered scene of 3 objects (1, C, H, W), and 16 places (16, 2): the objects', then others."""
    (example,) = find("datasets", dataset_of(model))().examples("synthetic:3", count=1, seed=seed)
    others = torch.rand(13, 2, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    return model.encode(example.image), torch.cat([true_values(example, model.conditioner), others])


def main() -> None:
    """Writes looped_enumeration.md and .png."""
    part = (24, "label sets that the looped way runs of 2^16")
    options = measure.speed_options(__doc__, repeats=2, draws=(4, "S"), part=part).parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))
    setting = {"draws": options.draws, "part": options.part, "seed": options.seed}
    observation, places = scene(model, options.seed)

    def ways_of(case: str) -> Ways:
        return make_ways(model, case, observation=observation, places=places, **setting)

    def exact(case: str, looped: Tensor, ours: Tensor) -> dict[str, Any]:
        """Whether both have the same best of these label sets, and by how much their errors (N, S) differ at most."""
        ours = ours[chosen_sets(int(case.removeprefix("2^")), options.part, options.seed)]
        gap = float(((looped.double() - ours) / looped.double()).abs().max())
        return {"argmin": bool(looped.mean(1).argmin() == ours.mean(1).argmin()), "gap": gap}

    found, limit = measure.run(__file__, options, CASES, ways_of, network, exact)
    sizes = [int(record["case"].removeprefix("2^")) for record in found]
    records = [
        extrapolated(record, size, options.part, options.draws) if 2**size > LARGE else record
        for record, size in zip(found, sizes, strict=True)
    ]
    rows = measure.way_rows(records, limit)
    for row, record in zip(rows, [record for record in records for _ in range(2)], strict=True):
        row[2] += f" (from {record['part']} sets)" if "part" in record and row[1] == LOOPED else ""
        row.append(f"{'same' if record['argmin'] else 'OTHER'} best, errors to {record['gap']:.0e}")
    fewer = " / ".join(f"{record[LOOPED]['rows'] / record[OURS]['rows']:,.1f}" for record in records)
    note = (
        f"`{COMMAND}`: subsets of 4, 8 and 16 places of a scene of 3 objects, {options.draws} draws, "
        f"{measure.how(options, limit)} At 2^16 the looped way ran {options.part} random subsets, and its seconds are "
        f"scaled by its rows; the last column compares these. Rows are {fewer} times fewer."
    )
    text = measure.table([*measure.HEAD, "exact"], rows, note)
    title = f"Errors of all label sets, {options.draws} draws"
    measure.write(options.out / "looped_enumeration", text, measure.bars(records, title))


if __name__ == "__main__":
    main()
