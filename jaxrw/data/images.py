"""Decodes images to uint8 pixels; refuses images whose values do not fit into 8 bits."""

import contextlib
import io
import warnings
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

from jaxrw.system.errors import UserError, one_line

_MODE = {1: "L", 3: "RGB"}
_GRAY_MODES = ("1", "L")
_EIGHT_BIT_MODES = (*_GRAY_MODES, "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
# What Pillow raises for damaged files.
_DAMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)


def probe(file: BinaryIO) -> tuple[int, int, int]:
    """Returns height, width and channels (1 if the image is stored gray, else 3) without decoding.

    Raises:
      ValueError: the file is not a readable image of 8 bits per value.
    """
    with _opened(file) as image:
        return image.height, image.width, 1 if image.mode in _GRAY_MODES else 3


def decode(data: bytes, *, channels: int) -> np.ndarray:
    """Decodes one image to pixels in 0..255, uint8 [H, W, channels].

    Palettes are looked up, alpha channels dropped, and colors converted to gray or gray to RGB as `channels` demands.

    Raises:
      ValueError: the bytes are not a readable image of 8 bits per value.
    """
    with _opened(io.BytesIO(data)) as image:
        if image.mode != _MODE[channels]:
            image = image.convert(_MODE[channels])
        return np.asarray(image).reshape(image.height, image.width, channels)


def decode_all(encoded: Iterable[tuple[str, bytes]], *, count: int, channels: int, field: str) -> np.ndarray:
    """Decodes images of one size to pixels in 0..255, uint8 [count, H, W, channels].

    Args:
      encoded: (name, bytes) of `count` images, at least 1.
      count: number of images.
      channels: 1 (gray) or 3 (RGB).
      field: beginning of error messages.

    Raises:
      UserError: names the first image that cannot be read or has another size than the first one.
    """
    for i, (name, data) in enumerate(encoded):
        try:
            image = decode(data, channels=channels)
        except ValueError as error:
            raise UserError(f"{field}: {name} cannot be used: {error}") from error
        if i == 0:
            first, pixels = name, np.empty((count, *image.shape), np.uint8)
        check_size(name, image.shape[:2], first, pixels.shape[1:3], field=field)
        pixels[i] = image
    return pixels


def check_size(
    name: str, size: tuple[int, ...], first: str, first_size: tuple[int, ...], *, field: str
) -> None:
    """Raises UserError if an image's (height, width) is not that of the first image."""
    if size != first_size:
        raise UserError(
            f"{field}: {name} is {size[0]}x{size[1]} but {first} is {first_size[0]}x{first_size[1]} "
            "(height x width); all images must have one size"
        )


def downscale(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Replaces squares of pixels with their mean in 0..255, halves rounded up.

    Args:
      pixels: uint8 [N, H, W, C].
      factor: side of the squares, at least 1.

    Returns:
      uint8 [N, H / factor, W / factor, C].

    Raises:
      ValueError: H or W is not a multiple of `factor`.
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
    """Opens an image of 8 bits per value; every failure inside becomes a ValueError of one line."""
    try:
        start = file.read(25)
        file.seek(0)
        # Pillow silently cuts 16-bit color PNGs to 8 bits. Byte 24 of a PNG is its bit depth.
        if start.startswith(b"\x89PNG\r\n\x1a\n") and start[24:25] == b"\x10":
            raise ValueError("it has 16 bits a value; values in 0..255 (8 bits) are needed")
        with warnings.catch_warnings():
            # A small file may claim to be a huge image. Pillow only warns before it fills the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.mode not in _EIGHT_BIT_MODES:
                    raise ValueError(f"its mode is {image.mode}; values in 0..255 (8 bits) are needed")
                yield image
    except _DAMAGE as error:
        raise ValueError(one_line(error)) from error
