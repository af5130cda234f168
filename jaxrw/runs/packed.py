"""Which images are classified correctly, as a short text: base64 of one bit an image, the first in the highest bit."""

import base64
import binascii

import numpy as np


def pack(correct: np.ndarray) -> str:
    """Returns flags [N] bool as text of about N / 6 characters.

    >>> pack(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, size: int) -> np.ndarray:
    """Returns the flags [size] bool that `pack` wrote.

    Raises:
      ValueError: the text is not base64, or not of this number of flags.

    >>> unpack("oA==", 3).tolist()
    [True, False, True]
    """
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    if len(bits) != -(-size // 8) * 8 or bits[size:].any():
        raise ValueError(f"not of {size} images")
    return bits[:size].astype(bool)
