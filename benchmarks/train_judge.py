"""The judge of Arrow Room pictures: trained on rendered scenes alone, and how often it is right about held-out ones.

python benchmarks/train_judge.py [--steps 4000] [--seed 0] [-n 5000] [-o runs/judge] [--save FOLDER]

Held-out scenes, of each verdict as many, have the seed that `energycomp evaluate` draws from. With `--save` the weights
are written as the package `energycomp-slots` keeps them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from energycomp.files import atomic_file
from energycomp.training import fit
from energycomp_decomp.data import HELD_OUT
from energycomp_slots.judge import Judge, confusion, judge_loss, load_judge, save_judge
from energycomp_slots.judge_scenes import INVALID, SPOILERS, VERDICTS, spoiled

BATCH, RATE = 128, 2e-3
SPOILED = 300  # held-out pictures of each way to fail


def train(out: Path, *, steps: int, seed: int) -> Judge:
    """The averaged weights of a run, which goes on where it was stopped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Judge().to(memory_format=torch.channels_last)
    result = fit(
        network,
        judge_loss,
        torch.zeros(BATCH),  # type: ignore[arg-type]  # the loss draws what is learned from
        out=out / f"seed-{seed}",
        steps=steps,
        save_every=500,
        batch_size=BATCH,
        learning_rate=RATE,
        ema_decay=0.99,
        mixed_precision="bf16",
        seed=seed,
    )
    network.load_state_dict(result.ema_state)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=5000, help="held-out pictures")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/judge"))
    parser.add_argument("--save", type=Path, help="a folder for the weights, such as energycomp_slots/weights/judge")
    args = parser.parse_args()
    started = time.perf_counter()
    judge = train(args.out, steps=args.steps, seed=args.seed)
    seconds = time.perf_counter() - started
    if args.save:
        save_judge(judge, args.save)
        judge = load_judge(args.save)
    table = confusion(judge, args.n, seed=args.seed)
    seed = HELD_OUT + args.seed
    caught = {
        kind: float((judge.verdicts(spoiled(kind, SPOILED, seed=seed)) == INVALID).float().mean()) for kind in SPOILERS
    }
    report = {"steps": args.steps, "batch": BATCH, "seed": args.seed, "held_out": args.n, "seconds": round(seconds)}
    report |= {"accuracy": float(table.trace() / table.sum())}
    report |= {"by_class": dict(zip(VERDICTS, (table.diagonal() / table.sum(1)).tolist(), strict=True))}
    report |= {"confusion": table.tolist(), "invalid_found": caught}
    with atomic_file(args.out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
