"""The convolution's values and gradients against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax import lax

from jaxrw import accuracy, experiment, step, train
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


@pytest.mark.parametrize("stride", [1, 2])
def test_in_bfloat16(stride):
    """Values and both gradients stay bfloat16 and are float32's, rounded: on the CPU and as other platforms do it."""
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 5), jnp.bfloat16)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 5, 7), jnp.bfloat16)

    def total(images, kernel):
        return convolution(images, kernel, (stride, stride), ((1, 1), (1, 1))).astype(jnp.float32).sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))
    measured, exact = gradients(images, kernel), gradients(*(x.astype(jnp.float32) for x in (images, kernel)))
    for a, b in zip(measured, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        # Sums of up to 128 numbers of size 1, whose partial sums may each be rounded at 2^-9 of their size, 10.
        np.testing.assert_allclose(np.float32(a), b, rtol=2**-7, atol=0.25)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_step_of_other_platforms(platform, dtype):
    """The whole step lowered for a GPU and a TPU: no CPU path, no float64, convolutions in the type asked for."""
    config = tiny.config(model__dtype=dtype)
    parts = experiment.create(config)
    images, labels = accuracy.replicated(parts.dataset.train)
    index = step.shard(np.arange(config.optim.batch_size, dtype=np.int32))
    mapped = train.create_step(config, parts)
    arguments = jax.eval_shape(parts.create_state), parts.step_key, images, labels, index
    program = jax.jit(mapped).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert "optimization_barrier" not in program
    assert "f64" not in program
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) > 20
    for line in convolutions:
        assert ("bf16" in line) == (dtype == "bfloat16"), line
