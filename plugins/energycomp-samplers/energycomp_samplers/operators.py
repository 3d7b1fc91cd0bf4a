"""Operators of observations: what is seen of a sample. Each has A, A', and closed forms of (A C A' + R)^-1.

Samples are (B, *shape), what is seen of them (B, *seen).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.errors import EnergycompError, EnergycompWarning, InputError, first_line
from energycomp.fields import whole
from energycomp_samplers.kernels import as_column
from energycomp_samplers.spread import Covariance
from energycomp_samplers.stationary import StationaryCovariance

AnyCovariance: TypeAlias = Covariance | StationaryCovariance
TOLERANCE = 1e-3  # by which a linear operator may miss its rules, as a share
STEPS = 1_000  # of conjugate gradients, at most
CLOSE = 1e-6  # where they end: the residual, as a share
MOST = 1e12  # of what is observed: float32 has no squares of 1e19 and more
FAR = 1e-3  # the residual, as a share, from which on an end before that is warned of


def as_numbers(given: Any, name: str, advice: str) -> Tensor:
    """A tensor of float32 of what was given; raises `InputError` where that are no real numbers."""
    try:
        numbers = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"got {name} of type {type(given).__name__} ({first_line(error)})"
        raise InputError(f"{got}; expected real numbers; {advice}") from error
    if numbers.is_complex():
        raise InputError(f"got {name} of complex numbers; expected real ones; stack real and imaginary parts")
    if numbers.dtype == torch.uint8:
        got = f"got {name} of uint8"
        raise InputError(f"{got}; expected floats; divide images by 255, and convert counts by .float()")
    return numbers.detach().float()


def as_noise(given: Any, y: Tensor, name: str, seen: str) -> Tensor:
    """The standard deviation of each number of y; raises `InputError` for numbers that are not above 0."""
    std = as_numbers(given, name, "give the noise of the data, a number above 0").to(y.device)
    if not bool((std.isfinite() & (std > 0)).all()):
        raise InputError(f"got {name}={float(std.min()):g}; expected numbers above 0; give the noise of the data")
    try:
        return std.expand(y.shape)
    except RuntimeError:
        got = f"got {name} of shape {tuple(std.shape)} for {seen} of shape {tuple(y.shape)}"
        raise InputError(f"{got}; expected one number, or the shape of {seen}; change {name}=") from None


def check_reach(y: Tensor, name: str) -> None:
    """Raises `InputError` for numbers that are not finite, or too large for the squares of float32."""
    if not bool(y.isfinite().all()):
        got = f"got {name} with {int((~y.isfinite()).sum())} numbers that are NaN or infinite"
        raise InputError(f"{got}; expected finite ones; mask them out, or give them a large noise")
    if bool((y.abs() > MOST).any()):
        got = f"got {name} with numbers up to {float(y.abs().max()):.3g}"
        raise InputError(f"{got}; expected at most {MOST:g}, in the units of the samples; mask them out")


@runtime_checkable
class Linear(Protocol):
    """A linear operator."""

    def forward(self, z: Tensor) -> Tensor:
        """A z, (B, *seen), of samples (B, *shape)."""

    def adjoint(self, w: Tensor) -> Tensor:
        """A' w, (B, *shape), of what is seen (B, *seen)."""

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> Tensor | None:
        """(A C A' + R)^-1 v in closed form, with R = diag(noise); None where there is none."""


@attrs.frozen(eq=False)
class Gain:
    """Each number of a sample, times a constant: a mask of 0 and 1, or a brightness."""

    gain: Tensor

    def forward(self, z: Tensor) -> Tensor:
        return z * self.gain.to(z)

    adjoint = forward

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> Tensor | None:
        diagonal = covariance.diagonal(v, v.shape[1:])
        return None if diagonal is None else v / (self.gain.to(v).square() * diagonal + noise)


