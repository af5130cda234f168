"""From encoded bytes to uint8 pixels, refusing what cannot be had without loss."""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from jaxrw.data.dataset import reason
from jaxrw.system.errors import UserError

_MODE = {1: "L", 3: "RGB"}
_GREY_MODES = ("1", "L")
_EIGHT_BIT_MODES = (*_GREY_MODES, "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
# What Pillow raises for damaged files; it promises no single kind.
_DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)


def probe(file: BinaryIO) -> tuple[int, int, int]:
    """Height, width and channels (1 if the image is stored grey, else 3), without decoding.

    Raises:
      ValueError: if it cannot be read as an image of 8 bits a value.
    """
    with _opened(file) as image:
        return image.height, image.width, 1 if image.mode in _GREY_MODES else 3


def decode(data: bytes, *, channels: int) -> np.ndarray:
    """Pixels 0..255, uint8 [H, W, channels], of one encoded image.

    A palette is looked up, an alpha channel dropped, and grey made RGB or RGB grey if `channels` wants it so.

    Raises:
      ValueError: if it cannot be read as an image of 8 bits a value.
    """
    with _opened(io.BytesIO(data)) as image:
        if image.mode != _MODE[channels]:
            image = image.convert(_MODE[channels])
        return np.asarray(image).reshape(image.height, image.width, channels)


def decode_all(encoded: Iterable[tuple[str, bytes]], *, count: int, channels: int, field: str) -> np.ndarray:
    """Pixels 0..255, uint8 [count, H, W, channels], of (name, bytes) pairs that must be of one size.

    Raises:
      UserError: beginning with `field`, naming the first image that cannot be read or has another size.
    """
    pixels, first = None, ""
    for i, (name, data) in enumerate(encoded):
        try:
            image = decode(data, channels=channels)
        except ValueError as error:
            raise UserError(f"{field}: {name} cannot be used: {error}") from error
        if pixels is None:
            pixels, first = np.empty((count, *image.shape), np.uint8), name
        if image.shape != pixels.shape[1:]:
            raise UserError(f"{field}: {odd_size(name, image.shape, first, pixels.shape[1:])}")
        pixels[i] = image
    return pixels


def odd_size(name: str, shape: tuple[int, ...], first: str, first_shape: tuple[int, ...]) -> str:
    """The complaint about an image whose height and width differ from those of the first one."""
    return (
        f"{name} is {shape[0]}x{shape[1]} but {first} is {first_shape[0]}x{first_shape[1]} (height x width); "
        "all images must have one size"
    )


def downscale(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Pixels 0..255, uint8 [N, H / factor, W / factor, C]: the mean of each square, halves rounded up.

    Raises:
      ValueError: if H or W is no multiple of `factor`.
    """
    if factor == 1:
        return pixels
    count, height, width, channels = pixels.shape
    if height % factor or width % factor:
        raise ValueError(f"images of {height}x{width} cannot be divided by it")
    squares = pixels.reshape(count, height // factor, factor, width // factor, factor, channels)
    sums = squares.sum((2, 4), dtype=np.uint32)
    return ((sums + factor**2 // 2) // factor**2).astype(np.uint8)


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """An image of 8 bits a value; whatever goes wrong inside is a ValueError of one line."""
    try:
        start = file.read(25)
        file.seek(0)
        # Pillow cuts 16-bit colour PNGs to 8 bits without a word; byte 24 of a PNG is its bit depth.
        if start.startswith(b"\x89PNG\r\n\x1a\n") and start[24:25] == b"\x10":
            raise ValueError("it has 16 bits a value; values in 0..255 (8 bits) are needed")
        with _bombs_refused(), Image.open(file) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise ValueError(f"its mode is {image.mode}; values in 0..255 (8 bits) are needed")
            yield image
    except _DAMAGE as error:
        raise ValueError(reason(error)) from error


@contextlib.contextmanager
def _bombs_refused():
    """A small file may claim to be a huge image; Pillow warns of it before it fills the memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
