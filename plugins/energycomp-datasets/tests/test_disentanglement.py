"""MIG and MCC against numpy's histograms, scipy's correlations, all matchings and tables worked out by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch import Tensor

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_datasets.shapes.disentanglement import (
    MeanCorrelation,
    MutualInformationGap,
    entropies,
    information_gaps,
    matched_correlations,
    mutual_information,
)


def uniform(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, width, generator=seeded(seed))


def gaussian(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=seeded(seed))


def turned(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s], [s, c]])


def test_information_of_a_table_and_of_few_values() -> None:
    """Of counts [[3, 1], [1, 3]]: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    z = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[:, None]
    v = torch.tensor([5, 5, 5, 9, 5, 9, 9, 9])[:, None]
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert mutual_information(z, v).item() == pytest.approx(expected, rel=1e-12)
    assert entropies(v).item() == pytest.approx(math.log(2), rel=1e-12)
    assert mutual_information(z, torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])[:, None]).item() == 0
    # Categories 0, 1 and 1000: bins of equal width would take 0 and 1 for one.
    v = torch.tensor([0.0, 1.0, 1000.0]).repeat(10)[:, None]
    assert entropies(v).item() == pytest.approx(math.log(3))
    assert entropies(v, bins=2).item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2))


@pytest.mark.parametrize("bins", [5, 20])
def test_information_against_numpy(bins: int) -> None:
    z, v = gaussian(300, 3), uniform(300, 2)
    v[:, 0] += z[:, 1]
    found = mutual_information(z, v, bins=bins)
    for j in range(3):
        for k in range(2):
            joint = np.histogram2d(z[:, j].double().numpy(), v[:, k].double().numpy(), bins=bins)[0] / 300
            alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
            seen = joint > 0
            expected = (joint[seen] * np.log(joint[seen] / alone[seen])).sum()
            assert found[j, k].item() == pytest.approx(expected, rel=1e-9)


def test_what_latents_know_is_counted_once() -> None:
    v = uniform(4000, 3)
    gap, correlation = information_gaps(-v.flip(1), v), matched_correlations(-v.flip(1), v)
    assert float(gap.min()) > 0.97
    assert float(gap.max()) < 1  # what independent columns tell by chance
    assert correlation.tolist() == pytest.approx([1, 1, 1], abs=1e-9)
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(3), torch.arange(2))
    assert information_gaps(grid.float(), grid).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    v = uniform(500, 2)
    assert information_gaps(v[:, [0, 0, 1]], v).tolist() == pytest.approx([0, 0.8], abs=0.2)
    assert information_gaps(v[:, [0, 0, 1]], v)[0] == 0
    v = uniform(50, 1)
    z = torch.cat([torch.full((50, 1), 0.1), v], 1)
    assert matched_correlations(z, v).tolist() == pytest.approx([1])
    assert matched_correlations(z[:, :1], v).tolist() == [0]
    assert mutual_information(z, v)[0].item() == pytest.approx(0, abs=1e-12)


def test_mixed_latents_score_less() -> None:
    v = gaussian(4000, 2)
    gaps = [float(information_gaps(v @ turned(degrees), v).mean()) for degrees in (0, 15, 30, 45)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.95
    assert gaps[-1] < 0.05
    for degrees in (15, 45):  # of unit Gaussians, the correlation is the cosine
        expected = math.cos(math.radians(degrees))
        assert matched_correlations(v @ turned(degrees), v).tolist() == pytest.approx([expected] * 2, abs=0.02)


@pytest.mark.parametrize(("width", "count"), [(3, 3), (4, 2), (2, 3)])
def test_correlations_against_all_matchings(width: int, count: int) -> None:
    v = gaussian(50, count, 1)
    z = (gaussian(50, width) + v[:, :1]).exp().round(decimals=1)  # with ties
    pairs = np.array([[abs(pearsonr(z[:, j], v[:, k])[0]) for k in range(count)] for j in range(width)])
    wide = pairs if width >= count else pairs.T
    best = max(
        sum(wide[j, k] for k, j in enumerate(chosen)) for chosen in permutations(range(len(wide)), min(width, count))
    )
    found = matched_correlations(z, v)
    assert float(found.sum()) == pytest.approx(best, rel=1e-6)
    assert int((found == 0).sum()) == max(0, count - width)


def test_metrics_take_batches() -> None:
    v = uniform(60, 2)
    z = (v @ turned(20))[:, None].expand(-1, 2, -1)
    for metric, expected in (
        (MutualInformationGap(), information_gaps(z, v)),
        (MeanCorrelation(), matched_correlations(z, v)),
    ):
        for _ in range(2):
            for part in range(0, 60, 25):
                metric.update(z[part : part + 25], v[part : part + 25])
            assert metric.compute().item() == pytest.approx(expected.mean().item(), rel=1e-12)
            metric.reset()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_bad_input() -> None:
    v = uniform(10, 2)
    cases = [
        (lambda: information_gaps(v, v[:5]), r"expected \(B, D\) and \(B, F\)"),
        (lambda: information_gaps(v[:, :1], v), "expected two dimensions or more"),
        (lambda: information_gaps(v, torch.ones(10, 1)), "got factor 0 with one value only"),
        (lambda: matched_correlations(v, torch.stack([v[:, 0], torch.ones(10)], 1)), "got factor 1 with one value"),
        (lambda: matched_correlations(v / 0, v), "not finite"),
        (lambda: mutual_information(v, v, bins=1), "got 1 bins"),
        (lambda: mutual_information(v[:0], v[:0]), "expected none empty"),
        (lambda: MeanCorrelation().compute(), "got no images"),
        (lambda: MutualInformationGap().update(v, v[:3]), "expected"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
