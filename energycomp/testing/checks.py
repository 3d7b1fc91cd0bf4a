"""Conformance checks that any plugin can run in a few lines, and models whose answers are known in closed form.

Every check raises `ConformanceError`, an AssertionError, at the first thing that is not as it should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.distributions import transform_to

from energycomp.components.component import Composition, HasEnergy
from energycomp.components.conditioning import Conditioner, is_finite, weights_of
from energycomp.denoisers.denoiser import signal_noise
from energycomp.denoisers.evaluator import count_rows
from energycomp.errors import EnergycompError, InputError
from energycomp.evaluation.scene_metrics import THRESHOLD, match
from energycomp.inference.infer import Solution, Solver, infer
from energycomp.inference.problem import Needs, Problem, make_problem
from energycomp.models.model import Model
from energycomp.sampling.composer import Composer
from energycomp.testing.models import (
    Gaussian,
    attributes_model,
    bumps_model,
    cosine_schedule,
    labels_model,
    planted,
    stripes_model,
    tiny_model,
)

__all__ = [
    "ConformanceError",
    "Gaussian",
    "attributes_model",
    "bumps_model",
    "check_component",
    "check_conditioner",
    "check_encoder",
    "check_solver",
    "cosine_schedule",
    "labels_model",
    "planted",
    "stripes_model",
    "tiny_model",
]


class ConformanceError(EnergycompError, AssertionError):
    """A plugin's object does not do what its protocol promises."""


def expect(condition: bool, got: str, expected: str, hint: str) -> None:
    """Raises ConformanceError unless the condition holds."""
    if not condition:
        raise ConformanceError(f"got {got}; expected {expected}; {hint}")


def check_component(component: Any, *, tolerance: float = 1e-4) -> None:
    """Checks an energy component, leaf or composition on random samples.

    What is checked: `alphas_cumprod`, `sample_shape` and `space`; that eps has the sample's shape, is finite, the same
    when it is asked for again and for a batch as one by one, and draws no global random numbers; and that the gradient
    of an energy is eps / sigma.

    Args:
        tolerance: relative, of batched against looped and of the gradient.

    Raises:
        ConformanceError: the first thing that is not so.

    >>> check_component(Gaussian(0.3, variance=0.5))
    """
    name = repr(component)
    for attribute in ("alphas_cumprod", "sample_shape", "space"):
        expect(hasattr(component, attribute) or isinstance(component, Composition), f"{name} without {attribute}",
                "the attributes of `EnergyComponent`", "add it")  # fmt: skip
    composer = component if isinstance(component, Composer) else Composer(component)
    schedule, shape = composer.alphas_cumprod, tuple(composer.sample_shape)
    falling = schedule.ndim == 1 and bool((schedule.diff() <= 0).all())
    expect(falling and bool(((schedule > 0) & (schedule < 1)).all()), f"alphas_cumprod {tuple(schedule.shape)}",
            "(T,), falling, inside (0, 1)", "take it from a diffusers scheduler")  # fmt: skip
    expect(len(shape) == 3 and isinstance(composer.space, str), f"sample_shape {shape} and space {composer.space!r}",
            "(C, H, W) and a string", "say which space the samples are in")  # fmt: skip
    eps = component.eps if hasattr(component, "eps") else composer.eps
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(3, *shape, generator=generator).to(schedule.device)
    timestep = torch.tensor([0.1, 0.45, 0.9], device=schedule.device) * (len(schedule) - 1)
    before, state = sample.clone(), torch.get_rng_state()
    batched = eps(sample, timestep)
    expect(batched.shape == sample.shape, f"eps of shape {tuple(batched.shape)}", str(tuple(sample.shape)),
            "predict one noise a sample")  # fmt: skip
    expect(bool(torch.isfinite(batched).all()), "eps with NaN or infinity", "finite numbers", "check both ends of t")
    expect(torch.equal(sample, before), "a sample that was changed in place", "inputs left alone", "copy first")
    looped = torch.cat([eps(sample[i : i + 1], timestep[i : i + 1]) for i in range(3)])
    expect(torch.equal(state, torch.get_rng_state()), "a change of the global random state", "none", "take no numbers")
    _close(batched, eps(sample, timestep), tolerance, "eps that differs when asked again", "the same, a function")
    _close(batched, looped, tolerance, "eps of a batch", "that of its samples one by one")
    if isinstance(component, HasEnergy) and all(isinstance(leaf, HasEnergy) for leaf in composer.composition.terms):
        free = sample.clone().requires_grad_()
        energy = component.energy(free, timestep)
        expect(energy.shape == (3,), f"energies of shape {tuple(energy.shape)}", "(3,), one a sample", "sum the rest")
        (gradient,) = torch.autograd.grad(energy.sum(), free)
        _, sigma = signal_noise(schedule, timestep, sample.dtype)
        _close(gradient * sigma, batched, tolerance, "sigma times the gradient of the energy", "eps")


