"""Conditioners: what makes the condition rows of components.

`Conditioner` is what every conditioner has. Optional abilities are protocols of their own, asked for by `isinstance`:
`FiniteConditioner`, `AttributeConditioner`, `MixedConditioner`, `TextConditioner` and `TrainableConditioner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.components.condition import Condition
from energycomp.components.support import MixedSupport


@runtime_checkable
class Conditioner(Protocol):
    """Turns values that a person or a solver handles (a position, labels, a prompt) into condition rows.

    The unconditional row is not a value: the denoiser makes it. On the command line a component is split at commas, and
    `parse` gets the parts: `red` is a string, `0.3,0.5` are two floats and `size=2` is a keyword. A method
    `read(text) -> Tensor` takes the whole text instead, and returns a value (1, *V).
    `energycomp_lab.checks.check_conditioner` checks a conditioner.

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


@runtime_checkable
class FiniteConditioner(Conditioner, Protocol):
    """A conditioner whose values can be listed.

    >>> from energycomp.testing import UnitSquare
    >>> from energycomp.components import Classes
    >>> Classes(["zero", "one"]).enumerate_support().tolist(), isinstance(UnitSquare(), FiniteConditioner)
    ([0, 1], False)
    """

    def enumerate_support(self) -> Tensor:
        """All legal values, (M, *V)."""


@runtime_checkable
class AttributeConditioner(FiniteConditioner, Protocol):
    """A finite conditioner whose values belong to attributes; an image has one value of each attribute.

    >>> from energycomp.testing import Labels
    >>> [group.tolist() for group in Labels(4, paired=True).groups]  # labels 0 or 1, and labels 2 or 3
    [[0, 1], [2, 3]]
    """

    @property
    def groups(self) -> tuple[Tensor, ...] | None:
        """The values of each attribute, (M_k, *V); None where the constructor was given no attributes."""


@runtime_checkable
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


@runtime_checkable
class HasSurfaces(Protocol):
    """A mixed conditioner that says which words leave an object where it is, and of its shape and size.

    >>> from energycomp import load
    >>> load("clevr").conditioner.surfaces
    ('color', 'material')
    """

    @property
    def surfaces(self) -> tuple[str, ...]:
        """Names of the attributes of the surface alone, such as a colour."""


@runtime_checkable
class HasUnread(Protocol):
    """A mixed conditioner with numbers that reading leaves open.

    >>> from energycomp import load
    >>> load("clevr").conditioner.unread
    ('turn',)
    """

    @property
    def unread(self) -> tuple[str, ...]:
        """Their names, such as a turn."""


@runtime_checkable
class TextConditioner(FiniteConditioner, Protocol):
    """A conditioner of prompts. `parse` takes a prompt; the listed values are the prompts of its concepts.

    >>> from energycomp import load
    >>> words = load("text").conditioner.with_concepts(["red cube", "blue sphere"])
    >>> words.concepts, len(words.enumerate_support())
    (('red cube', 'blue sphere'), 2)
    """

    @property
    def concepts(self) -> tuple[str, ...]:
        """The words that `enumerate_support` lists the prompts of, such as "cat" and "dog"."""

    def with_concepts(self, concepts: Sequence[str], *, template: str | None = None) -> Conditioner:
        """The same conditioner with other concepts, and the prompt of one, such as "a photo of a {}".

        Raises:
            InputError: no concepts, or one that the tokenizer cannot take.
        """


@runtime_checkable
class TrainableConditioner(Conditioner, Protocol):
    """A conditioner with a module whose weights are trained and saved with a model.

    >>> from energycomp import load
    >>> from energycomp.components import Classes
    >>> isinstance(load("text").conditioner.module, nn.Module), isinstance(Classes(["cat"]), TrainableConditioner)
    (True, False)
    """

    @property
    def module(self) -> nn.Module | None:
        """The module; None where its weights belong to another model and stay as they are."""


def groups_of(conditioner: Conditioner) -> tuple[Tensor, ...] | None:
    """The values (M_k, *V) of each attribute; None for a conditioner without attributes.

    >>> from energycomp.testing import Labels
    >>> len(groups_of(Labels(4, paired=True))), groups_of(Labels(4))
    (2, None)
    """
    return conditioner.groups if isinstance(conditioner, AttributeConditioner) else None


def mixed_of(conditioner: Conditioner) -> MixedConditioner | None:
    """The conditioner, if its values are partly continuous; None for any other.

    >>> from energycomp.testing import TintedSquare, UnitSquare
    >>> mixed_of(TintedSquare()).support.continuous.event_dim, mixed_of(UnitSquare())
    (1, None)
    """
    if isinstance(conditioner, MixedConditioner) and isinstance(conditioner.support, MixedSupport):
        return conditioner
    return None


def prior_of(conditioner: Conditioner) -> Any:
    """The attribute `prior`: what draws what components leave open, before they are sampled; None for most.

    `prior.prepare(composition, n, generators)` is the composition of n samples with it, and
    `prior.draw_open(values, generator)` fills values (R, *V).

    >>> from energycomp import load
    >>> words = load("clevr").conditioner
    >>> cube = words.parse(0.3, 0.5, shape="cube")  # of any size, turned anyhow
    >>> drawn = prior_of(words).draw_open(cube, None)
    >>> words.describe(cube[0]).get("size"), words.describe(drawn[0])["size"] in ("small", "large")
    (None, True)
    """
    return getattr(conditioner, "prior", None)


def weights_of(conditioner: Conditioner) -> nn.Module | None:
    """The module that is trained and saved with a model; None for a conditioner without one.

    >>> from energycomp.components import Latents
    >>> weights_of(Latents(4)) is None
    True
    """
    return conditioner.module if isinstance(conditioner, TrainableConditioner) else None
