"""The quadratic form is the denoising error: against compositions that are run one by one."""

from itertools import combinations
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from energycomp.components import Composition, Condition, combine, error_scale, log_snr, predict, target
from energycomp.components.prediction import PREDICTION_TYPES
from energycomp.components.rules import Rule
from energycomp.denoisers import Conditional, Denoiser, count_rows
from energycomp.errors import InputError
from energycomp.inference import NoiseBank, QuadraticForm, draw_bank, quadratic_form, residual_errors
from energycomp.testing import tiny_model

CASES = [(rule, kind) for rule in get_args(Rule) for kind in PREDICTION_TYPES if rule != "sum" or kind == "epsilon"]
M, S = 4, 3
PLACES = torch.rand(M, 2, generator=torch.Generator().manual_seed(0))


def setting(rule: str, kind: str) -> tuple[Denoiser, Tensor, NoiseBank]:
    denoiser = tiny_model(rule=rule, prediction_type=kind).denoiser
    generator = torch.Generator().manual_seed(1)
    observation = torch.rand(1, 3, 16, 16, generator=generator) * 2 - 1
    bank = draw_bank(S, (3, 16, 16), denoiser.alphas_cumprod, timesteps=(300, 900), gamma=4.0, generator=generator)
    return denoiser, observation, bank


def brute_force(denoiser: Denoiser, observation: Tensor, bank: NoiseBank, composition: Composition) -> Tensor:
    """lambda |eps - eps_hat|^2 by the definition, one draw at a time."""
    errors = []
    noised = bank.noised(observation, denoiser.alphas_cumprod)
    for k in range(len(bank)):
        eps = predict(composition, noised[k : k + 1], bank.timestep[k : k + 1])
        errors.append(bank.weight[k].double() * (bank.noise[k].double() - eps[0].double()).square().sum())
    return torch.stack(errors)