def _close(got: Tensor, expected: Tensor, tolerance: float, what: str, other: str) -> None:
    scale = float(expected.detach().abs().max()) + 1e-12
    off = float((got - expected).detach().abs().max()) / scale
    expect(off <= tolerance, f"{what}, off by {off:.2g} of its size", f"{other}, to {tolerance:g}", "compare both")


def check_conditioner(
    conditioner: Conditioner, *, values: Tensor | None = None, factory: Callable[..., Any] | None = None
) -> None:
    """Checks a conditioner on legal values.

    What is checked: shapes; that `describe` gives JSON which `parse` takes back (a mapping as keywords, a list as
    positions, anything else as one argument); that `config` rebuilds it, weights of its own aside; that no values give
    no rows; that gradients reach continuous values; that listed values lie in the support; and that bad input raises
    `InputError`.

    Args:
        values: some legal values (R, *V); listed or drawn from the support when left out.
        factory: what is registered and takes the config; the class when left out.

    Raises:
        ConformanceError: the first thing that is not so.

    >>> from energycomp.testing import Labels, UnitSquare
    >>> check_conditioner(UnitSquare())
    >>> check_conditioner(Labels(3))
    """
    name, shape, tokens = type(conditioner).__name__, tuple(conditioner.value_shape), tuple(conditioner.token_shape)
    values = legal_values(conditioner) if values is None else values
    expect(tuple(values.shape[1:]) == shape, f"values {tuple(values.shape)}", f"(R, *{shape})", "see value_shape")
    expect(bool(conditioner.support.check(values).all()), f"values of {name} outside its support", "legal ones",
            "make support and enumerate_support agree")  # fmt: skip
    for part in (values, values[:0]):
        condition = conditioner(part)
        legal = len(condition) == len(part) and condition.shape == tokens
        expect(legal, f"{condition!r} for {len(part)} values", f"that many rows of {tokens}", "no value, no row")
    expect(not bool(conditioner(values).null.any()), "null rows for values", "none", "u is the denoiser's")
    for value in values[:8]:
        described = conditioner.describe(value)
        again = _parsed(conditioner, json.loads(json.dumps(described)))
        same = again.shape == (1, *shape) and torch.allclose(again[0].double(), value.double(), atol=1e-3)
        expect(same, f"{again} from what describes {value}", "the value, (1, *V)", "let parse take what describe gives")
    rebuilt = (factory or type(conditioner))(**json.loads(json.dumps(conditioner.config())))
    own, other = weights_of(conditioner), weights_of(rebuilt)
    expect((own is None) == (other is None), f"weights of {name} or of {name}(**config()) alone", "of both or neither",
            "say it in the config")  # fmt: skip
    if own is not None and other is not None:
        shapes, others = ({key: weight.shape for key, weight in m.state_dict().items()} for m in (own, other))
        expect(shapes == others, f"other weights in {name}(**config())", "the same names and shapes",
                "complete its config")  # fmt: skip
        other.load_state_dict(own.state_dict())
    expect(torch.equal(rebuilt(values).rows, conditioner(values).rows), f"other rows from {name}(**config())",
            "the same", "return all arguments of the constructor")  # fmt: skip
    if not conditioner.support.is_discrete:
        free = values.clone().requires_grad_()
        rows = conditioner(free).rows
        expect(rows.requires_grad, f"rows of {name} that do not depend on the values", "a gradient", "do not detach")
        (gradient,) = torch.autograd.grad(rows.square().sum(), free)
        expect(bool(torch.isfinite(gradient).all() and gradient.any()), "a gradient of 0 or NaN", "a finite one",
                "use differentiable operations")  # fmt: skip
    for attempt in ((object(),), (values.new_zeros(3, *shape, 7),)):
        refuses(f"{name}.parse{attempt}", conditioner.parse, *attempt)
    refuses(f"{name}.parse(no_such_argument=1)", conditioner.parse, no_such_argument=1)
    refuses(f"{name} of values with one dimension more", conditioner, values[..., None])


