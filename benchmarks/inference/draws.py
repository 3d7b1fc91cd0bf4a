"""Whether draws that are learned, timesteps with their noises, tell words apart better than random ones.

python benchmarks/inference/draws.py --data DIR:3-8 [-n 60] [--draws 96] [--model clevr] [--seed 1]

Each word of each object is compared with all others, everything else right, under the same draws for all images. Draws
are learned on one half of the images, greedily, and tried on the other, each way. Prints a line of JSON for each number
of draws: the share of wrong words whose mean error is above that of the true one, of learned and of random draws.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import load
from energycomp.components import MixedSupport, mixed_of
from energycomp.errors import InputError
from energycomp.inference import Problem, make_problem
from energycomp_lab.evaluation import source_of, true_values

NUMBERS = (1, 2, 3, 4, 8, 16)
TURNS = 200  # of random draws
BANK = 12_345  # the seed of the draws to choose from


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    parse = parser(__doc__, model="clevr", data="synthetic:3-8", n=60, seed=(1, "of scenes and choices"))
    parse.add_argument("--draws", type=int, default=96, help="draws to choose from")
    options = parse.parse_args(arguments)
    torch.set_num_threads(1)
    model = load(options.model)
    if (mixed := mixed_of(model.conditioner)) is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects, such as clevr")
    nats = model.defaults.beta or 1.0
    gaps: list[Tensor] = []
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    for example in tqdm(examples, desc="reading", total=options.n):
        problem = make_problem(model.encode(example.image), model)
        true = true_values(example, model.conditioner)
        gaps.append(nats * compare(problem, mixed.support, true, options.draws).double())
    generator = torch.Generator().manual_seed(options.seed)
    halves = torch.cat(gaps[::2]), torch.cat(gaps[1::2])
    for n in NUMBERS:
        learned = [rejected(test, learn(train, n)) for train, test in (halves, halves[::-1])]
        random = [rejected(half, draw(options.draws, n, generator)) for _ in range(TURNS) for half in halves]
        print(json.dumps({"draws": n, "learned": _mean(learned), "random": _mean(random)}), flush=True)


def compare(problem: Problem, support: MixedSupport, true: Tensor, draws: int) -> Tensor:
    """By how much each wrong word is worse under each draw, (N, S)."""
    rivals = list(other_words(support, true))
    form = problem.quadratic(torch.cat([true, *(value for _, value in rivals)]), problem.draw(draws, BANK))
    every = list(range(len(true)))
    best = form.objective(every)
    gaps = []
    for place, (component, _) in enumerate(rivals):
        others = [k for k in every if k != component]
        gaps.append(form.objective([*others, len(true) + place]) - best)
    return torch.stack(gaps)


def other_words(support: MixedSupport, true: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each component with each word that it does not have, (1, V)."""
    numbers, codes = support.split(true)
    for component, own in enumerate(codes.long()):
        for attribute, words in enumerate(support.words):
            for word in range(1, words + 1):
                if word != own[attribute]:
                    changed = own.clone()
                    changed[attribute] = word
                    yield component, support.joined(numbers[component, None], changed[None])


def learn(gaps: Tensor, n: int) -> list[int]:
    """The draws that reject best together, chosen one by one by the logistic loss of their mean."""
    chosen: list[int] = []
    total = torch.zeros(len(gaps), dtype=gaps.dtype)
    for _ in range(n):
        loss = softplus(-(total[:, None] + gaps) / (len(chosen) + 1)).mean(0)
        loss[chosen] = torch.inf
        best = int(loss.argmin())
        chosen.append(best)
        total += gaps[:, best]
    return chosen


def draw(draws: int, n: int, generator: torch.Generator) -> list[int]:
    """One of each of n equal parts of the draws, which are in the order of their timesteps."""
    edges = [draws * part // n for part in range(n + 1)]
    return [int(torch.randint(*ends, (), generator=generator)) for ends in pairwise(edges)]


def rejected(gaps: Tensor, chosen: Sequence[int]) -> float:
    return float((gaps[:, list(chosen)].mean(1) > 0).double().mean())


def _mean(shares: Sequence[float]) -> float:
    return round(sum(shares) / len(shares), 4)


if __name__ == "__main__":
    main()
