"""Conditioners: what makes the condition rows of components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast, runtime_checkable

from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.components.condition import Condition
from energycomp.components.support import MixedSupport

Ability = Literal[
    "enumerate_support", "groups", "read", "module", "concepts", "with_concepts", "surfaces", "unread", "read_last",
    "placed", "widened", "prior", "prepare",
]  # fmt: skip


@runtime_checkable
class Conditioner(Protocol):
    """Turns values that a person or a solver handles (a position, labels, a prompt) into condition rows.

    The unconditional row is not a value: the denoiser makes it. On the command line a component is split at commas, and
    `parse` gets the parts: `red` is a string, `0.3,0.5` are two floats and `size=2` is a keyword.
    `energycomp_lab.checks.check_conditioner` checks a conditioner.

    A conditioner may have more members, which `ability` asks for:

    - `enumerate_support() -> Tensor`: all legal values (M, *V), where they can be listed.
    - `groups: tuple[Tensor, ...] | None`: the values of each attribute (M_k, *V); an image has one value of each.
    - `read(text) -> Tensor`: the whole text of a component as a value (1, *V), instead of parts for `parse`.
    - `module: nn.Module | None`: weights that are trained and saved with a model.
    - `concepts: tuple[str, ...]`, `with_concepts(concepts, template=) -> Conditioner`: words whose prompts are listed.
    - `surfaces: tuple[str, ...]`: the attributes that leave an object where it is, and of its shape and size.
    - `unread: tuple[str, ...]`: the numbers that reading leaves open, such as a turn; `read_last(problem, values,
      generator) -> Tensor` is values (K, *V) with them, read once all else is known.
    - `placed(texts, generator) -> list[str]`: the texts of the objects of an image, each with a place.
    - `widened(model, texts, size, seed)`: the composition of objects on a larger image (height, width).
    - `prior`: what draws what components leave open before they are sampled, because no network averages over it, or
      None. `prior.prepare(composition, n, generators)` is the composition of n samples with it, and
      `prior.draw_open(values, generator)` fills values (R, *V).

    >>> from energycomp.components import Classes
    >>> digits = Classes(["zero", "one"])
    >>> value = digits.parse("one")
    >>> value, digits.describe(value[0]), digits(value).rows.tolist()
    (tensor([1]), 'one', [[[0.0, 1.0]]])
    """

    @property
    def value_shape(self) -> tuple[int, ...]:
        """V, the shape of one value: () for a label, (2,) for a position."""

    @property
    def token_shape(self) -> tuple[int, int]:
        """(L, D) of one condition row."""

    @property
    def support(self) -> constraints.Constraint:
        """The set of legal values; gradient solvers use `torch.distributions.transform_to(support)`."""

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The arguments of a call such as `clevr(0.3, 0.4)` as one value of shape (1, *V); raises `InputError`."""

    def describe(self, value: Tensor) -> Any:
        """One value of shape V as JSON; `parse` takes a dict as keywords, a list as arguments, all else as one."""

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON; with the registered name they rebuild the conditioner."""

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, *V) as R condition rows, differentiable where the values are continuous."""


class MixedConditioner(Conditioner, Protocol):
    """A conditioner of values that are partly continuous: numbers, and then attributes, each of which may be open.

    Solvers see the continuous numbers, with all attributes open; the attributes of what was found are read afterwards.

    >>> from energycomp.testing import TintedSquare
    >>> square = TintedSquare()
    >>> square.attributes["width"], square.parse(0.25, 0.5, width="wide").tolist()  # x, y, tint (open), width
    (('narrow', 'wide'), [[0.25, 0.5, 0.0, 2.0]])
    """

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The words of each attribute, in the order of a value's numbers, which count them from 1; 0 is open.

        What `MixedSupport.unread` counts stands behind them, and is none of them.
        """

    @property
    def support(self) -> MixedSupport:
        """The set of legal values."""


def ability(conditioner: object, name: Ability) -> Any:
    """A member that a conditioner may have, see `Conditioner`; None where it has none."""
    return getattr(conditioner, name, None)


def groups_of(conditioner: Conditioner) -> tuple[Tensor, ...] | None:
    """The values (M_k, *V) of each attribute; None for a conditioner without attributes."""
    return cast("tuple[Tensor, ...] | None", ability(conditioner, "groups"))


def mixed_of(conditioner: Conditioner) -> MixedConditioner | None:
    """The conditioner, if its values are partly continuous; None for any other."""
    return cast("MixedConditioner", conditioner) if isinstance(conditioner.support, MixedSupport) else None


def prior_of(conditioner: Conditioner) -> Any:
    """What draws what components of a conditioner leave open, see `Conditioner`; None for most."""
    return ability(conditioner, "prior")


def weights_of(conditioner: Conditioner) -> nn.Module | None:
    """The module that is trained and saved with a model; None for a conditioner without one."""
    return cast("nn.Module | None", ability(conditioner, "module"))
