"""Whether a network was adopted as it was trained: a list of checks of one case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import groups_of, values_of
from energycomp.errors import InputError
from energycomp.images import as_text, rich_table
from energycomp.inference import FIT_DRAWS, make_problem
from energycomp.models import Model, calibration_of, log_errors
from energycomp_adopt.adapter import network_of
from energycomp_adopt.checks.calls import count_calls
from energycomp_adopt.checks.case import LEVELS, Case, Finding
from energycomp_adopt.checks.labels import LABELLED, check_labels, check_null, measure_table
from energycomp_adopt.checks.modes import check_mode, check_range, measure_mode
from energycomp_adopt.checks.near_misses import NearMiss
from energycomp_adopt.checks.options import check_options, cure, is_possible, try_others, with_near_miss
from energycomp_adopt.checks.regression import format_numbers, measure_regression
from energycomp_adopt.checks.samples import check_samples
from energycomp_adopt.checks.window import check_window, choose_window
from energycomp_adopt.wrapped import wrap

OWN = 1_000_003  # added to the seed of the noise: samples that were drawn by the same seed would be like it
TRAINING = "the training: too little, or too few data"
OPTIONS = "see other options"
FOLLOWING = ("slope", "explained", "other options", "labels", "drawn samples")


def check_slope(case: Case) -> Finding:
    """Checks that the slope of the noise on the prediction is 1."""
    regression = measure_regression(case)
    measured = format_numbers(regression.slope)
    expected = f"1 at SNR {', '.join(f'{level:g}' for level in LEVELS)}"
    if regression.straight:
        return Finding("slope", measured, expected, "ok")
    # Of a network that knows its training data alone it is not; then what it draws must be like the data
    if try_others(case).tried and not try_others(case).better and is_possible(case):
        return Finding("slope", measured, expected, "unsure", TRAINING)
    return Finding("slope", measured, expected, "wrong", OPTIONS)


def check_explained(case: Case) -> Finding:
    """As much is explained as by a linear predictor."""
    regression = measure_regression(case)
    measured = format_numbers(regression.explained)
    expected = f"{format_numbers(regression.linear)} of a linear predictor"
    if regression.explains:
        return Finding("explained", measured, expected, "ok")
    return Finding("explained", measured, expected, "wrong", OPTIONS)


Check = Callable[[Case], Finding | None]
OF_OPTIONS: tuple[Check, ...] = (check_mode, check_range, check_slope, check_explained, check_options)
OF_LABELS: tuple[Check, ...] = (check_labels, check_null)  # with the other option, if there is one
NOT_CALIBRATED = Finding("out of distribution", "not calibrated: infer warns of nothing", "", "note", "typicality=True")


@attrs.frozen(eq=False, repr=False)
class Adoption:
    """What `check_adoption` found, a table where it is printed.

    Args:
        findings: one for each thing that was checked.
        near_miss: the option that explains the samples better, with which nothing else is wrong; None where none does,
            or where several do, which the findings name.
        model: what was checked, or the near miss of another option, with the timesteps, draws and beta that are
            proposed for reading.
        evaluations: of the network, which the check cost.
    """

    findings: tuple[Finding, ...]
    near_miss: NearMiss | None
    model: Model
    evaluations: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.verdict != "wrong" for one in self.findings)

    def __str__(self) -> str:
        columns = ["what", "measured", "expected", "verdict", "what to change"]
        return as_text(rich_table(columns, map(attrs.astuple, self.findings)))

    __repr__ = __str__


def check_adoption(
    model: Model,
    samples: Any,
    labels: Any = None,
    *,
    to_read: tuple[Any, Any] | None = None,
    evaluations: int = 1000,
    typicality: bool = False,
    seed: int = 0,
) -> Adoption:
    """Finds out whether what `adopt` was told of a network is true, and otherwise what would be.

    Noise is added to clean samples. If all is right, the slope of the noise on the network's prediction is 1 at every
    level, a linear predictor explains no more of it, no other option of `adopt` lowers the error, and samples that are
    drawn are like the data. Another option is proposed only if nothing is wrong with it.

    Args:
        model: of `adopt`, or any other, such as a pipeline of diffusers that `energycomp.load` reads.
        samples: clean ones of the training, or like these, 8 at least and better 64, as `infer` takes them.
        labels: what the model is called with for each sample. They check their order and the null, and propose the
            timesteps for reading; needed without a null.
        to_read: (samples, labels) of the kind that will be read, where it is another one, such as images that another
            network drew. Timesteps for reading are proposed for them, and nothing that is wrong is told by them.
        evaluations: of the network; about twice as many where all is right, more for samples of few numbers, and
            several times as many where something is wrong.
        typicality: whether to calibrate the model that is proposed, if nothing is wrong, by the errors that held-out
            samples, those of `to_read` if given, leave under their labels: 16 evaluations of each. Only then `infer`
            warns of what is no such sample.
        seed: of the noise.

    Raises:
        InputError: fewer than 8 samples, or labels that are missing or do not fit.

    >>> from energycomp_adopt import adopt
    >>> class Zero(torch.nn.Module):  # predicts that the data are 0
    ...     def forward(self, x, t):
    ...         return 0 * x
    >>> model = adopt(Zero(), shape=(2,), predicts="x0", data_range=None)
    >>> check_adoption(model, 5 + torch.randn(16, 2)).ok
    False
    """
    model = wrap(model)
    encoded, values = _read_samples(model, samples, labels)
    read = None if to_read is None else _read_samples(model, *to_read)
    if read is not None and read[1] is None:
        raise InputError(
            "got to_read without labels; expected (samples, labels): labels show what reads well; give both"
        )
    adapter = network_of(model)
    with _keep_modes(adapter), count_calls(adapter.network) as calls:
        # Put together what all checks share: clean samples, known noise, and the network that is to predict it.
        noise = torch.Generator().manual_seed(OWN + seed)
        case = Case(model, encoded, values, evaluations, noise, calls)
        reading = case if read is None else Case(model, *read, evaluations, noise, calls)

        # Check the options: whether the noise is predicted without bias, and whether another option predicts it better.
        findings = [check(case) for check in OF_OPTIONS]

        # Check the labels under the option that cures the others, since a wrong schedule hides what is wrong with them.
        right = cure(case)
        findings += [check(right) for check in OF_LABELS]
        read_right = right if reading is case else with_near_miss(reading, try_others(case).cure)
        findings.append(check_window(read_right))

        # Check what is drawn, if no other option is needed: samples must be like the data.
        if right is case:
            findings.append(check_samples(case))

        # Propose the option, and the timesteps for reading. A check that does not apply has found nothing.
        advised = _advise([one for one in findings if one is not None], case)
        proposed = _propose(case, read_right)

        # Calibrate the proposal, if asked for: errors of a wrong model say nothing of other samples.
        if typicality and all(one.verdict != "wrong" for one in advised):
            proposed = _calibrate(proposed, reading)
        elif values is not None:
            advised.append(NOT_CALIBRATED)
    return Adoption(tuple(advised), try_others(case).cure, proposed, calls.evaluations)


def _advise(findings: list[Finding], case: Case) -> list[Finding]:
    """Gives one advice where no option is known to be right: what else is wrong may follow from its reason."""
    if try_others(case).cure is not None:
        return findings
    wrong = {one.what for one in findings if one.verdict == "wrong"}
    if measure_mode(case) == "train mode":
        wrong.discard("mode")
    # Conditions that are surely worse than others: what else is wrong may follow from them
    known = measure_table(case) if "labels" in wrong else None
    labels_first = known is not None and known.certainty < -LABELLED
    order = ("mode", "labels", "other options") if labels_first else ("mode", "other options", "labels")
    first = next((what for what in order if what in wrong), None)
    advised = []
    for one in findings:
        follows = one.verdict == "wrong" and one.what in FOLLOWING and first not in (None, one.what)
        advised.append(attrs.evolve(one, change=f"see {first}") if follows else one)
    return advised


@contextmanager
def _keep_modes(module: torch.nn.Module) -> Iterator[None]:
    """Puts each part of a module back into its mode, "train" or "eval", however the checks end."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _read_samples(model: Model, samples: Any, labels: Any) -> tuple[Tensor, Tensor | None]:
    """Encodes samples (N, ...), and reads their values where they are known and the network takes any."""
    kind = network_of(model).options.kind
    # Samples as the network sees them: a batch, or a list of images of any sizes
    given = [samples] if isinstance(samples, Tensor) else samples
    encoded = torch.cat([model.encode(model.given(one)) for one in given]).cpu()
    if len(encoded) < 8:
        raise InputError(f"got {len(encoded)} samples; expected 8 at least, better 64; give more")
    # Without labels, the null is checked alone
    if kind == "none" or (labels is None and model.denoiser.null_trained):
        return encoded, None
    if labels is None:
        raise InputError("got no labels for a model without a null; expected one for each sample; give labels=")
    values = values_of(model.conditioner, labels, name="labels")
    if len(values) != len(encoded):
        raise InputError(f"got {len(values)} labels for {len(encoded)} samples; expected one each; correct them")
    return encoded, values


def _propose(case: Case, reading: Case) -> Model:
    """Makes the model, or that of another option, with what is proposed for reading."""
    # Another order of the labels is no option of the model: the caller puts the labels in order
    cure = try_others(case).cure
    model = case.model if cure is None or cure.labels is not None else cure.model
    # The timesteps that tell labels apart, where these are known; else those of the model
    changed: dict[str, Any] = {"timesteps": model.defaults.timesteps}
    if check_window(reading) is not None:
        changed |= choose_window(reading).defaults
    return attrs.evolve(model, defaults=attrs.evolve(case.model.defaults, **changed))


def _calibrate(model: Model, case: Case) -> Model:
    """Calibrates a model by the errors that samples leave under their values, where these are known."""
    if case.values is None or groups_of(model.conditioner) is not None:
        return model
    # The errors that each sample leaves under its own value
    left = []
    for sample, value in zip(case.samples, case.values, strict=True):
        problem = make_problem(sample[None], model, count=1)
        left.append(log_errors(problem.residuals(value[None], problem.draw(FIT_DRAWS, case.generator))))
    # What is usual of them, for answers of one component
    calibration = calibration_of({1: torch.stack(left)})
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, calibration=calibration))
