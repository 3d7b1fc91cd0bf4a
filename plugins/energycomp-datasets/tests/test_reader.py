"""The reader of CLEVR scenes: what it finds in renders, and what it refuses."""

import pytest
import torch

from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp_datasets.clevr.layout import render_objects
from energycomp_datasets.clevr.reader import SIZE, load_reader
from energycomp_datasets.synthetic import HELD_OUT


def test_it_reads_renders() -> None:
    images, true = render_objects(6, objects=(2, 5), seed=HELD_OUT, size=(SIZE, SIZE))
    found = load_reader().read(from_bytes(images))
    assert [len(one) for one in found] == [len(one) for one in true]
    right = []
    for one, other in zip(found, true, strict=True):
        distance, nearest = torch.cdist(other[:, :2], one[:, :2]).min(1)
        assert distance.max() < 0.02
        right.append((one[nearest, 2:] == other[:, 2:]).all(1))
    assert torch.cat(right).float().mean() > 0.9


def test_it_refuses_other_sizes() -> None:
    with pytest.raises(InputError, match=r"expected \(B, 3, 128, 128\)"):
        load_reader().read(torch.zeros(1, 3, 64, 64))
