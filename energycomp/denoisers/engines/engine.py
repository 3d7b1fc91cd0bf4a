"""What an engine is, and a network whose methods it runs: the same weights, answers and row counts."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from energycomp.denoisers.evaluator import TwoStage
from energycomp.errors import EnergycompWarning, InputError, first_line
from energycomp.files import fingerprint

AGREEMENT = 1e-4  # of the largest number of a prediction: float32 kernels that sum in another order differ by 1e-6
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Engine(Protocol):
    """Compiles functions of tensors whose first axis is that of rows; registered by `energycomp.plugins.Add.engine`.

    An attribute `agreement` says how far it may be from torch, as a share of the largest number: 1e-4 without it.

    >>> class Eager:
    ...     def accepts(self, tensors):
    ...         return True
    ...
    ...     def compile(self, part, example, key, *, fresh):
    ...         return lambda tensors: part(*tensors)
    >>> from energycomp.testing import tiny_model
    >>> tiny_model().with_engine(Eager())
    Model('tiny', 16x16 colour images, UnitSquare, rule product, 29,608 parameters)
    """

    def accepts(self, tensors: Sequence[Tensor]) -> bool:
        """Whether it computes with such tensors; torch does with all others."""

    def compile(self, part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Run:
        """What computes `part(*tensors)`, a tuple, for any number of rows. Whatever it raises, torch takes its place.

        Args:
            example: tensors of the right types and shapes. Axes of rows have the same length where they are the same.
            key: identifies weights, code and shapes, for a cache.
            fresh: whether what a cache has of this key is wrong.
        """


def run_by(network: nn.Module, engine: Engine | None) -> nn.Module:
    """A network that shares its weights with this one, whose methods an engine runs; torch for None.

    The methods are those that the network names in `engine_methods`; the stages of a `TwoStage`, or `forward`,
    otherwise. Torch runs them where gradients are wanted, in training, under autocast, and once weights have changed.
    """
    stages = ("features", "head") if isinstance(network, TwoStage) else ("forward",)
    methods: tuple[str, ...] = getattr(network, "engine_methods", stages)
    plain = copy.copy(network)
    for name in methods:
        vars(plain).pop(name, None)
    if engine is None:
        return plain
    twin = copy.copy(plain)
    for name in methods:
        vars(twin)[name] = _Method(plain, name, engine)
    return twin


def require(engine: str, *packages: str) -> None:
    """Raises `InputError` where a package of an engine is not installed."""
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            got = f"got the engine {engine!r} without the package {package}; expected it to be installed"
            raise InputError(f"{got}; pip install 'energycomp[{engine}]'")


class _Method:
    """A method of a network, compiled by an engine when it is first called with tensors of such shapes."""

    def __init__(self, network: nn.Module, name: str, engine: Engine) -> None:
        self.network = network
        self.name = name
        self.engine = engine
        self.weights = [*network.parameters(), *network.buffers()]
        self.version = self._count_changes()
        self._forget()

    def _forget(self) -> None:
        self.compiled: dict[object, Run | None] = {}
        self.lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("compiled", "lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __call__(self, *args: Any) -> Any:
        tensors: list[Tensor] = []
        form = _split(args, tensors)
        if not self._may_run(tensors):
            return self._by_torch(*args)
        with self.lock:
            key = form, torch.get_num_threads()
            if key not in self.compiled:
                expected = self._by_torch(*args)
                self.compiled[key] = self._compile(form, args, tensors, expected)
                return expected
            run = self.compiled[key]
            try:
                found = None if run is None else run(tensors)
            except Exception as error:
                self._warn(first_line(error))
                found = self.compiled[key] = None
        if found is None:
            return self._by_torch(*args)
        return found[0] if len(found) == 1 else tuple(found)

    def _by_torch(self, *args: Any) -> Any:
        return getattr(self.network, self.name)(*args)

    def _may_run(self, tensors: Sequence[Tensor]) -> bool:
        trained = any(module.training for module in (self.network, *self.network.children()))
        graded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*tensors, *self.weights))
        if trained or graded or torch.is_autocast_enabled(tensors[0].device.type):
            return False
        return self.engine.accepts(tensors) and self._count_changes() == self.version

    def _count_changes(self) -> int:
        """How often weights were changed in place; inference tensors never are."""
        return sum(0 if tensor.is_inference() else tensor._version for tensor in self.weights)

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _compile(self, form: Any, args: Sequence[Any], tensors: Sequence[Tensor], expected: Any) -> Run | None:
        """What runs such tensors, once it has predicted what torch did; None, with a warning, where nothing does."""
        part = _Part(self.network, self.name, form).eval()
        results = [expected] if isinstance(expected, Tensor) else list(expected)
        key = self._key(form)
        reason = ""
        for fresh in (False, True):
            try:
                with _keep_validation():
                    run = self.engine.compile(part, self._example(args, tensors), key, fresh=fresh)
                    if all(map(self._agrees, run(tensors), results)):
                        return run
                reason = "it predicts other numbers than torch"
            except Exception as error:
                reason = first_line(error)
        self._warn(reason)
        return None

    def _agrees(self, found: Tensor, expected: Tensor) -> bool:
        most = getattr(self.engine, "agreement", AGREEMENT) * expected.abs().max()
        return found.shape == expected.shape and bool((found - expected).abs().max() <= most)

    def _example(self, args: Sequence[Any], tensors: Sequence[Tensor]) -> list[Tensor]:
        """Zeros of other numbers of rows; the features of a head have an axis of their own."""
        shared: list[Tensor] = []
        if self.name == "head":
            _split(args[0], shared)
        rows = [2 if number < len(shared) else 3 for number in range(len(tensors))]
        return [tensor.new_zeros(n, *tensor.shape[1:]) for n, tensor in zip(rows, tensors, strict=True)]

    def _key(self, form: Any) -> str:
        from energycomp import __version__

        kind = type(self.network)
        code = f"{kind.__module__}.{kind.__qualname__}", self.name, getattr(self.network, "config", None)
        weights = fingerprint(self.network.state_dict())
        return hashlib.sha256(repr((code, form, weights, torch.__version__, __version__)).encode()).hexdigest()[:32]

    def _warn(self, reason: str) -> None:
        got = f"got {type(self.network).__name__}.{self.name}, which {type(self.engine).__name__} does not run"
        warnings.warn(f"{got} ({reason}); torch does", EnergycompWarning, stacklevel=4)


@contextmanager
def _keep_validation() -> Iterator[None]:
    """Distributions check their arguments afterwards as before: `torch.export` ends that for the whole process."""
    checks = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(checks)


class _Part(nn.Module):
    """A method of a network as a module from tensors to a tuple of tensors, which is what engines export."""

    def __init__(self, network: nn.Module, name: str, form: Any) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.form = form

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        out = getattr(self.network, self.name)(*_join(self.form, iter(tensors)))
        return (out,) if isinstance(out, Tensor) else tuple(out)


@attrs.frozen
class _Hole:
    """Where arguments had a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]  # without its rows


@attrs.frozen
class _Made:
    """Where they had an object, such as a `Condition`, with the forms of its fields."""

    kind: type
    fields: tuple[Any, ...]


def _split(value: Any, tensors: list[Tensor]) -> Any:
    """What a value is beside its tensors, which are appended to a list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _Hole(value.dtype, tuple(value.shape[1:]))
    if isinstance(value, tuple):
        return tuple(_split(one, tensors) for one in value)
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))
        return _Made(type(value), tuple(_split(getattr(value, field.name), tensors) for field in fields))
    return value


def _join(form: Any, tensors: Iterator[Tensor]) -> Any:
    """The value that was split."""
    if isinstance(form, _Hole):
        return next(tensors)
    if isinstance(form, tuple):
        return tuple(_join(one, tensors) for one in form)
    if isinstance(form, _Made):
        return form.kind(*(_join(one, tensors) for one in form.fields))
    return form