@torch.no_grad()
def check_encoder(encoder: nn.Module, *, sample_shape: tuple[int, int, int] | None = None) -> None:
    """Checks an encoder on random samples.

    What is checked, in evaluation mode: latents have the shape (B, K, D), are finite, the same when asked for again and
    for a batch as one by one, and draw no global random numbers; and `config` holds the constructor's arguments.

    Args:
        sample_shape: (C, H, W) that it takes; from its config's `sample_channels` and `sample_size` when left out.

    Raises:
        ConformanceError: the first thing that is not so.

    >>> from energycomp.testing import StripesEncoder
    >>> check_encoder(StripesEncoder())
    """
    name, given = type(encoder).__name__, getattr(encoder, "config", None)
    expect(given is not None, f"a {name} without config", "the arguments it was made with", "keep them")
    config: dict[str, Any] = dict(given or {})
    if sample_shape is None:
        known = {"sample_channels", "sample_size"} <= config.keys()
        expect(known, f"a config of {name} without sample_channels and sample_size", "both", "pass sample_shape=")
        sample_shape = (config["sample_channels"], config["sample_size"], config["sample_size"])
    mode, state = encoder.training, torch.get_rng_state()
    samples = torch.randn(3, *sample_shape, generator=torch.Generator().manual_seed(0))
    try:
        encoder.eval()
        latents = encoder(samples)
        looped = torch.cat([encoder(samples[i : i + 1]) for i in range(3)])
    finally:
        encoder.train(mode)
    shaped = isinstance(latents, Tensor) and latents.ndim == 3 and len(latents) == 3 and latents.numel() > 0
    expect(shaped, f"latents {tuple(getattr(latents, 'shape', ()))} of 3 samples", "(3, K, D)", "one row a part")
    expect(bool(torch.isfinite(latents).all()), "latents with NaN or infinity", "finite numbers", "check the layers")
    expect(torch.equal(state, torch.get_rng_state()), "a change of the global random state", "none", "take no numbers")
    _close(latents, looped, 1e-3, "latents of a batch", "those of its samples one by one")


def legal_values(conditioner: Conditioner) -> Tensor:
    """All values of a finite support, or 8 of a continuous one, (R, *V)."""
    if is_finite(conditioner):
        listed: Tensor = conditioner.enumerate_support()  # type: ignore[attr-defined]
        return listed
    free = torch.randn(8, *conditioner.value_shape, generator=torch.Generator().manual_seed(0))
    drawn: Tensor = transform_to(conditioner.support)(free)
    return drawn


def _parsed(conditioner: Conditioner, described: Any) -> Tensor:
    if isinstance(described, Mapping):
        return conditioner.parse(**described)
    return conditioner.parse(*described) if isinstance(described, list) else conditioner.parse(described)


def refuses(what: str, function: Any, *args: Any, **kwargs: Any) -> None:
    """Raises ConformanceError unless the call raises InputError."""
    try:
        result = function(*args, **kwargs)
    except InputError:
        return
    except Exception as error:
        raise ConformanceError(f"got {type(error).__name__} from {what}; expected InputError; check first") from error
    raise ConformanceError(f"got {result!r} from {what}; expected InputError; refuse what has no meaning")


