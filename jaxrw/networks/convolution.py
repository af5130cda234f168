"""A convolution whose input gradient stays fast inside compiled loops on the CPU.

Inside `fori_loop` or `scan`, XLA's CPU backend runs the input gradient of a convolution 8 to 14 times slower than
outside: it turns the flip of the kernel into a layout that its fast path does not support (JAX issue 12868). Every
attack is such a loop. Here, the input gradient is an ordinary stride-1 convolution with a kernel flipped beforehand,
which also avoids multiplying the zeros that a stride puts into a transposed convolution. Images smaller than the kernel
and layers with few output channels are rewritten, too, because XLA is slow for them. Values agree with the stock ones
up to rounding. Other platforms than the CPU run the stock convolution and gradient.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Strides = tuple[int, int]
Padding = Sequence[tuple[int, int]]

_stock = functools.partial(lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(images: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding) -> jax.Array:
    """Computes the convolution of images [B, H, W, I] with a kernel [h, w, I, O].

    Args:
      images: float.
      kernel: of the same type as the images.
      strides: vertical and horizontal.
      padding: zeros (before, after) for rows and for columns, each at most the size of the kernel minus 1.

    Returns:
      [B, H', W', O], of the images' type.
    """
    return lax.platform_dependent(
        images,
        kernel,
        cpu=lambda x, k: _cpu_convolution(x, k, strides, padding),
        default=lambda x, k: _stock(x, k, strides, padding),
    )


def for_flax(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding, **unused: Any
) -> jax.Array:
    """Calls `convolution`; for `flax.linen.Conv(conv_general_dilated=...)` in NHWC without dilation or groups."""
    vertical, horizontal = strides
    return convolution(images, kernel, (vertical, horizontal), tuple(map(tuple, padding)))


def _forward(
    images: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolution(images, kernel, strides, padding), (images, kernel)


def _backward(
    strides: Strides, padding: Padding, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, kernel = residuals
    images_gradient = lax.platform_dependent(
        gradient,
        kernel,
        cpu=lambda g, k: _cpu_input_gradient(g, k, images.shape[1:3], strides, padding),
        default=lambda g, k: jax.linear_transpose(lambda x: _stock(x, k, strides, padding), images)(g)[0],
    )
    kernel_gradient = jax.linear_transpose(lambda k: _stock(images, k, strides, padding), kernel)(gradient)[0]
    return images_gradient, kernel_gradient


convolution.defvjp(_forward, _backward)


def _cpu_convolution(images: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding) -> jax.Array:
    """Computes the convolution in the form that XLA's CPU backend runs fastest."""
    if images.shape[1] < kernel.shape[0] and images.shape[2] < kernel.shape[1]:
        return _as_matrix_product(images, kernel, strides, padding)
    pixels = _pixels_per_window(images.shape[2], kernel, strides, padding)
    if pixels > 1:
        return _widened(images, kernel, pixels, padding)
    return _stock(images, kernel, strides, padding)