@attrs.frozen
class Pool:
    """Averages of blocks of size x size numbers of the last two axes."""

    size: int = attrs.field(validator=whole(1))

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim < 3 or z.shape[-1] % self.size or z.shape[-2] % self.size:
            got = f"got blocks of {self.size} x {self.size} for samples of shape {tuple(z.shape[1:])}"
            raise InputError(f"{got}; expected a size that divides the last two axes")
        return z.unflatten(-1, (-1, self.size)).unflatten(-3, (-1, self.size)).mean((-3, -1))

    def adjoint(self, w: Tensor) -> Tensor:
        return w.repeat_interleave(self.size, -1).repeat_interleave(self.size, -2) / self.size**2

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> Tensor | None:
        if isinstance(covariance, StationaryCovariance):
            return self._invert_by_frequency(covariance, noise, v)
        shape = (*v.shape[1:-2], v.shape[-2] * self.size, v.shape[-1] * self.size)
        diagonal = covariance.diagonal(v, shape)
        if diagonal is None:
            return None
        # Blocks share no number: A C A' is diagonal.
        inside = diagonal.expand(-1, *shape)
        return v / (self.forward(inside) / self.size**2 + noise)

    def _invert_by_frequency(self, covariance: StationaryCovariance, noise: Tensor, v: Tensor) -> Tensor | None:
        if noise.unique().numel() > 1:
            return None
        # A frequency of the blocks is that of size x size of the pixels, which a mean over blocks does not tell apart
        eigenvalues = covariance.eigenvalues(v)
        block = torch.full((self.size, self.size), 1.0 / self.size**2)
        seen = eigenvalues * _transfer(block, *eigenvalues.shape[-2:]).to(v.device).abs().square()
        folded = seen.unflatten(-1, (self.size, -1)).unflatten(-3, (self.size, -1)).mean((-4, -2))
        return covariance.apply(v, 1.0 / (folded + noise.flatten()[0]))


@attrs.frozen(eq=False)
class Blur:
    """The convolution of the last two axes with a kernel (h, w) about its centre; edges are joined (circular)."""

    kernel: Tensor

    def forward(self, z: Tensor) -> Tensor:
        return _filter(z, self._transfer(z))

    def adjoint(self, w: Tensor) -> Tensor:
        return _filter(w, self._transfer(w).conj())

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> Tensor | None:
        if noise.unique().numel() > 1:
            return None
        power = self._transfer(v).abs().square()
        if isinstance(covariance, StationaryCovariance):
            return covariance.apply(v, 1.0 / (covariance.eigenvalues(v) * power + noise.flatten()[0]))
        variance = covariance.diagonal(v, v.shape[1:])
        if variance is None or variance[0].numel() > 1:
            return None
        # Of one variance and one noise, the Fourier transform makes A C A' + R diagonal
        return _filter(v, 1.0 / (variance * power + noise.flatten()[0]))

    def _transfer(self, z: Tensor) -> Tensor:
        height, width = self.kernel.shape
        if z.ndim < 3 or height > z.shape[-2] or width > z.shape[-1]:
            got = f"got a kernel of {height} x {width} for samples of shape {tuple(z.shape[1:])}"
            raise InputError(f"{got}; expected one no larger than the last two axes; crop it")
        return _transfer(self.kernel.to(z), *z.shape[-2:])


def _transfer(kernel: Tensor, height: int, width: int) -> Tensor:
    """The Fourier transform (H, W) of a kernel (h, w) about its centre."""
    # The kernel on an image of zeros, with its centre at the origin: it moves nothing
    padded = kernel.new_zeros(height, width)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    return torch.fft.fft2(padded.roll((-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1)))


def _filter(z: Tensor, transfer: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(z) * transfer).real


