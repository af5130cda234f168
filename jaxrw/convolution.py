"""A convolution whose input gradient stays fast in rolled loops on the CPU.

Inside `fori_loop` or `scan`, XLA on the CPU runs the input gradient of a convolution 8 to 14 times slower
than outside: it keeps the flipped kernel as a layout and leaves its fast path (JAX issue 12868). Every attack
is such a loop. Writing the gradient as an ordinary convolution with a kernel that is flipped beforehand avoids
this; values agree to rounding. On GPU and TPU the stock gradient is kept.
"""

import functools

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
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_NHWC)


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
        # Dilate by hand: as an argument of the convolution it would leave the fast path again.
        dilated = lax.pad(
            gradient,
            jnp.zeros((), gradient.dtype),
            [(0, 0, 0), (0, 0, strides[0] - 1), (0, 0, strides[1] - 1), (0, 0, 0)],
        )
        # The barrier keeps XLA from folding the flip back into the convolution's layout.
        flipped = lax.optimization_barrier(jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3))
        before = [size - 1 - pad[0] for size, pad in zip(kernel.shape, padding, strict=False)]
        after = [
            images.shape[1 + axis] - dilated.shape[1 + axis] - before[axis] + kernel.shape[axis] - 1
            for axis in range(2)
        ]
        return lax.conv_general_dilated(
            dilated, flipped, (1, 1), list(zip(before, after, strict=True)), dimension_numbers=_NHWC
        )

    images_gradient = lax.platform_dependent(gradient, kernel, cpu=by_convolution, default=by_transpose)
    kernel_gradient = jax.linear_transpose(lambda k: stock(images, k), kernel)(gradient)[0]
    return images_gradient, kernel_gradient


convolution.defvjp(_forward, _backward)


def for_flax(images, kernel, strides, padding, *, dimension_numbers=None, precision=None, **rest):
    """`convolution` with the signature that `flax.linen.Conv(conv_general_dilated=...)` calls."""
    del dimension_numbers, precision, rest  # NHWC, no dilation, no groups: what the models ask for
    return convolution(images, kernel, tuple(strides), tuple(map(tuple, padding)))
