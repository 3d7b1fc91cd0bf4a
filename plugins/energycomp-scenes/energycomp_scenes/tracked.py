"""An object in one frame: where it is, how it moves, and what is known of its words."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from torch import Tensor

JERK = 0.003  # how much a velocity changes in a frame, std
START = (0.005, 0.03)  # std of the place and of the velocity of an object that was just found
SEEN = 7.0  # nats of evidence of an object that is seen
PATIENCE = 30  # frames for which an object may be hidden
FORGET = 0.9  # share of the evidence of words that is left after a frame
SURE = 0.9  # posterior of a word from which on it tells an object from a new one
USUAL = 5  # frames over which the usual evidence is averaged


@attrs.frozen(eq=False)
class Tracked:
    """An object in one frame, which the prior of the next frame is made of.

    Args:
        identity: from 1, the same in all frames.
        place, velocity, spread: of the posterior, or of the prior where the object is hidden.
        words: log posterior (n,) of the words of each attribute, of all frames.
        evidence, usual: in nats, of this frame, and about that of frames in which nothing covers it.
        visible: whether it was found in this frame.
        seen, unseen: frames in which it was visible, and those since then.
    """

    identity: int
    place: Tensor
    velocity: Tensor
    spread: Tensor
    words: tuple[Tensor, ...]
    evidence: float
    usual: float
    visible: bool = True
    seen: int = 1
    unseen: int = 0

    @classmethod
    def new(cls, identity: int, place: Tensor, words: Iterable[Tensor], evidence: float) -> Tracked:
        """An object that was just found."""
        spread = torch.tensor([START[0] ** 2, 0.0, START[1] ** 2]).repeat(2, 1)
        return cls(identity, place, torch.zeros(2), spread, tuple(words), evidence, max(evidence, SEEN))

    @property
    def codes(self) -> Tensor:
        """The most likely word of each attribute, (A,) from 1."""
        return torch.tensor([float(each.argmax()) + 1 for each in self.words])

    @property
    def sure(self) -> Tensor:
        """The codes (A,) in which words that are less certain than `SURE` are left open."""
        return self.codes * (torch.tensor(self.certainty) >= SURE)

    @property
    def certainty(self) -> list[float]:
        """The posterior of these words."""
        return [float(each.softmax(0).max()) for each in self.words]

    @property
    def gone(self) -> bool:
        """Whether it left the image while it was hidden, or was hidden for too long."""
        outside = bool(((self.place < 0) | (self.place > 1)).any())
        return not self.visible and (outside or self.unseen > min(PATIENCE, 4 * self.seen))

    def predict(self) -> Tracked:
        """The prior of the next frame."""
        xx, xv, vv = self.spread.unbind(1)
        spread = torch.stack([xx + 2 * xv + vv, xv + vv, vv], dim=1) + JERK**2 * torch.tensor([0.25, 0.5, 1.0])
        return attrs.evolve(self, place=self.place + self.velocity, spread=spread)

    def update(self, place: Tensor, precision: Tensor, evidence: float) -> Tracked:
        """The posterior after the prior, at a place and with what the image adds to its precision, both (2,)."""
        xx, xv, vv = self.spread.unbind(1)
        share = min(1.0, evidence / self.usual) ** 2
        left = 1 / (1 + share * xx * precision)  # of the variance of the place
        move = (place - self.place) * share * (1 + xx * precision) * left
        spread = torch.stack([xx * left, xv * left, vv - xv.square() / xx * (1 - left)], dim=1)
        usual = self.usual + (evidence - self.usual) / USUAL * (1.0 if evidence > self.usual else 0.2)
        return attrs.evolve(
            self, place=self.place + move, velocity=self.velocity + xv / xx * move, spread=spread, evidence=evidence,
            usual=usual, visible=True, seen=self.seen + 1, unseen=0,
        )  # fmt: skip

    def hide(self, evidence: float) -> Tracked:
        """The prior as it is: nothing is seen of the object."""
        return attrs.evolve(self, evidence=evidence, visible=False, unseen=self.unseen + 1)

    def read(self, errors: Tensor, attribute: int, beta: float) -> Tracked:
        """With the errors (n,) of the words of an attribute added to what is known of them."""
        words = list(self.words)
        words[attribute] = torch.log_softmax(words[attribute] - beta * errors.to(words[attribute]), 0)
        return attrs.evolve(self, words=tuple(words))

    def forget(self) -> Tracked:
        """With a part of what is known of the words, so that each is looked at again."""
        return attrs.evolve(self, words=tuple(torch.log_softmax(FORGET * each, 0) for each in self.words))