@attrs.frozen(eq=False)
class Pair:
    """Functions A and A' of batches."""

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]

    def invert(self, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> None:
        """None: conjugate gradients."""

    def check(self, shape: Sequence[int], device: torch.device) -> None:
        """Raises `InputError` where two draws show that A is not linear, or A' not its adjoint."""
        random = torch.Generator().manual_seed(0)
        u, v = torch.randn(2, 1, *shape, generator=random).to(device)
        # A is linear: A(u + v) = A(u) + A(v)
        seen = self.forward(u)
        both = self.forward(u + v)
        summed = seen + self.forward(v)
        apart = (both - summed).norm() if both.shape == summed.shape else torch.inf
        if apart > TOLERANCE * (both.norm() + summed.norm()):
            raise InputError(
                "got an operator (A, A') whose A is not linear: A(u + v) is not A(u) + A(v); expected a linear one; "
                "give A alone, as a function"
            )
        # A' is its adjoint: <A u, w> = <u, A' w>
        w = torch.randn(seen.shape, generator=random).to(seen)
        back = self.adjoint(w)
        if back.is_complex() or not bool(back.isfinite().all()):
            raise InputError(
                "got A' whose results are complex, NaN or infinite; expected finite real numbers; correct A'"
            )
        if back.shape != u.shape:
            got = f"got A' that returns {tuple(back.shape)} for what is seen of {tuple(u.shape)}"
            raise InputError(f"{got}; expected the shape of the samples; correct A'")
        one = (seen * w).sum()
        two = (u * back).sum()
        if (one - two).abs() > TOLERANCE * (seen.norm() * w.norm() + u.norm() * back.norm()):
            raise InputError(
                f"got an operator (A, A') with <A u, w> = {float(one):.4g} and <u, A' w> = {float(two):.4g}; expected "
                "equal numbers, because A' is the adjoint of A; correct A'"
            )


def check_operator(see: Callable[[Tensor], Tensor], sample: Tensor) -> Tensor:
    """What is seen of a sample (1, *shape); raises `InputError` unless it is finite, real and the same each time."""
    shape = tuple(sample.shape)
    try:
        with torch.no_grad():
            seen: Any = see(sample)
            again = see(sample)
    except EnergycompError:
        raise
    except Exception as error:
        got = f"got an operator that fails for samples of shape {shape}: {first_line(error)}"
        raise InputError(f"{got}; correct it") from error
    if not isinstance(seen, Tensor) or len(seen) != len(sample):
        got = f"{tuple(seen.shape)}" if isinstance(seen, Tensor) else type(seen).__name__
        raise InputError(f"got an operator that returns {got} for {shape}; expected a tensor (B, ...); correct it")
    if seen.is_complex():
        raise InputError("got an operator of complex numbers; expected real ones; stack real and imaginary parts")
    if not bool(seen.isfinite().all()):
        got = f"got an operator that gives {int((~seen.isfinite()).sum())} numbers that are NaN or infinite"
        raise InputError(f"{got} for the middle of the samples; expected finite ones; correct it")
    if not torch.equal(seen, again):
        expected = "expected the same ones; draw them once, outside of it; the noise of the data is given apart"
        raise InputError(f"got an operator that gives other numbers each time; {expected}")
    return seen


def linearise(f: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Pair, Tensor]:
    """The derivative of a function at samples (B, *shape), by autograd, and f itself there, (B, *seen)."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        seen = f(point)
        if not seen.requires_grad:
            raise InputError("got an operator without a gradient; expected torch operations on samples; correct it")
        # J' w, as a function of w: its derivative is J.
        w = torch.zeros_like(seen).requires_grad_()
        (back,) = torch.autograd.grad(seen, point, w, create_graph=True, materialize_grads=True)

    def forward(v: Tensor) -> Tensor:
        if not back.requires_grad:
            return torch.zeros_like(seen)
        return torch.autograd.grad(back, w, v, retain_graph=True, materialize_grads=True)[0]

    def adjoint(w: Tensor) -> Tensor:
        return torch.autograd.grad(seen, point, w, retain_graph=True, materialize_grads=True)[0]

    return Pair(forward, adjoint), seen.detach()


def solve(operator: Linear, covariance: AnyCovariance, noise: Tensor, v: Tensor) -> Tensor:
    """(A C A' + R)^-1 v, (B, *seen), with R = diag(noise): in closed form, or by conjugate gradients.

    An `EnergycompWarning` says where these end early: noise is small, and A loses nearly all of some directions.
    """
    closed = operator.invert(covariance, noise, v)
    if closed is not None:
        return closed

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return as_column((a * b).flatten(1).sum(1), a)

    # Conjugate gradients, from 0
    solution = torch.zeros_like(v)
    residual = v
    direction = v
    size = dot(v, v)
    least = CLOSE**2 * size
    for _ in range(STEPS):
        if bool((size <= least).all()):
            break
        # (A C A' + R) direction
        image = operator.forward(covariance(operator.adjoint(direction))) + noise * direction
        # Rows that are solved already stay as they are.
        step = torch.where(size > least, size / dot(direction, image).clamp(min=1e-30), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        # The next direction is conjugate to the ones before
        before = size
        size = dot(residual, residual)
        direction = residual + size / before.clamp(min=1e-30) * direction
    left = float((size / dot(v, v).clamp(min=1e-30)).amax()) ** 0.5
    if left > FAR:
        got = f"the conjugate gradients of an observation left {left:.2g} of what they solve after {STEPS:,} steps"
        warnings.warn(f"{got}, so that samples are not those of the observation; raise std", EnergycompWarning, 2)
    return solution
