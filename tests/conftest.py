"""What tests of several folders of the core share."""

from typing import Any

import pytest


class Halved:
    """A codec whose latents are half as large as the images, in numbers and in size."""

    identity, latent_shape = "halved", (3, 16, 16)

    def encode(self, images: Any) -> Any:
        return images[:, :, ::2, ::2] / 2

    def decode(self, latents: Any) -> Any:
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3) * 2

    def config(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def halved() -> Halved:
    return Halved()
