"""Many images with an engine that is there: joblib or Hugging Face Datasets, on two processes.

python examples/many_images.py joblib FOLDER [--model clevr-places] [--count 3-5]

It prints a line per image: its path, its number of objects, and why it could not be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from energycomp.fields import parse_range
from energycomp_batch import Reader

PROCESSES = 2
BATCH = 4  # images

Rows = list[dict[str, Any]]


def with_joblib(reader: Reader, paths: Sequence[str]) -> Rows:
    """Batches of paths; joblib pickles the reader for each process, which loads the model once."""
    from joblib import Parallel, delayed

    batches = [{"image": paths[start : start + BATCH]} for start in range(0, len(paths), BATCH)]
    found = Parallel(n_jobs=PROCESSES)(delayed(reader)(batch) for batch in batches)
    return [dict(zip(batch, row, strict=True)) for batch in found for row in zip(*batch.values(), strict=True)]


def with_datasets(reader: Reader, paths: Sequence[str]) -> Rows:
    """A data set of paths; `load_dataset` gives one of WebDataset, Parquet or image folders in the same way."""
    from datasets import Dataset

    data = Dataset.from_dict({"image": list(paths)})
    found: Rows = data.map(reader, batched=True, batch_size=BATCH, num_proc=PROCESSES).to_list()
    return found


ENGINES: dict[str, Callable[[Reader, Sequence[str]], Rows]] = {
    "joblib": with_joblib,
    "datasets": with_datasets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="clevr-places")
    parser.add_argument("--count", help="number of objects: 4, or a range 3-5")
    options = parser.parse_args()
    reader = Reader(options.model, count=None if options.count is None else parse_range(options.count))
    for row in ENGINES[options.engine](reader, sorted(map(str, options.folder.rglob("*.png")))):
        print(row["image"], row["count"], row["failed"])


if __name__ == "__main__":
    main()
