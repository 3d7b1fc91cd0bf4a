"""Size, colour, material and shape of objects whose places are known; fits the inverse temperature of their posterior.

python benchmarks/inference/object_words.py [--data synthetic:3-8] [-n 60] [--seed 1] [--model clevr]

Prints one JSON line: the accuracy of each attribute, how many of its wrong words have a posterior of 0.95 or more, the
accuracy of all four, the network evaluations of an object, and the beta of softmax(-beta J) with the least negative
log-likelihood of the true words, with the calibration errors that it has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import load
from energycomp.components import MixedSupport, mixed_of
from energycomp.errors import InputError
from energycomp.inference import Posterior, make_problem
from energycomp.inference.attributes import AttributeErrors, read_attributes
from energycomp_lab.evaluation import AttributeCalibration, source_of, true_values

SURE = 0.95  # posterior from which on a word is said with certainty


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    seed = (1, "of scenes and draws")
    options = parser(__doc__, model="clevr", data="synthetic:3-8", n=60, seed=seed).parse_args(arguments)
    model = load(options.model)
    if (mixed := mixed_of(model.conditioner)) is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects, such as clevr")
    support, rows = mixed.support, 0
    read: list[tuple[AttributeErrors, Tensor]] = []
    certain: list[Tensor] = []
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    for example in tqdm(examples, desc="reading"):
        true = true_values(example, model.conditioner)
        problem = make_problem(model.encode(example.image), model)
        read.append((read_attributes(problem, support.split(true)[0], generator=options.seed), true))
        certain.append(read[-1][0].certainty(problem.posterior) >= SURE)
        rows += problem.rows
    right = torch.cat([support.split(found.values)[1] == support.split(true)[1] for found, true in read]).double()
    beta = fitted(read, support)
    names = list(mixed.attributes)
    line: dict[str, object] = {"data": options.data, "images": len(read), "objects": len(right), "seed": options.seed}
    line |= {f"{name}_accuracy": round(float(right[:, k].mean()), 4) for k, name in enumerate(names)}
    sure = torch.cat(certain)
    wrong = ((right[:, : sure.shape[1]] == 0) & sure).sum(0)  # what is read last has no posterior
    line |= {f"{name}_wrong_and_sure": int(n) for name, n in zip(names, wrong, strict=False)}
    line |= {"all_attributes": round(float(right.prod(1).mean()), 4), "rows_per_object": round(rows / len(right), 1)}
    line |= {"beta": round(beta, 3)}
    line |= {f"{name}_calibration_error": calibration(read, support, k, beta) for k, name in enumerate(names)}
    print(json.dumps(line), flush=True)


def fitted(read: Sequence[tuple[AttributeErrors, Tensor]], support: MixedSupport) -> float:
    """The beta of the least negative log-likelihood of the true words."""
    words = [(found.errors, support.split(true)[1].long() - 1) for found, true in read]
    pairs = [(each, true[:, k]) for errors, true in words for k, each in enumerate(errors)]

    def loss(log_beta: float) -> float:
        return sum(float(cross_entropy(-(10.0**log_beta) * e, word, reduction="sum")) for e, word in pairs)

    return float(10.0 ** minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x)


def calibration(
    read: Sequence[tuple[AttributeErrors, Tensor]], support: MixedSupport, attribute: int, beta: float
) -> float:
    """The expected calibration error of an attribute."""
    metric = AttributeCalibration(support, attribute)
    for found, true in read:
        metric.update([found.values], [true], certainty=[found.certainty(Posterior(beta))])
    return round(float(metric.compute()), 4)


if __name__ == "__main__":
    main()
