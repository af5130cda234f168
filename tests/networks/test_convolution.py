"""The convolution's values and gradients against JAX's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny
from jax import lax

from jaxrw import train
from jaxrw.networks.convolution import convolution
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import create_experiment


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (2, 2), (1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize(
    ("kernel_size", "strides"), [(1, (1, 1)), (1, (2, 2)), (3, (1, 1)), (3, (2, 2)), (3, (1, 2)), (2, (3, 3))]
)
def test_equals_the_stock_convolution(kernel_size, strides, height, width, dtype):
    images = jax.random.normal(jax.random.key(0), (2, height, width, 5), dtype)
    kernel = jax.random.normal(jax.random.key(1), (kernel_size, kernel_size, 5, 7), dtype)
    padding = ((kernel_size // 2, kernel_size // 2),) * 2

    def stock(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    @functools.partial(jax.jit, static_argnums=0)
    def pulled(function, images, kernel):
        out, pull = jax.vjp(function, images, kernel)
        return out, *pull(jnp.cos(out))

    measured = pulled(lambda *x: convolution(*x, strides, padding), images, kernel)
    expected = pulled(stock, images, kernel)
    for a, b in zip(measured, expected, strict=True):
        assert a.dtype == dtype
        # Sums of up to 160 products of numbers of size 1, in another order, are off by 160 * eps relative to
        # their size, 13, at worst, and by sqrt(160) * eps as a rule.
        atol = 13 * 13 * jnp.finfo(dtype).eps
        np.testing.assert_allclose(np.float32(a), np.float32(b), atol=atol)


@pytest.mark.parametrize("stride", [1, 2])
def test_multiplies_no_zeros_of_a_stride(stride):
    """On the CPU the input gradient costs 16/9 of the forward pass at most, not the stride's square."""

    def cost(function):
        images, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
        return jax.jit(function).lower(images, kernel).compile().cost_analysis()["flops"]

    def forward(images, kernel):
        return convolution(images, kernel, (stride, stride), ((1, 1), (1, 1)))

    def backward(images, kernel):
        return jax.vjp(lambda x: forward(x, kernel), images)[1](jnp.ones((2, 16 // stride, 16 // stride, 8)))

    assert cost(backward) < (1.05 if stride == 1 else 16 / 9 * 1.1) * cost(forward)


@pytest.mark.parametrize("size", [1, 2])
def test_images_smaller_than_the_kernel_are_multiplied_by_a_matrix(size):
    """On the CPU, where XLA has no fast path for them; forward and for the gradient by the images."""
    images, kernel = jnp.ones((2, size, size, 8)), jnp.ones((3, 3, 8, 8))

    def total(images):
        return convolution(images, kernel, (1, 1), ((1, 1), (1, 1))).sum()

    for function in (total, jax.grad(total)):
        assert "convolution(" not in jax.jit(function).lower(images).compile().as_text()


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
    experiment = create_experiment(config)
    images, labels = accuracy.replicated(experiment.dataset.train)
    index = step.shard(np.arange(config.optim.batch_size, dtype=np.int32))
    mapped = train.create_step(config, experiment)
    arguments = experiment.state_shapes(), experiment.step_key, images, labels, index
    program = jax.jit(mapped).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    assert "optimization_barrier" not in program
    assert "f64" not in program
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) > 20
    for line in convolutions:
        assert ("bf16" in line) == (dtype == "bfloat16"), line