def check_solver(solver: Solver, *, tolerance: float = THRESHOLD) -> None:
    """Checks a solver on pictures whose exact answer is known: bumps at real-valued places, and finite labels.

    What is checked, on the problems that fit `needs`: it finds the planted values, with the count known and unknown,
    the empty picture included; keeps to the range of counts, the candidates, the support and distinct values; repeats
    itself with a generator and leaves the global random state alone; reports the rows that ran, and an error, standard
    error, runner-up and p-value that agree; and that a problem which does not fit is refused before any row runs.

    Args:
        tolerance: mean squared difference within which a real-valued answer is the planted one.

    Raises:
        ConformanceError: the first thing that is not so.

    >>> class Nothing:
    ...     needs = "finite"
    ...     def solve(self, problem, *, generator=None):
    ...         none = torch.zeros(0, dtype=torch.long)
    ...         error = problem.errors(none[None], problem.draw(8, generator)).mean().item()
    ...         return Solution(none, 0, error, 0.0, problem.rows)
    >>> check_solver(Nothing())
    Traceback (most recent call last):
    energycomp.testing.checks.ConformanceError: got [] from Nothing for a labels picture of [5, 2], count (0, 3); ...
    """
    name = type(solver).__name__
    needs = getattr(solver, "needs", "missing")
    expect(needs in (*get_args(Needs), None), f"needs = {needs!r} of {name}",
            f"one of {', '.join(map(repr, get_args(Needs)))} or None", "say what slots the solver takes")  # fmt: skip
    bumps, places = bumps_model(), torch.tensor([[0.27, 0.31], [0.72, 0.64]])
    labels, chosen = labels_model(8), torch.tensor([5, 2])
    other = torch.tensor([[0.2, 0.7], [0.27, 0.31], [0.5, 0.5], [0.72, 0.64], [0.8, 0.2]])
    if needs != "finite":
        _check_answers(solver, bumps, places, tolerance)
    else:
        _check_refused(solver, bumps, places)
    if needs in ("finite", None):
        _check_answers(solver, labels, chosen, tolerance)
        _check_answers(solver, bumps, places, tolerance, candidates=other)
    else:
        _check_refused(solver, labels, chosen)
        _check_refused(solver, bumps, places, candidates=other)


def _check_answers(
    solver: Solver, model: Model, true: Tensor, tolerance: float, *, candidates: Tensor | None = None
) -> None:
    cases: tuple[tuple[Tensor, int | tuple[int, int], Tensor | None], ...] = (
        (true, (0, 3), true),
        (true, 2, true),
        (true[:0], (0, 3), true[:0]),
        (true[:0], 0, true[:0]),
        (true, 1, None),  # one of two: which one is not said
        (true[:1], (2, 3), None),
    )
    for picture, count, answer in cases:
        problem = make_problem(planted(model, picture), model, count=count, candidates=candidates)
        state = torch.get_rng_state()
        with count_rows() as spent:
            solution = solver.solve(problem, generator=torch.Generator().manual_seed(0))
        what = f"{type(solver).__name__} for a {model.name} picture of {picture.tolist()}, count {count}"
        expect(torch.equal(state, torch.get_rng_state()), f"a change of the global random state by {what}", "none",
                "draw from the generator")  # fmt: skip
        expect(solution.rows == spent.rows, f"{solution.rows} rows reported by {what}", f"the {spent.rows} that ran",
                "return problem.rows")  # fmt: skip
        _check_values(solution, problem, candidates, what)
        if answer is not None:
            expect(_same(solution.conditions, answer, tolerance), f"{solution.conditions.tolist()} from {what}",
                    f"{answer.tolist()}", "the planted values leave no error")  # fmt: skip
        _check_confidence(solution, problem, what)
    _check_repeats(solver, model, true, candidates)


def _same(found: Tensor, true: Tensor, tolerance: float = THRESHOLD) -> bool:
    if len(found) != len(true):
        return False
    if not found.is_floating_point() or not len(true):
        return torch.equal(found.sort(dim=0).values.cpu(), true.cpu().sort(dim=0).values)
    return bool((match(found.cpu(), true.cpu()) < tolerance).all())


