"""Measure milliseconds per row of the network heads of `clevr-places` by the number of rows per call.

python benchmarks/speed/row_limit.py [--threads 2]
"""

from __future__ import annotations

import json
import time

import torch

from benchmarks.common.options import parser
from energycomp import load
from energycomp.components import Condition


def main() -> None:
    """Prints milliseconds a row for calls of 4 to 256 rows."""
    options = parser(__doc__, model="clevr-places", threads=torch.get_num_threads(), rows=512).parse_args()
    torch.set_num_threads(options.threads)
    denoiser = load(options.model).denoiser
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(8, *denoiser.sample_shape, generator=generator)
    condition = Condition(torch.rand(options.rows, *denoiser.token_shape, generator=generator))
    owner = torch.arange(options.rows) % 8
    with torch.no_grad():
        features = denoiser.network.features(samples, torch.full((8,), 500.0))
        for limit in (4, 8, 16, 32, 64, 128, 256):
            best = float("inf")
            for _ in range(3):
                started = time.perf_counter()
                for start in range(0, options.rows, limit):
                    part = slice(start, start + limit)
                    denoiser.network.head(features, condition[part], owner[part])
                best = min(best, time.perf_counter() - started)
            print(json.dumps({"rows_a_call": limit, "ms_a_row": round(1e3 * best / options.rows, 3)}))


if __name__ == "__main__":
    main()