def _cpu_input_gradient(
    gradient: jax.Array, kernel: jax.Array, size: tuple[int, ...], strides: Strides, padding: Padding
) -> jax.Array:
    """Computes the gradient by the images [B, *size, I] from the gradient by the output [B, H', W', O].

    The convolution is first rewritten as one without stride on space-to-depth input. The gradient of that is a
    convolution of the output's gradient with the flipped kernel, and is moved back from depth to space.
    """
    kernel, pad_before = _stride_1_kernel(kernel, strides, padding)
    # The barrier keeps XLA from folding the flip back into the convolution's layout.
    flipped = lax.optimization_barrier(jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3))
    full_padding = []
    for axis in range(2):
        overlap = kernel.shape[axis] - 1
        before = overlap - pad_before[axis]
        blocks = -(-size[axis] // strides[axis])  # size of the space-to-depth input
        full_padding.append((before, blocks - gradient.shape[1 + axis] - before + overlap))
    blocked = _cpu_convolution(gradient, flipped, (1, 1), full_padding)
    return _depth_to_space(blocked, strides)[:, : size[0], : size[1]]


def _stride_1_kernel(
    kernel: jax.Array, strides: Strides, padding: Padding
) -> tuple[jax.Array, tuple[int, ...]]:
    """Rewrites a strided kernel as a stride-1 kernel on space-to-depth input.

    With strides (s, t), space-to-depth moves each block of s x t pixels into the channels of one pixel. Without this, a
    transposed convolution would spread its input with zeros: three quarters of all products at stride 2.

    Args:
      kernel: [h, w, I, O].
      strides: (s, t).
      padding: that of `convolution`.

    Returns:
      The kernel [h', w', s t I, O], and the numbers of padding blocks before the rows and before the columns.
    """
    pad_before = tuple(-(-pad // stride) for (pad, _), stride in zip(padding, strides, strict=True))
    # Zeros around the kernel align it with the blocks, which the padding may cut.
    front = [n * stride - pad for n, stride, (pad, _) in zip(pad_before, strides, padding, strict=True)]
    back = [
        -(taps + zeros) % stride for taps, zeros, stride in zip(kernel.shape[:2], front, strides, strict=True)
    ]
    kernel = jnp.pad(kernel, (*zip(front, back, strict=True), (0, 0), (0, 0)))
    (height, width, depth, channels), (s, t) = kernel.shape, strides
    kernel = kernel.reshape(height // s, s, width // t, t, depth, channels).transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(height // s, width // t, s * t * depth, channels), pad_before


def _depth_to_space(x: jax.Array, strides: Strides) -> jax.Array:
    """Moves channels to pixels: [B, h, w, s t C] -> [B, s h, t w, C] for strides (s, t)."""
    (batch, height, width, _), (s, t) = x.shape, strides
    x = x.reshape(batch, height, width, s, t, -1).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * s, width * t, -1)


def _as_matrix_product(images: jax.Array, kernel: jax.Array, strides: Strides, padding: Padding) -> jax.Array:
    """Computes the convolution of images smaller than the kernel as a product with one dense matrix.

    The matrix maps all input pixels to all output pixels. XLA's convolution takes 25 to 100 times as long (2x2 images).
    """
    batch, height, width, _ = images.shape
    # Output row i multiplies input row r by tap r + before - stride * i. The weights of one output pixel are therefore
    # a slice of the kernel, which is padded with zeros because taps may lie outside of it.
    rows, columns = (
        [size + before - stride * i for i in range((before + size + after - taps) // stride + 1)]
        for size, (before, after), taps, stride in zip(
            (height, width), padding, kernel.shape[:2], strides, strict=True
        )
    )
    padded = jnp.pad(kernel, ((height, height), (width, width), (0, 0), (0, 0)))
    blocks = [padded[i : i + height, j : j + width] for i in rows for j in columns]
    matrix = jnp.stack(blocks, axis=3)
    product = images.reshape(batch, -1) @ matrix.reshape(math.prod(matrix.shape[:3]), -1)
    return product.reshape(batch, len(rows), len(columns), -1)


# Output channels that keep the CPU busy, and the number of pixels beyond which multiplying zeros costs more.
_ENOUGH_CHANNELS, _MOST_PIXELS = 32, 4


def _pixels_per_window(width: int, kernel: jax.Array, strides: Strides, padding: Padding) -> int:
    """Returns how many output pixels of a row to compute per window, so that few output channels keep the CPU busy.

    On 32x32 images this is 2.3 times as fast from 16 to 3 channels (the input gradient of a narrow network), 1.9 times
    from 3 to 16 (its first layer) and 1.2 times from 16 to 16.
    """
    keeps_width = strides == (1, 1) and sum(padding[1]) == kernel.shape[1] - 1
    if not keeps_width or kernel.shape[1] == 1:
        return 1
    most = min(_ENOUGH_CHANNELS // kernel.shape[3], _MOST_PIXELS)
    return next((pixels for pixels in range(most, 1, -1) if width % pixels == 0), 1)


def _widened(images: jax.Array, kernel: jax.Array, pixels: int, padding: Padding) -> jax.Array:
    """Computes a convolution that keeps the width, with a wider kernel that yields several pixels of a row at once."""
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, pixels - 1 - shift), (0, 0), (0, 0))) for shift in range(pixels)
    ]
    wide = lax.optimization_barrier(jnp.concatenate(shifted, axis=3))
    out = _stock(images, wide, (1, pixels), padding)
    return out.reshape(*out.shape[:2], -1, kernel.shape[3])
