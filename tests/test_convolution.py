"""The convolution's values and gradients against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrw.convolution import convolution


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_equals_the_stock_convolution(kernel_size, stride, size):
    images = jax.random.normal(jax.random.key(0), (2, size, size, 5))
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 5, 7))
    padding = ((kernel_size // 2, kernel_size // 2),) * 2

    def ours(images, kernel):
        return jnp.sin(convolution(images, kernel, (stride, stride), padding)).sum()

    def stock(images, kernel):
        out = lax.conv_general_dilated(
            images, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sin(out).sum()

    measured = jax.jit(jax.value_and_grad(ours, (0, 1)))(images, kernel)
    expected = jax.jit(jax.value_and_grad(stock, (0, 1)))(images, kernel)
    # Sums of up to 63 products of numbers of size 1, in another order: 63 * 2^-24 relative to their size, 10.
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=4e-5)


def test_other_platforms_keep_the_stock_gradient():
    """Lowered for a TPU, the input gradient is JAX's transposed convolution, without the barrier."""

    def total(images):
        return convolution(images, jnp.ones((3, 3, 2, 2)), (1, 1), ((1, 1), (1, 1))).sum()

    def program(platform):
        traced = jax.jit(jax.grad(total)).trace(jnp.ones((1, 8, 8, 2)))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "optimization_barrier" in program("cpu")
    assert "optimization_barrier" not in program("tpu")
