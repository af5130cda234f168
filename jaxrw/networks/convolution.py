"""A convolution whose input gradient stays fast in rolled loops on the CPU.

Inside `fori_loop` or `scan`, XLA on the CPU runs the input gradient of a convolution 8 to 14 times slower
than outside: it keeps the flipped kernel as a layout and leaves its fast path (JAX issue 12868). Every attack
is such a loop. Writing the gradient as an ordinary convolution with a kernel that is flipped beforehand avoids
this, and products with the zeros of a stride; images smaller than the kernel and layers of few channels have forms of
their own. Values agree to rounding. On GPU and TPU the stock convolution and gradient are kept.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(images, kernel, strides, padding):
    """Convolution of [B, H, W, I] with a kernel [h, w, I, O] -> [B, H', W', O].

    Args:
      images: float.
      kernel: of the images' dtype.
      strides: two integers.
      padding: two pairs (before, after), each at most the kernel's size less 1.
    """
    stock = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=_NHWC
    )
    fast = functools.partial(_on_cpu, strides=strides, padding=padding)
    return lax.platform_dependent(images, kernel, cpu=fast, default=stock)


def _forward(images, kernel, strides, padding):
    return convolution(images, kernel, strides, padding), (images, kernel)


def _backward(strides, padding, residuals, gradient):
    images, kernel = residuals
    stock = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, dimension_numbers=_NHWC
    )

    def by_transpose(gradient, kernel):
        return jax.linear_transpose(lambda x: stock(x, kernel), images)(gradient)[0]

    def by_convolution(gradient, kernel):
        dense, before = _without_stride(kernel, strides, padding)
        # The barrier keeps XLA from folding the flip back into the convolution's layout.
        flipped = lax.optimization_barrier(jnp.swapaxes(jnp.flip(dense, (0, 1)), 2, 3))
        phases = [-(-size // stride) for size, stride in zip(images.shape[1:3], strides, strict=True)]
        around = []
        for axis in range(2):
            size = dense.shape[axis] - 1
            first = size - before[axis]
            around.append((first, phases[axis] - gradient.shape[1 + axis] - first + size))
        moved = _on_cpu(gradient, flipped, strides=(1, 1), padding=around)
        return _depth_to_space(moved, strides)[:, : images.shape[1], : images.shape[2]]

    images_gradient = lax.platform_dependent(gradient, kernel, cpu=by_convolution, default=by_transpose)
    kernel_gradient = jax.linear_transpose(lambda k: stock(images, k), kernel)(gradient)[0]
    return images_gradient, kernel_gradient


convolution.defvjp(_forward, _backward)


def _on_cpu(images, kernel, *, strides, padding):
    """The same convolution, written as XLA on the CPU computes it fastest."""
    if images.shape[1] < kernel.shape[0] and images.shape[2] < kernel.shape[1]:
        return _one_product(images, kernel, strides=strides, padding=padding)
    together = _pixels_together(images.shape[2], kernel, strides, padding)
    if together > 1:
        return _several_pixels(images, kernel, together=together, padding=padding)
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_NHWC)


def _one_product(images, kernel, *, strides, padding):
    """Convolution of images smaller than the kernel, as a product with one matrix from all their pixels to all of its.

    XLA has no fast path for these, and took 25 to 100 times as long for 2x2 images.
    """
    batch, *size, _ = images.shape
    (top, left), (down, across) = (pad[0] for pad in padding), strides
    rows, columns = (
        range((length + sum(pad) - taps) // stride + 1)
        for length, pad, taps, stride in zip(size, padding, kernel.shape[:2], strides, strict=True)
    )
    # With zeros on all sides, what an output pixel takes of the image is one slice of the kernel.
    zeros = [(length, length) for length in size]
    kernel = jnp.pad(kernel, (*zeros, (0, 0), (0, 0)))
    starts = [
        (size[0] + top - down * row, size[1] + left - across * column) for row in rows for column in columns
    ]
    matrix = jnp.stack([kernel[y : y + size[0], x : x + size[1]] for y, x in starts], axis=3)
    product = images.reshape(batch, -1) @ matrix.reshape(math.prod(matrix.shape[:3]), -1)
    return product.reshape(batch, len(rows), len(columns), -1)


# Output channels that keep the CPU busy, and pixels beyond which the products with zeros weigh more.
_ENOUGH, _MOST = 32, 4


def _pixels_together(width, kernel, strides, padding):
    """How many pixels of a row to compute as one, so that few output channels keep the CPU busy.

    On 32x32 images 2.3 times as fast from 16 to 3 channels, the input gradient of a narrow network, 1.9 times from 3
    to 16, its first layer, and 1.2 times from 16 to 16.
    """
    same = strides == (1, 1) and sum(padding[1]) == kernel.shape[1] - 1
    if not same or kernel.shape[1] == 1:
        return 1
    most = min(_ENOUGH // kernel.shape[3], _MOST)
    return next((number for number in range(most, 1, -1) if width % number == 0), 1)


def _several_pixels(images, kernel, *, together, padding):
    """Convolution without stride and of unchanged width, by a wider kernel that gives several pixels of a row."""
    columns = [
        jnp.pad(kernel, ((0, 0), (first, together - 1 - first), (0, 0), (0, 0))) for first in range(together)
    ]
    wide = lax.optimization_barrier(jnp.concatenate(columns, axis=3))
    out = lax.conv_general_dilated(images, wide, (1, together), padding, dimension_numbers=_NHWC)
    return out.reshape(*out.shape[:2], -1, kernel.shape[3])


def _without_stride(kernel, strides, padding):
    """Kernel [n, m, sh sw I, O] that does without a stride, on images whose pixels lie in depth, what `kernel` does.

    Without it the gradient would have to be spread out with zeros, three quarters of all products at stride 2.
    Also returns the padding before each axis.
    """
    before = [-(-pad[0] // stride) for pad, stride in zip(padding, strides, strict=True)]
    front = [blocks * s - pad[0] for blocks, s, pad in zip(before, strides, padding, strict=True)]
    back = [-(size + zeros) % s for size, zeros, s in zip(kernel.shape[:2], front, strides, strict=True)]
    kernel = jnp.pad(kernel, (*zip(front, back, strict=True), (0, 0), (0, 0)))
    (height, width, depth, channels), (down, across) = kernel.shape, strides
    kernel = kernel.reshape(height // down, down, width // across, across, depth, channels)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return kernel.reshape(height // down, width // across, down * across * depth, channels), before


def _depth_to_space(x, strides):
    """[B, h, w, sh sw C] -> [B, sh h, sw w, C]."""
    batch, height, width, depth = x.shape
    down, across = strides
    x = x.reshape(batch, height, width, down, across, depth // (down * across)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * down, width * across, -1)


def for_flax(images, kernel, strides, padding, *, dimension_numbers=None, precision=None, **rest):
    """`convolution` with the signature that `flax.linen.Conv(conv_general_dilated=...)` calls."""
    del dimension_numbers, precision, rest  # NHWC, no dilation, no groups: what the models ask for
    return convolution(images, kernel, tuple(strides), tuple(map(tuple, padding)))
