"""What samplers and further tries gain in the skills of `energycomp evaluate MODEL --data skills`.

python benchmarks/sampling/skills.py [--ways ddpm@100 ddim@50] [--tries 1 4] [-n 96] [--skills two negation] [--seed 0]

Prints one JSON line for each way (as in `composed_samples.py`) and number of tries: the share of right pictures of each
skill with its 95 % interval, and the network evaluations and seconds of a picture, which include its looks. Pictures of
a model of prompts are read by `--judge`, or by the model itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.common import ways
from benchmarks.common.options import parser
from energycomp import load
from energycomp_lab.evaluation import evaluate
from energycomp_scenes.skills import Skills


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    parsed = parser(
        __doc__, model="clevr", n=(96, "pictures, over all skills"), tries=([4], "most samples of a picture"), seed=0,
        skills=([""], "some of them"), judge=("", "of a model of prompts: another one, which reads its pictures"),
    )  # fmt: skip
    parsed.add_argument("--ways", nargs="+", type=ways.Way.parsed, help="of drawing; the model's own")
    options = parsed.parse_args(arguments)
    model, judge = load(options.model), load(options.judge) if options.judge else None
    for way in options.ways or [ways.Way.of(model)]:
        for tries in options.tries:
            task = Skills(tries=tries, options=way.options, judge=judge).task(model)
            examples = task.examples(",".join(options.skills), count=options.n, seed=options.seed)
            report = evaluate(model, examples, task, seed=options.seed, data=f"skills, {way}, {tries}")
            print(json.dumps(report.as_dict()), flush=True)


if __name__ == "__main__":
    main()
