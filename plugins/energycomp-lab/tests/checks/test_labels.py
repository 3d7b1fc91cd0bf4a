"""What is said of labels, by the standard errors by which wrong ones are worse."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from energycomp_lab.checks.adoption import labels


@pytest.mark.parametrize(("certainty", "verdict"), [(4.0, "ok"), (2.7, "unsure"), (1.0, "wrong"), (-5.0, "wrong")])
def test_few_samples_accuse_no_labels(certainty: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "table", lambda case: SimpleNamespace(certainty=certainty))
    found = labels.check_labels(cast(Any, None))
    assert found is not None
    assert found.verdict == verdict
