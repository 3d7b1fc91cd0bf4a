"""The one ledger of evaluations: what a network, or a component without one, is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

import attrs


@attrs.define
class RowCount:
    """Network work: `rows` under a condition, and `trunks`, the passes of a two-stage trunk that they shared.

    A component without a network counts one row per sample.
    """

    rows: int = 0
    trunks: int = 0


_counting = Lock()  # a counter may be shared by the threads of `run_together`
_counters: ContextVar[tuple[RowCount, ...]] = ContextVar("counters", default=())


@contextmanager
def count_rows(counter: RowCount | None = None) -> Iterator[RowCount]:
    """Counts the evaluations that run inside the block, by a new counter unless one is given.

    >>> import torch
    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> sample, timestep = torch.zeros(2, *model.denoiser.sample_shape), torch.tensor([10.0, 20.0])
    >>> with count_rows() as spent:
    ...     _ = (model(0.1, 0.2) & model(0.3, 0.4)).eps(sample, timestep)
    >>> spent  # two samples times (two components and u), on one trunk per sample
    RowCount(rows=6, trunks=2)
    """
    counter = RowCount() if counter is None else counter
    token = _counters.set((*_counters.get(), counter))
    try:
        yield counter
    finally:
        _counters.reset(token)


def count(*, rows: int = 0, trunks: int = 0) -> None:
    """Counts evaluations in every block that is open."""
    with _counting:
        for counter in _counters.get():
            counter.rows += rows
            counter.trunks += trunks


@contextmanager
def count_component(samples: int) -> Iterator[None]:
    """Counts a component that is asked inside the block: the rows of its network, or one per sample without one."""
    with count_rows() as spent:
        yield
    if not spent.rows:
        count(rows=samples)
