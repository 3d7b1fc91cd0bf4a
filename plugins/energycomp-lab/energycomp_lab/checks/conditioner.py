"""The conformance check of conditioners."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from energycomp.components import (
    Conditioner,
    MixedConditioner,
    ability,
    mixed_of,
    parse_value,
    random_values,
    weights_of,
)
from energycomp_lab.checks.expect import expect, expect_refusal, expect_same_weights

ROUNDING = 1e-5  # of the greatest token: a smaller change comes from float32 and not from the values


def check_conditioner(
    conditioner: Conditioner, *, values: Tensor | None = None, factory: Callable[..., Any] | None = None
) -> None:
    """Checks a conditioner on legal values: rows, gradients, descriptions, attributes, config and refusals.

    `describe` must give JSON that `parse` accepts: a mapping as keyword arguments, a list as positional arguments,
    anything else as one argument. `config` must rebuild the conditioner, apart from its weights. No values give no
    rows, values give no null rows, and gradients reach continuous values. An open attribute has a row of its own.

    Args:
        values: legal values (R, *V); listed or drawn from the support if left out.
        factory: the registered callable that takes the config; the class if left out.

    >>> from energycomp.testing import TintedSquare
    >>> check_conditioner(TintedSquare())
    """
    name = type(conditioner).__name__
    shape = tuple(conditioner.value_shape)
    values = legal_values(conditioner) if values is None else values
    expect(tuple(values.shape[1:]) == shape, f"values {tuple(values.shape)}", f"(R, *{shape})", "see value_shape")
    legal = bool(conditioner.support.check(values).all())
    hint = "make support and enumerate_support agree"
    expect(legal, f"values of {name} outside its support", "values in the support", hint)
    _check_rows(conditioner, values)
    _check_text(conditioner, values[:8])
    _check_rebuilt(conditioner, factory or type(conditioner), values)
    if not conditioner.support.is_discrete:
        _check_gradient(conditioner, values)
    if (mixed := mixed_of(conditioner)) is not None:
        _check_attributes(mixed, values)
    for attempt in ((object(),), (values.new_zeros(3, *shape, 7),)):
        expect_refusal(f"{name}.parse{attempt}", conditioner.parse, *attempt)
    expect_refusal(f"{name}.parse(no_such_argument=1)", conditioner.parse, no_such_argument=1)
    expect_refusal(f"{name} of values with one dimension more", conditioner, values[..., None])


def legal_values(conditioner: Conditioner) -> Tensor:
    """All values of a finite support, or 8 of a continuous one, (R, *V)."""
    if (enumerate_support := ability(conditioner, "enumerate_support")) is not None:
        listed: Tensor = enumerate_support()
        return listed
    return random_values(conditioner, 8, generator=0)


def _check_attributes(conditioner: MixedConditioner, values: Tensor) -> None:
    support = conditioner.support
    name = type(conditioner).__name__
    counted = tuple(len(words) for words in conditioner.attributes.values())
    expect(counted == support.words, f"{support.words} words in the support of {name}", f"{counted}", "make them agree")
    (places, _), opened = support.split(values), support.opened(values)
    same = torch.equal(conditioner(places).rows, conditioner(opened).rows)
    expect(same, f"other rows of {name} for numbers alone", "those with all attributes open", "take both shapes")
    for place, (attribute, words) in enumerate(conditioner.attributes.items()):
        rows = []
        for code, word in enumerate(words):
            value = support.worded(opened[:1], place, code)
            rows.append(conditioner(value).rows)
            shown = conditioner.describe(value[0])
            known = isinstance(shown, Mapping) and shown.get(attribute) == word
            expect(known, f"{shown} from describe", f"{attribute}={word!r} in it", "name attributes and their words")
        distinct = len({tuple(row.flatten().tolist()) for row in (*rows, conditioner(opened[:1]).rows)})
        expect(distinct == len(words) + 1, f"{distinct} rows for {attribute}", f"{len(words) + 1}", "tell words apart")


def _check_rows(conditioner: Conditioner, values: Tensor) -> None:
    tokens = tuple(conditioner.token_shape)
    for part in (values, values[:0]):
        condition = conditioner(part)
        shaped = len(condition) == len(part) and condition.shape == tokens
        expect(shaped, f"{condition!r} for {len(part)} values", f"as many rows of {tokens}", "no value, no row")
    null = bool(conditioner(values).null.any())
    expect(not null, "null rows for values", "none", "the denoiser makes the unconditional row")


def _check_text(conditioner: Conditioner, values: Tensor) -> None:
    for value in values:
        described = json.loads(json.dumps(conditioner.describe(value)))
        if isinstance(described, Mapping):
            again = conditioner.parse(**described)
        else:
            again = conditioner.parse(*described) if isinstance(described, list) else conditioner.parse(described)
        same = again.shape == (1, *value.shape) and torch.allclose(again[0].double(), value.double(), atol=1e-3)
        hint = "let parse take what describe gives"
        expect(same, f"{again} from the description of {value}", "the value, (1, *V)", hint)
        for given in ((value,), tuple(value) if value.ndim else (value,)):
            same = torch.equal(parse_value(conditioner, *given), value[None])
            expect(same, f"another value from {given}, a row of an answer", "the same", "see value_shape and support")


def _check_rebuilt(conditioner: Conditioner, factory: Callable[..., Any], values: Tensor) -> None:
    name = type(conditioner).__name__
    again = f"{name}(**config())"
    rebuilt = factory(**json.loads(json.dumps(conditioner.config())))
    own, other = weights_of(conditioner), weights_of(rebuilt)
    both = (own is None) == (other is None)
    expect(both, f"weights of {name} or of {again} alone", "of both or neither", "say it in the config")
    if own is not None and other is not None:
        expect_same_weights(own, other, again)
        other.load_state_dict(own.state_dict())
    same = torch.equal(rebuilt(values).rows, conditioner(values).rows)
    expect(same, f"other rows from {again}", "the same", "return all arguments of the constructor")


def _check_gradient(conditioner: Conditioner, values: Tensor) -> None:
    """Projects the rows at random, since embeddings of sines and cosines have constant norms."""
    free = values.clone().requires_grad_()
    rows = conditioner(free).rows
    name = type(conditioner).__name__
    expect(rows.requires_grad, f"rows of {name} that do not depend on the values", "a gradient", "do not detach")
    direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).to(rows)
    (gradient,) = torch.autograd.grad((rows * direction).sum(), free)
    finite = bool(torch.isfinite(gradient).all())
    expect(finite, f"a gradient of {name} that is NaN or infinite", "a finite one", "use differentiable operations")
    change = float(gradient.abs().max() * values.abs().max().clamp(min=1.0))
    hint = "let every value have rows of its own, differentiably"
    expect(change > ROUNDING * float(rows.detach().abs().max()), f"a gradient of {name} of 0", "another one", hint)
