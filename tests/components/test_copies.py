"""Compositions are copied, pickled and sent to other processes, and their leaves stay what they are to each other."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import during, per_sample, region
from energycomp.components import match_snr
from energycomp.denoisers import count_rows
from energycomp.sampling import Composer
from energycomp.testing import Gaussian, tiny_model


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


def saved(value: Any) -> Any:
    torch.save(value, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, pickled, saved]


def components() -> dict[str, Any]:
    model = tiny_model()
    a, b = model(0.2, 0.3), model(0.7, 0.6)
    u = Gaussian(0.0, name="u", unconditional="self", sample_shape=(1, 2, 2))
    left, right = (Gaussian(m, name=name, unconditional=u, sample_shape=(1, 2, 2)) for m, name in ((-2, "l"), (2, "r")))
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    return {
        "leaf": a,
        "composition": 2 * a - 0.5 * b,
        "product": a & b,
        "composer": Composer([a, b]),
        "mixture": left | 0.5 * left + 0.5 * right,
        "mixture in a product": (left | right) & right,
        "varying weights": region(mask) * during(until=0.4) * left & region("left half") * right,
        "one for each sample": per_sample([left & right, 2 * right]),
        "nothing": a - a,
    }


@torch.no_grad()
def eps(component: Any) -> Tensor:
    sample = torch.randn(2, *component.noised_space.sample_shape, generator=torch.Generator().manual_seed(0))
    result: Tensor = component.eps(sample, torch.tensor([100.0, 700.0]))
    return result


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("name", list(components()))
def test_a_copy_predicts_the_same(copied: Callable[[Any], Any], name: str) -> None:
    component = components()[name]
    twin = copied(component)
    assert repr(twin) == repr(component)
    assert len(twin.terms) == len(component.terms)
    assert not set(map(id, twin.terms)) & set(map(id, component.terms))
    if name != "nothing":
        assert torch.equal(eps(twin), eps(component))


@pytest.mark.parametrize("copied", COPIES)
def test_leaves_of_a_copy_are_the_same_where_they_were(copied: Callable[[Any], Any]) -> None:
    model = tiny_model()
    a, b = model(0.2, 0.3), model(0.7, 0.6)
    leaf, both, composer, u = copied([a, a & b, Composer([a, b]), model.unconditional])
    assert leaf in both.terms
    assert list((both - leaf).terms) == [*both.terms][:1] + [*both.terms][2:]
    assert not (both - composer).terms
    assert u is leaf.unconditional is both.unconditional is leaf.denoiser.unconditional
    assert list((both & leaf).terms.values()) == [-2.0, 2.0, 1.0]
    with count_rows() as spent:
        eps(both + leaf)
    assert (spent.rows, spent.trunks) == (6, 2)  # one denoiser
    fresh = copied(tiny_model()(0.1, 0.1))  # its unconditional leaf was never made
    assert fresh.unconditional is (fresh & fresh).unconditional


@pytest.mark.parametrize("copied", [*COPIES, copy.copy])
def test_the_unconditional_leaf_of_a_matched_copy_is_one(copied: Callable[[Any], Any]) -> None:
    model = tiny_model(prediction_type="flow")
    k = copied(match_snr(model(0.2, 0.3) & model(0.7, 0.6), tiny_model().denoiser.noised_space))
    assert list((3 * k & k.unconditional).terms.values()) == [-5.0, 3.0, 3.0]
    assert k.unconditional in k.terms


def test_a_copy_is_no_leaf_of_the_original() -> None:
    a = tiny_model()(0.2, 0.3)
    twin = copy.deepcopy(a)
    assert len((a + twin).terms) == 2
    assert copy.deepcopy(a - a).terms == {}


def work(dump: Callable[[Any], bytes], given: bytes) -> bytes:
    """What another process does with a leaf and a composition of it."""
    leaf, composition = pickle.loads(given)  # noqa: S301 - our own
    assert leaf in composition.terms
    return bytes(dump((composition - leaf, eps(composition))))


def test_another_process_takes_and_gives_compositions() -> None:
    """By pickle, and as joblib sends them."""
    pytest.importorskip("joblib")
    from joblib.externals.loky.backend.reduction import dumps

    model = tiny_model()
    a, b = model(0.2, 0.3), model(0.7, 0.6)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for dump in (pickle.dumps, dumps):
            answer = pool.submit(work, dump, bytes(dump((a, a & b)))).result(timeout=120)
            left, prediction = pickle.loads(answer)  # noqa: S301 - our own
            assert repr(left) == repr((a & b) - a)
            torch.testing.assert_close(prediction, eps(a & b))