@pytest.mark.parametrize(("rule", "kind"), CASES)
@torch.no_grad()
def test_every_subset_against_brute_force(rule: Any, kind: str) -> None:
    """And, under the product rule, weights that are any numbers."""
    denoiser, observation, bank = setting(rule, kind)
    with count_rows() as spent:
        form = quadratic_form(denoiser, observation, bank, Condition(PLACES[:, None]))
    assert (spent.rows, spent.trunks) == (S * (M + (rule == "product")), S)
    leaves = [Conditional(denoiser, Condition(place.view(1, 1, 2))) for place in PLACES]
    u = Composition.of(leaves[0].unconditional)
    cases = [([0.0] * M, u)] if rule == "product" else []
    for count in range(1, M + 1):
        for chosen in combinations(range(M), count):
            share = 1.0 / count if rule == "mean" else 1.0
            weights = [share * (k in chosen) for k in range(M)]
            cases.append((weights, combine([leaves[k] for k in chosen], rule)))
    if rule == "product":
        any_numbers = ([0.3, -0.2, 1.5, 0.0], [7.5, 0.0, 0.0, 0.0])
        cases += [(ws, u + sum(w * (leaf - u) for w, leaf in zip(ws, leaves, strict=True))) for ws in any_numbers]
    for weights, composition in cases:
        expected = brute_force(denoiser, observation, bank, composition)
        torch.testing.assert_close(form.weighted_errors(torch.tensor([weights]))[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow"])
def test_errors_of_all_types_are_errors_of_eps(kind: Any) -> None:
    denoiser, observation, bank = setting("product", "epsilon")
    alphas = denoiser.alphas_cumprod
    off = 0.1 * torch.randn(S, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    noised, snr = bank.noised(observation, alphas), log_snr(alphas, bank.timestep)[:, None, None, None]
    a, s = torch.sigmoid(snr).sqrt(), torch.sigmoid(-snr).sqrt()
    eps = (bank.noise + off).double()
    x0 = (noised - s * eps) / a
    prediction = {"epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0, "flow": eps - x0}[kind]
    wanted = target(observation, bank.noise, alphas, bank.timestep, kind)
    got = (prediction - wanted).flatten(1).square().sum(1) * error_scale(alphas, bank.timestep, kind)
    torch.testing.assert_close(got, off.double().flatten(1).square().sum(1), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_residual_errors_of_many_candidates() -> None:
    denoiser, observation, bank = setting("mean", "sample")
    predictions = torch.rand(2, S, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    snr = torch.exp(log_snr(denoiser.alphas_cumprod, bank.timestep))
    expected = bank.weight * snr * (predictions - observation).square().sum((2, 3, 4))
    torch.testing.assert_close(residual_errors(denoiser, observation, bank, predictions).to(expected), expected)


def random_form(atoms: int, seed: int = 0) -> QuadraticForm:
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(S, 20, generator=torch.Generator().manual_seed(9))
    return QuadraticForm.of(torch.randn(S, atoms, 20, generator=generator), wanted)


def direct(form: QuadraticForm, weights: Tensor) -> Tensor:
    left = form.target.double()[None] - torch.einsum("nm,smp->nsp", weights.double(), form.atoms.double())
    return left.square().sum(2)


@pytest.mark.parametrize("atoms", [1, 5, 40])
def test_form_against_the_residual(atoms: int) -> None:
    form = random_form(atoms)
    weights = torch.randn(6, atoms, generator=torch.Generator().manual_seed(4))
    weights[0] = 0
    torch.testing.assert_close(form.weighted_errors(weights), direct(form, weights), rtol=1e-10, atol=1e-10)
    assert form.weighted_errors(weights).dtype == torch.float64
    assert torch.equal(form.weighted_errors(weights)[0], form.c)


def test_columns_are_those_of_the_gram_matrix() -> None:
    form = random_form(40)
    gram = torch.einsum("smp,snp->smn", form.atoms.double(), form.atoms.double())
    torch.testing.assert_close(form.gram(), gram)
    torch.testing.assert_close(form.column(7), gram[:, :, 7])
    torch.testing.assert_close(form.gram([3, 0, 12]), gram[:, [3, 0, 12]][:, :, [3, 0, 12]])
    torch.testing.assert_close(form.diagonal, gram.diagonal(dim1=1, dim2=2))
    assert form.gram([]).shape == (S, 0, 0)
    assert form.column(7) is form.column(7)
    assert (len(form), form.draws, form.b.shape, form.c.shape) == (40, S, (S, 40), (S,))


@pytest.mark.parametrize("with_atoms", [True, False])
def test_errors_of_subsets_are_those_of_their_weights(with_atoms: bool) -> None:
    form = random_form(6)
    form = form if with_atoms else form.without_atoms()
    for chosen in ([], [3], [4, 1], [0, 2, 5]):
        weights = torch.zeros(7, 6, dtype=torch.float64)
        weights[:, chosen] = 0.7
        weights[:6] += 0.7 * torch.eye(6)
        expected = form.weighted_errors(weights)
        torch.testing.assert_close(form.errors(chosen, 0.7), expected[6])
        torch.testing.assert_close(form.errors_with_each(chosen, 0.7), expected[:6].T)
    pairs = torch.tensor(list(combinations(range(6), 2)))
    each = torch.stack([form.errors(pair, 0.3) for pair in pairs.tolist()], dim=1)
    torch.testing.assert_close(form.errors_of_each(pairs, 0.3), each)
    assert torch.equal(form.errors_of_each(torch.zeros(1, 0, dtype=torch.long))[:, 0], form.c)
    twice = torch.tensor([[1, 1]])
    doubled = torch.zeros(1, 6).index_fill(1, torch.tensor([1]), 0.6)
    torch.testing.assert_close(form.errors_of_each(twice, 0.3), form.weighted_errors(doubled).T)


def test_mean_take_and_cat() -> None:
    form = random_form(5)
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(4))
    mean = form.mean()
    assert (mean.draws, len(mean)) == (1, 5)
    torch.testing.assert_close(mean.weighted_errors(weights)[:, 0], form.weighted_errors(weights).mean(1))
    for one in (form, form.without_atoms()):
        part = one.take([4, 0])
        torch.testing.assert_close(part.errors([0, 1]), form.errors([4, 0]))
        both = one.cat(one.take(range(5)))
        assert both.draws == 2 * S
        torch.testing.assert_close(both.weighted_errors(weights), form.weighted_errors(weights).repeat(1, 2))
    mixed = QuadraticForm.empty(5).cat(form)
    with pytest.raises(InputError, match="without atoms"):
        _ = mixed.atoms
    torch.testing.assert_close(mixed.weighted_errors(weights), form.weighted_errors(weights))
    with pytest.raises(InputError, match="without atoms"):
        form.append(mean)


@pytest.mark.parametrize("with_atoms", [True, False])
def test_gradients_of_weighted_errors_reach_weights_of_0(with_atoms: bool) -> None:
    form = random_form(4)
    form = form if with_atoms else form.mean()
    weights = torch.tensor([[0.0, 0.5, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(form.weighted_errors(weights).mean(), weights)
    mean = form.mean()
    expected = 2 * (mean.gram()[0] @ weights[0] - mean.b[0])
    torch.testing.assert_close(slope[0], expected.detach())


def test_append_is_the_form_over_both() -> None:
    first, second = random_form(3), random_form(2, seed=5)
    first.column(1)  # a column that is known before must be completed
    both = first.append(second)
    whole = QuadraticForm.of(torch.cat([first.atoms, second.atoms], 1), first.target)
    for name in ("atoms", "b", "c", "diagonal"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))
    torch.testing.assert_close(both.gram(), whole.gram())
    torch.testing.assert_close(both.column(1), whole.column(1))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="one noise bank"):
        random_form(3).append(QuadraticForm.of(torch.zeros(1, 2, 20), torch.zeros(1, 20)))
    with pytest.raises(InputError, match=r"expected \(S, M\), \(S,\) and"):
        QuadraticForm(torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.zeros(2))
    with pytest.raises(InputError, match=r"expected \(S, M, P\)"):
        QuadraticForm.of(torch.zeros(2, 3, 4), torch.zeros(2, 5))


@pytest.mark.parametrize("rule", ["product", "mean", "sum"])
@torch.no_grad()
def test_a_form_over_no_atoms(rule: str) -> None:
    denoiser, observation, bank = setting(rule, "epsilon")
    form = quadratic_form(denoiser, observation, bank, Condition(PLACES[:0, None]))
    assert (len(form), form.b.shape) == (0, (S, 0))
    assert torch.equal(form.weighted_errors(torch.zeros(1, 0))[0], form.c)
