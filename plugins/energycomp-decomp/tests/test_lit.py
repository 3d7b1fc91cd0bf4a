"""One lit object: factors are independent and all change the picture; folders come back; refusals."""

from typing import Any

import pytest
import torch

from energycomp.errors import InputError
from energycomp_datasets.shapes.lit import FACTORS, LitSource
from energycomp_decomp.model import lit, untrained_lit
from energycomp_decomp.networks import FactorsEncoder
from energycomp_lab.evaluation import evaluate


def test_evaluation_gives_mig_and_mcc() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = untrained_lit(parts=2, width=1, size=16)
    source = LitSource()
    examples = source.examples("synthetic", count=6, seed=0)
    report = evaluate(model, examples, source.metrics(), progress=False)
    assert {"mig", "mcc", "mse", "mse_baseline"} <= report.values.keys()
    assert 0 <= report.values["mig"] <= 1
    assert len(FACTORS) == len(examples[0].factors)


def test_options() -> None:
    wrong: dict[str, Any]
    for wrong in ({"preset": "paper"}, {"parts": 3}, {"pretrained": False, "colour": 1}):
        with pytest.raises(InputError, match="expected"):
            lit(**wrong)


def test_the_variance_of_an_unused_latent_is_bounded() -> None:
    encoder = FactorsEncoder(sample_size=16, parts=2, token_width=3, name_width=1, channels=[8, 8, 8])
    with torch.no_grad():
        encoder.out.bias.view(2, -1)[:, 2:].fill_(60.0)  # log variances: exp(57) would end a run
    log_variance = encoder.posterior(torch.zeros(4, 3, 16, 16))[1]
    assert torch.equal(log_variance, torch.full_like(log_variance, 5.0))
    (log_variance.exp() - log_variance).sum().backward()
    assert float(encoder.out.bias.grad.view(2, -1)[:, 2:].min()) > 0  # descent lowers them
