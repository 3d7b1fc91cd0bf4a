"""Images as data URLs: what the page shows is in its messages, and no file is served."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from PIL import Image

from energycomp.errors import InputError
from energycomp.images import decode_image

MAX_UPLOAD = 10_000_000  # bytes of an image file
MAX_SHOWN = 1_024  # px, the longer side of an image that is kept
SIDE = 320  # px, the least shorter side of an image, as the command line writes it


def decode_upload(url: Any) -> Image.Image:
    """Decodes the data URL that a browser made of an image file, scaled down to 1,024 pixels. Raises `InputError` for
    more than 10 MB, and as `decode_image`.
    """
    picture = decode_image(content_of(url), "the file")
    picture.thumbnail((MAX_SHOWN, MAX_SHOWN))
    return picture


def content_of(url: Any) -> bytes:
    """The file of a data URL; raises `InputError` for more than 10 MB, or a damaged one."""
    head = re.match(r"data:[\w.+/-]*;base64,", url[:100]) if isinstance(url, str) else None
    if head is None:
        raise InputError("got no image; expected a PNG, JPEG, WebP or GIF file; drop one or choose one")
    size = (len(url) - head.end()) * 3 // 4
    if size > MAX_UPLOAD + 3:
        raise InputError(f"got a file of {size:,} bytes; expected at most {MAX_UPLOAD:,}; scale the image down")
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except binascii.Error as error:
        raise InputError(f"got a damaged upload ({error}); expected an image file; drop it again") from error
