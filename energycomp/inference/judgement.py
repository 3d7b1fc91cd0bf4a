"""What `infer` says of an answer, beside the answer: how well it fits, how usual that is, and how sure it is."""

from __future__ import annotations

import attrs
from torch import Tensor

VERDICTS = ((0.9, "sure"), (0.6, "likely"))
OUT_OF_DISTRIBUTION = 0.01  # typicality below which an image is out of distribution: the rate of false alarms


@attrs.frozen(eq=False)
class Judgement:
    """How far an answer can be trusted, as far as that was measured: None where it was not.

    Args:
        fit: share of the unconditional error that the answer explains, negative where it leaves more; None for the
            empty answer, and where the model has no unconditional prediction.
        typicality: share of held-out images of as many components that leave errors at least as unusual, see
            `energycomp.models.Calibration`; None for a model without calibration.
        missing: (x, y) where a component may be missing or wrong: there the error is unusual, and in all it is not.
        sure: the probability that the whole answer is right, count and words, as it was on held-out images; None where
            the model has no such fit, and where the answer was compared with no other one.
        at_count_limit: whether the count is an end of the range that was searched: the true one may be beyond it.
        share: (K,) how much the error rises without each component, as a share of the unconditional error that all of
            them explain, on the draws of `fit` and None where that is. They sum to 1 where components are seen apart.
        maps: (K, H, W), see `Solution.maps`.

    >>> Judgement(typicality=0.001).out_of_distribution
    True
    """

    fit: float | None = None
    typicality: float | None = None
    missing: tuple[float, float] | None = None
    sure: float | None = None
    at_count_limit: bool = False
    share: Tensor | None = None
    maps: Tensor | None = None

    @property
    def out_of_distribution(self) -> bool | None:
        """Whether the typicality is below `OUT_OF_DISTRIBUTION`, and no single place explains it; None without one."""
        if self.typicality is None:
            return None
        return self.typicality < OUT_OF_DISTRIBUTION and self.missing is None

    @property
    def trusted(self) -> bool:
        """Whether the image is not out of distribution: numbers of an answer to one that is mean nothing."""
        return not self.out_of_distribution

    @property
    def verdict(self) -> str | None:
        """`sure` in a word: "sure" from 0.9 on, "likely" from 0.6 on, or "unsure"; "not trusted" of unknown images.

        >>> Judgement(sure=0.97).verdict
        'sure'
        """
        if not self.trusted:
            return "not trusted"
        if self.sure is None:
            return None
        return next((word for least, word in VERDICTS if self.sure >= least), "unsure")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer that the image gives, one sentence each."""
        found = []
        if self.out_of_distribution:
            share = f"about {self.typicality:.1%} of held-out images leave such errors"
            found.append(f"the image is out of distribution: {share}; do not trust the answer")
        if self.missing is not None:
            x, y = self.missing
            found.append(
                f"an object may be missing or wrong near {x:.2f}, {y:.2f}: much of the image is unexplained there"
            )
        return tuple(found)
