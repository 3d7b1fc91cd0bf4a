"""Counts of scenes with a prior of layouts, beside none.

python benchmarks/parts/layout_prior.py [--model clevr] [--data synthetic:6-8] [-n 60] [--seed 0] [--scenes 600]
    [--records runs/layout_prior.jsonl]

The prior is learned from places alone, of scenes that are laid out and not rendered, with other seeds than the images:
a network of two places is trained to tell pairs of one scene from pairs of two scenes, so that its logit is
log p(a, b) / (p(a) p(b)), and minus this is the energy of a pair. Both ways read the same images with the same draws;
attributes are left open, which the count does not depend on.

Prints one JSON line: of each way the share of right counts, counts above and below the true ones, and NFE, and how much
the share differs from that without a prior; intervals are 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.cli import append_line, read_lines
from energycomp.images import to_unit
from energycomp.inference import Prior, pairwise
from energycomp_datasets.clevr.layout import object_values
from energycomp_datasets.clevr.scenes import sample_scene
from energycomp_lab.evaluation import source_of

COUNTS, STEPS, BATCH, RESAMPLES = (2, 10), 1500, 512, 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, model="clevr", data="synthetic:6-8", n=60, seed=0, scenes=(600, "layouts that the prior learns from"),
        records=(Path("runs/layout_prior.jsonl"), "answers, one line an image, which a further run takes up"),
    ).parse_args(arguments)  # fmt: skip
    started = time.perf_counter()
    pairs = layout_prior(layouts(options.scenes), seed=options.seed)
    learned = time.perf_counter() - started
    ways = {"none": None, "pairs": pairs}
    model = load(options.model)
    known = read_lines(options.records) if options.records.is_file() else []
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    for k in tqdm(range(len(known), options.n)):
        image, count, record = to_unit(examples[k].image), len(examples[k].conditions), {}
        how: dict[str, Any] = {"generator": options.seed + k, "progress": False}
        for name, prior in ways.items():
            solution = infer(image, model, prior=prior, attributes=False, **how)
            record[name] = [solution.count - count, solution.rows]
        append_line(options.records, record)
        known.append(record)
    found = {name: [record[name] for record in known[: options.n]] for name in ways}
    result: dict[str, Any] = {name: of_way(torch.tensor(found[name]), torch.tensor(found["none"])) for name in ways}
    result |= {"images": options.n, "data": options.data, "seed": options.seed, "learned_seconds": round(learned, 1)}
    print(json.dumps(result))


def layouts(scenes: int) -> list[Tensor]:
    """Places (K, 2) of the objects of scenes."""
    found = []
    for k in tqdm(range(scenes), desc="layouts"):
        generator = torch.Generator().manual_seed(k)
        count = int(torch.randint(COUNTS[0], COUNTS[1] + 1, (), generator=generator))
        found.append(object_values(sample_scene(count, generator))[:, :2])
    return found


def layout_prior(places: Sequence[Tensor], *, seed: int = 0, steps: int = STEPS) -> Prior:
    """The prior of pairs of places that are laid out as in these scenes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    true = torch.cat([one[torch.combinations(torch.arange(len(one)), 2)] for one in places])  # (N, 2, 2)
    for _ in tqdm(range(steps), desc="prior"):
        one, other = torch.randint(len(true), (2, BATCH), generator=generator)
        pairs = torch.cat([true[one], torch.stack([true[one, 0], true[other, 1]], 1)])
        logits = _logits(network, pairs[:, 0], pairs[:, 1])
        loss = functional.binary_cross_entropy_with_logits(logits, torch.arange(2.0).flip(0).repeat_interleave(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.requires_grad_(requires_grad=False)

    def laid_out(first: Tensor, second: Tensor) -> Tensor:
        return -_logits(network, first[:, :2], second[:, :2])

    return pairwise(laid_out)


def _logits(network: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    logits: Tensor = network(torch.cat([first, second, (first - second) * 5], 1))[:, 0]
    return logits


def of_way(found: Tensor, without: Tensor) -> dict[str, Any]:
    """What is printed of a way: deviations of counts, and NFE, (N, 2), and those without a prior."""
    right, before = (one[:, 0] == 0 for one in (found, without))
    resampled = torch.randint(len(found), (RESAMPLES, len(found)), generator=torch.Generator().manual_seed(0))

    def interval(values: Tensor) -> list[float]:
        means = values.double()[resampled].mean(1)
        return [
            round(float(x), 3) for x in (values.double().mean(), *means.quantile(torch.tensor([0.025, 0.975]).double()))
        ]

    return {
        "count_accuracy": interval(right),
        "minus_none": interval(right.double() - before.double()),
        "too_many": int((found[:, 0] > 0).sum()),
        "too_few": int((found[:, 0] < 0).sum()),
        "nfe": round(float(found[:, 1].double().mean())),
    }


if __name__ == "__main__":
    main()
