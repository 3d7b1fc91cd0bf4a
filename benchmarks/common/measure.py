"""Shared by the benchmarks: time two methods in turns, measure memory and FLOPs, write tables and charts."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.options import parser
from energycomp import Model
from energycomp.components import Condition
from energycomp.files import atomic_file
from energycomp_cli import append_line, read_lines

LOOPED, OURS = "looped", "energycomp"
COLOURS = {LOOPED: "#9aa0a6", OURS: "#d1495b"}
LIMIT_SHAPES = ((8, 256, 32), (8, 64, 16), (32, 64, 32), (8, 128, 32))  # batch, channels, height = width
Ways = Mapping[str, Callable[[], Any]]


def now() -> float:
    """Seconds: of the CPU with one thread, which other programs do not change much, else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


class OneStage(nn.Module):
    """A two-stage network as one without a shared trunk: every row runs all of it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Predictions (R, C, H, W) of R samples under R conditions."""
        features = self.inner.features(sample, timestep)
        out: Tensor = self.inner.head(features, condition, torch.arange(len(sample)))
        return out


class Timed(nn.Module):
    """A two-stage network that adds up its rows, its trunk passes and the seconds spent inside it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.inner = network
        self.reset()

    def reset(self) -> None:
        """Starts again from 0."""
        self.rows, self.trunks, self.seconds = 0, 0, 0.0

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """The trunk of the network inside."""
        self.trunks += len(sample)
        return self.spend(self.inner.features, sample, timestep)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """The head of the network inside."""
        self.rows += len(owner)
        return self.spend(self.inner.head, features, condition, owner)

    def spend(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call whose seconds count as the network's."""
        started = now()
        try:
            return call(*args, **kwargs)
        finally:
            self.seconds += now() - started


def timed(model: Model) -> tuple[Model, Timed]:
    """The model over a network that measures its own time."""
    network = Timed(model.denoiser.network)
    return attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network)), network


