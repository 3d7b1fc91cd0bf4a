"""Profile one composed prediction, and measure bfloat16 and memory layout.

python benchmarks/speed/where_time_goes.py [--components 5] [--batch 4] [--threads 2] [-o runs/benchmarks]
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from energycomp import load
from energycomp.components import predict

GROUPS = {
    "convolutions": ("mkldnn_convolution", "convolution", "thnn_conv2d", "slow_conv2d"),
    "normalisation": ("native_group_norm", "group_norm"),
    "activations, sums, products": ("silu", "add", "mul", "exp", "where", "sub", "pow", "neg", "div"),
    "linear layers": ("addmm", "linear", "mm"),
    "copies and folding": ("copy_", "cat", "index", "pixel_shuffle", "pixel_unshuffle", "upsample_nearest2d", "clone"),
}
OTHER = "the rest: Python, dispatch, allocation"


def main() -> None:
    """Writes where_time_goes.md."""
    model, threads = "clevr-places", torch.get_num_threads()
    options = parser(__doc__, model=model, components=5, batch=4, threads=threads, out="runs/benchmarks").parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.model)
    network, generator = model.denoiser.network, torch.Generator().manual_seed(0)
    composition = model.compose(torch.rand(options.components, *model.conditioner.value_shape, generator=generator))
    sample = torch.randn(options.batch, *model.denoiser.sample_shape, generator=generator)
    timestep = torch.full((options.batch,), 500.0)

    @torch.no_grad()
    def prediction() -> Tensor:
        return predict(composition, sample, timestep, prediction_type=model.denoiser.prediction_type)

    def bfloat16() -> Tensor:
        with torch.autocast(sample.device.type, torch.bfloat16):
            return prediction()

    exact = prediction()
    rows = [["as shipped: float32, channels_last", milliseconds(prediction), "1", "0"]]
    base = float(rows[0][1])

    def add(name: str, way: Callable[[], Tensor]) -> None:
        gap = float((way() - exact).abs().max())
        found = milliseconds(way)
        rows.append([name, found, f"{base / float(found):.2f}", f"{gap:.1g}"])

    shares = share_by_group(prediction)
    add("bfloat16 (`torch.autocast`)", bfloat16)
    network.to(memory_format=torch.contiguous_format)
    add("contiguous in place of channels_last", prediction)
    network.to(memory_format=torch.channels_last)
    setting = f"`{options.model}`, K = {options.components}, {options.batch} samples, {options.threads} threads"
    note = f"`python benchmarks/speed/where_time_goes.py`: one prediction, {setting}."
    text = table(["part", "share of CPU time"], [[name, f"{share:.0%}"] for name, share in shares.items()], note)
    text += "\n" + table(["variant", "ms, median", "speed-up", "largest difference"], rows, note)
    write(options.out / "where_time_goes", text)


def milliseconds(way: Callable[[], Any], repeats: int = 40) -> str:
    """The median of a call."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        way()
        seconds.append(time.perf_counter() - started)
    return f"{1e3 * statistics.median(seconds):.1f}"


def share_by_group(way: Callable[[], Any], repeats: int = 20) -> dict[str, float]:
    """Shares of the time that operators spend themselves, largest first, the rest last."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(repeats):
            way()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::").removesuffix("_")
        group = next((group for group, names in GROUPS.items() if name in (n.removesuffix("_") for n in names)), OTHER)
        spent[group] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {group: spent[group] / whole for group in sorted(spent, key=lambda group: (group == OTHER, -spent[group]))}


if __name__ == "__main__":
    main()