def _check_values(solution: Solution, problem: Problem, candidates: Tensor | None, what: str) -> None:
    (low, high), values = problem.counts, solution.conditions
    shape = (solution.count, *problem.value_shape)
    expect(tuple(values.shape) == shape, f"values {tuple(values.shape)} and count {solution.count} from {what}",
            f"(count, *V) = {shape}", "count is the number of values")  # fmt: skip
    for answer in (values, solution.runner_up):
        if answer is None:
            continue
        expect(low <= len(answer) <= high, f"{len(answer)} values from {what}", f"{low} to {high}", "keep to counts")
        if len(answer):
            legal = bool(problem.slots[0].support.check(answer).all())
            expect(legal, f"{answer.tolist()} from {what}", "values in the support", "map with transform_to(support)")
        distinct = len(torch.unique(answer, dim=0)) == len(answer) or not problem.distinct
        expect(distinct, f"{answer.tolist()} from {what}", "distinct values", "see problem.distinct")
        if candidates is not None:
            listed = all(bool((candidates == value).flatten(1).all(1).any()) for value in answer.cpu())
            expect(listed, f"{answer.tolist()} from {what}", f"some of {candidates.tolist()}", "see slot.candidates")


def _check_confidence(solution: Solution, problem: Problem, what: str) -> None:
    error, stderr = solution.error, solution.stderr
    expect(error >= -1e-6 and stderr >= 0, f"error {error} and stderr {stderr} from {what}", "at least 0", "average")
    bank = problem.draw(64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        fresh = problem.errors(solution.conditions[None], bank)[0].double()
    allowed = 6 * (stderr**2 + float(fresh.var()) / len(fresh)) ** 0.5 + 1e-4 + 0.05 * float(fresh.mean())
    expect(abs(error - float(fresh.mean())) <= allowed, f"error {error:.4g} +- {stderr:.2g} from {what}",
            f"{float(fresh.mean()):.4g}, the error of that answer on other draws", "judge on fresh draws")  # fmt: skip
    judged = (solution.difference, solution.difference_stderr, solution.p_value)
    expect(all((part is None) == (solution.runner_up is None) for part in judged), f"{judged} from {what}",
            "numbers where there is a runner-up and only there", "compare with `paired`")  # fmt: skip
    if solution.runner_up is None or solution.difference is None or solution.p_value is None:
        return
    expect(not _same(solution.runner_up, solution.conditions) or solution.conditions.is_floating_point(),
            f"a runner-up of {what} that is the answer", "another one", "leave it None for none")  # fmt: skip
    agree = (solution.difference > 0) == (solution.p_value < 0.5) or solution.difference == 0
    expect(0 <= solution.p_value <= 1 and agree, f"difference {solution.difference:.3g}, p {solution.p_value:.3g}",
            "p below 1/2 where the answer is better", "use `paired(answer, runner_up)`")  # fmt: skip


def _check_repeats(solver: Solver, model: Model, true: Tensor, candidates: Tensor | None) -> None:
    with torch.random.fork_rng(devices=[]):
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            problem = make_problem(planted(model, true), model, count=(1, 2), candidates=candidates)
            runs.append(solver.solve(problem, generator=torch.Generator().manual_seed(3)))
    first, second = runs
    same = torch.equal(first.conditions, second.conditions) and first.error == second.error
    expect(same and first.p_value == second.p_value, f"two answers of {type(solver).__name__} for one generator seed",
            "the same twice", "pass `generator` to problem.draw and to every random function")  # fmt: skip


def _check_refused(solver: Solver, model: Model, true: Tensor, *, candidates: Tensor | None = None) -> None:
    what = f"{type(solver).__name__} for {model.name}, which do not fit needs = {solver.needs!r}"
    with count_rows() as spent:
        refuses(what, infer, planted(model, true), model, solver=solver, candidates=candidates)
    expect(spent.rows == 0, f"{spent.rows} rows of {what}", "none", "let `infer` check first")