def looped_row(network: Any, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
    """One component as peers run it: the whole network, trunk included, for a batch under one condition."""
    batch = torch.arange(len(sample))
    return network.head(network.features(sample, timestep), condition.expand(len(sample)), batch)


def compare(ways: Ways, network: Timed, repeats: int, child: Sequence[str]) -> dict[str, Any]:
    """Rows, trunk passes, GFLOP, MB, median seconds and the share of them in the network; the ways take turns.

    Args:
        child: a command that measures the memory of the way whose name is added to it, see `measure_child`.
    """
    found: dict[str, Any] = {}
    for name, way in ways.items():
        network.reset()
        with FlopCounterMode(display=False) as flops:
            way()
        done = subprocess.run([*child, name], capture_output=True, text=True, check=True)  # noqa: S603
        found[name] = {"rows": network.rows, "trunks": network.trunks, "gflop": flops.get_total_flops() / 1e9}
        found[name]["megabytes"] = float(done.stdout.splitlines()[-1])
    clock: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            network.reset()
            started = now()
            way()
            clock[name].append((now() - started, network.seconds))
    for name, pairs in clock.items():
        found[name]["seconds"] = statistics.median(seconds for seconds, _ in pairs)
        found[name]["share"] = statistics.median(inside / seconds for seconds, inside in pairs)
    return found


def resident(*, peak: bool = False) -> int:
    """Bytes of this process in memory, or the most since its peak began; 0 where there is no /proc.

    `ru_maxrss` would include what the parent held at the fork.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def measure_child(way: Callable[[], Any]) -> None:
    """Runs one way and prints by how many MB memory rose above what was resident before."""
    before = resident()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    way()
    print((resident(peak=True) - before) / 1e6)


def convolution_limit(dtype: torch.dtype = torch.float32) -> float:
    """The best GFLOP/s that a plain 3x3 convolution over channels_last maps reaches here, over a few shapes."""
    best = 0.0
    for batch, channels, side in LIMIT_SHAPES:
        maps = torch.randn(batch, channels, side, side).to(dtype, memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3).to(dtype, memory_format=torch.channels_last)
        work = 2 * 9 * batch * channels**2 * side**2 / 1e9
        until = time.perf_counter() + 0.7
        while time.perf_counter() < until:
            started = time.perf_counter()
            torch.nn.functional.conv2d(maps, weight, padding=1)
            best = max(best, work / (time.perf_counter() - started))
    return best


def speed_options(description: str | None, **given: Any) -> argparse.ArgumentParser:
    """The options of a benchmark that compares two ways, and those that are its own."""
    shared = {"model": ("clevr-places", "registered name or folder of a two-stage model"), "seed": 0}
    shared |= {"threads": torch.get_num_threads(), "repeats": (5, "the median counts"), "out": "runs/benchmarks"}
    made = parser(description, **{**shared, **given})
    made.add_argument("--child", nargs=2, metavar=("CASE", "WAY"), help=argparse.SUPPRESS)
    return made


def run(
    script: str,
    chosen: argparse.Namespace,
    cases: Sequence[str],
    ways_of: Callable[[str], Ways],
    network: Timed,
    exact: Callable[[str, Any, Any], dict[str, Any]],
) -> tuple[list[dict[str, Any]], float]:
    """The records of all cases and the GFLOP/s of the machine; those of a run with the same options are taken up.

    Args:
        ways_of: both ways of a case, which take turns.
        exact: how a case and what both ways return agree.
    """
    if chosen.child:
        case, way = chosen.child
        measure_child(ways_of(case)[way])
        raise SystemExit
    path = (chosen.out / Path(script).stem).with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in vars(chosen).items() if name not in ("out", "child")}
    known = {record["case"]: record for record in read_lines(path) if record["settings"] == settings}
    for case in ("limit", *cases):
        if case not in known:
            print(f"{path.stem}: {case}", file=sys.stderr, flush=True)
            if case == "limit":
                found: dict[str, Any] = {"gflops": convolution_limit()}
            else:
                ways = ways_of(case)
                agreed = exact(case, ways[LOOPED](), ways[OURS]())
                command = [sys.executable, script, *sys.argv[1:], "--threads", "1", "--child", case]
                found = {**agreed, **compare(ways, network, chosen.repeats, command)}
            known[case] = {"case": case, "settings": settings, **found}
            append_line(path, known[case])
    return [known[case] for case in cases], float(known["limit"]["gflops"])


def how(chosen: argparse.Namespace, limit: float) -> str:
    """The end of a table's note: settings that all benchmarks share."""
    return (
        f"model `{chosen.model}`, seed {chosen.seed}, {chosen.threads} threads, median of {chosen.repeats} turns. "
        "MB: the peak in a process of its own, above the loaded model. The limit is the best plain "
        f"3x3 convolution in float32 here, {limit:.0f} GFLOP/s."
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A markdown table with a line under it that says how it was made."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def write(path: Path, text: str, figure: Figure | None = None) -> None:
    """The markdown, and the picture beside it where there is one; prints the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path.with_suffix(".md")) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    if figure is not None:
        FigureCanvasAgg(figure)
        with atomic_file(path.with_suffix(".png")) as temporary:
            figure.savefig(temporary, format="png", dpi=100)
    print(text)


def way_rows(records: Sequence[Mapping[str, Any]], limit: float) -> list[list[str]]:
    """Two table rows a case, under HEAD."""
    rows = []
    for record in records:
        for name in (LOOPED, OURS):
            way = record[name]
            speed = way["gflop"] / way["seconds"]
            rows.append([
                record["case"], name, f"{way['seconds']:.4g}", f"{way['rows']:,}", f"{way['trunks']:,}",
                f"{way['megabytes']:.0f}", f"{way['share']:.0%}", f"{speed:.0f} ({speed / limit:.0%})",
                "1" if name == LOOPED else f"{record[LOOPED]['seconds'] / way['seconds']:.1f}",
            ])  # fmt: skip
    return rows


HEAD = ("case", "way", "seconds", "rows", "trunk passes", "MB", "in the network", "GFLOP/s (of the limit)", "speed-up")


def bars(records: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Seconds of both ways for each case, with the speed-up above; logarithmic."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for offset, name in ((-0.2, LOOPED), (0.2, OURS)):
        seconds = [record[name]["seconds"] for record in records]
        axes.bar([i + offset for i in range(len(records))], seconds, 0.38, color=COLOURS[name], label=name)
    for i, record in enumerate(records):
        gain = record[LOOPED]["seconds"] / record[OURS]["seconds"]
        axes.annotate(f"{gain:.1f}x", (i + 0.2, record[OURS]["seconds"]), ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(records)), [record["case"] for record in records], fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("seconds")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
