"""The baselines of the table on attributes of faces, and the fit of beta."""

import pytest
import torch
from torch.nn import functional

from benchmarks.baselines.faces import LabelSets, label_sets, set_loss
from benchmarks.inference.fit_beta import fitted, found_members, set_chance
from energycomp.components import combine, log_snr, predict
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_faces.model import default
from energycomp_lab.training import Step
from energycomp_lab.training.loss import make_trunk
from energycomp_solvers.shared import unravel

NAMES = ("smiling", "beard", "suit")


def test_a_set_of_labels_is_one_row() -> None:
    sets = LabelSets(NAMES, ("smiling", "suit"))
    values = sets.enumerate_support()
    assert sets.describe(values[1]) == {"smiling": False, "suit": True}
    condition = sets(torch.cat([values, sets.parse()]))
    assert condition.null.tolist() == [False] * 4 + [True]
    assert condition.rows[:, 0].sum(1).tolist() == [2, 2, 2, 2, 0]
    assert torch.equal(sets(sets.parse(smiling=False, suit=True)).rows, condition.rows[1:2])
    with pytest.raises(InputError, match="'hat'"):
        sets.parse(hat=True)


@torch.no_grad()
def test_the_classifier_is_trained_on_the_likelihood_of_each_label(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = label_sets(default(attributes=NAMES))
    for parameter in model.denoiser.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    monkeypatch.setattr("benchmarks.baselines.faces.augment", lambda image, _: (image, None))
    monkeypatch.setattr(
        "benchmarks.baselines.faces.subsets", lambda values, _: (values[0, :2], torch.zeros(2, dtype=torch.long))
    )
    batch = {"image": torch.randn(1, 3, 64, 64), "values": torch.tensor([[1, 2, 5]])}

    def loss(weight: float) -> float:
        return float(set_loss(model, weight, beta=1e-3)(model.denoiser.network, batch, Step(0, 1, seeded(0))))

    noisy, _, _ = make_trunk(model.denoiser, batch["image"], None, 0.5, seeded(0))
    snr = torch.exp(log_snr(model.denoiser.alphas_cumprod, noisy.timestep)).clamp(max=4.0)

    def error(value: list[int]) -> torch.Tensor:
        leaf = model.leaf(torch.tensor([value]))
        found = predict(combine([leaf], "product"), noisy.sample, noisy.timestep, prediction_type="sample")
        return (batch["image"] - found).square().flatten(1).sum(1)

    gaps = torch.stack([error(flipped) - error([1, 0, -1]) for flipped in ([0, 0, -1], [1, 1, -1])]) * snr
    with count_rows() as spent:
        two = loss(2.0)
    assert spent.rows == 3
    assert two - loss(1.0) == pytest.approx(float(functional.softplus(-1e-3 * gaps).mean()), rel=1e-3)


def draws_of(errors: int, generator: torch.Generator) -> tuple[torch.Tensor, int]:
    """Errors of so many answers, and the answer that a posterior with beta 3 draws."""
    found = 2 * torch.rand(errors, generator=generator, dtype=torch.float64)
    return found, int(torch.multinomial((-3.0 * found).softmax(0), 1, generator=generator))


def test_the_fitted_beta_is_the_one_that_drew_the_answers() -> None:
    generator, slots = seeded(0), [[0, 1], [2, 3], [4, 5]]
    tables = [(errors, slots, unravel(drawn, slots)) for errors, drawn in (draws_of(8, generator) for _ in range(1000))]
    assert fitted(tables) == pytest.approx(3.0, rel=0.15)


def test_the_fitted_beta_of_sets_is_the_one_that_drew_them_and_is_calibrated() -> None:
    tables, generator = [], seeded(0)
    answers = [torch.combinations(torch.arange(4), count) for count in (1, 2)]
    listed = [row for chosen in answers for row in chosen.tolist()]
    for _ in range(1000):
        errors, drawn = draws_of(10, generator)
        tables.append((list(zip(answers, errors.split([4, 6]), strict=True)), listed[drawn], 4))
    assert fitted(tables, set_chance) == pytest.approx(3.0, rel=0.15)
    members = [found_members(*one, beta=3.0) for one in tables]
    sure, right = (torch.cat(part).double().mean() for part in zip(*members, strict=True))
    assert float(sure) == pytest.approx(float(right), abs=0.05)
