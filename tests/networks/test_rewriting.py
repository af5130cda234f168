"""Models with plain convolutions get fast ones on the CPU: same values, same gradients, nothing else touched."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrw import attacks, networks
from jaxrw.networks.rewriting import FastConvolutions

IMAGES = jax.random.uniform(jax.random.key(0), (4, 16, 12, 3))
KERNEL = jax.random.normal(jax.random.key(1), (6, 3, 3, 3))


class Linen(nn.Module):
    """Convolutions that can be rewritten, and some that cannot: with groups and with dilation."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(8, (3, 3))(x)))
        x = nn.gelu(nn.remat(nn.Conv)(8, (3, 3), strides=2)(x))
        x = nn.Conv(8, (3, 3), feature_group_count=4)(x)
        x = nn.Conv(8, (3, 3), kernel_dilation=2)(x)
        return nn.Dense(5)(nn.Conv(8, (5, 5), padding="VALID")(x).mean((1, 2)))


class Nnx(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.second = (nnx.Conv(3, 3, (3, 3), strides=s, rngs=rngs) for s in (1, 2))
        self.dense = nnx.Linear(3, 5, rngs=rngs)

    def __call__(self, x):
        return self.dense(nnx.silu(self.second(nnx.relu(self.first(x)))).mean((1, 2)))


def channels_first(x):
    """One example at a time with the channels first, as Equinox has it."""

    def one(image):
        numbers = ("NCHW", "OIHW", "NCHW")
        out = jax.lax.conv_general_dilated(image[None], KERNEL, (2, 1), "SAME", dimension_numbers=numbers)
        return jnp.tanh(out[0]).mean((1, 2))

    return jax.vmap(one)(jnp.transpose(x, (0, 3, 1, 2)))


def linen(**options):
    module = Linen()
    return functools.partial(module.apply, module.init(jax.random.key(0), IMAGES), **options)


MODELS = {
    "linen": (linen(train=False), 3),
    "jit": (jax.jit(linen()), 3),
    "nnx": (Nnx(), 2),
    "channels first": (channels_first, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_the_model(name):
    """To float32's rounding of sums of a hundred products of size 1."""
    model, number = MODELS[name]
    fast = FastConvolutions(model)
    assert str(jax.make_jaxpr(fast)(IMAGES)).count("custom_vjp_call") == number
    np.testing.assert_allclose(fast(IMAGES), model(IMAGES), atol=1e-6)
    gradients = [jax.grad(lambda x, f=f: (f(x) ** 2).sum())(IMAGES) for f in (fast, model)]
    np.testing.assert_allclose(*gradients, atol=1e-6)


def test_equal_functions_are_compiled_once():
    traced = []

    def model(x):
        traced.append(1)
        return channels_first(x)

    predict = jax.jit(lambda f, x: f(x), static_argnums=0)
    predict(FastConvolutions(model), IMAGES)
    number = len(traced)
    predict(FastConvolutions(model), IMAGES)
    assert len(traced) == number


def test_what_has_no_plain_convolution_is_left_alone():
    """jaxrw's own networks: the same program, to the last operation."""
    model = networks.create("resnet18", 5, depth=10, width=4)
    variables = jax.jit(lambda key: model.init(key, IMAGES, train=False))(jax.random.key(0))
    apply = functools.partial(model.apply, variables, train=False)
    programs = [
        jax.jit(lambda x, f=f: f(x)).lower(IMAGES).as_text() for f in (FastConvolutions(apply), apply)
    ]
    assert programs[0] == programs[1]


def test_attacks_use_fast_convolutions():
    """In the program of an attack on a plain model, every input gradient is that of a fast convolution."""
    attack = functools.partial(attacks.pgd, eps=0.1, step_size=0.01, num_steps=2)
    program = jax.make_jaxpr(lambda key, x: attack(key, channels_first, x, jnp.zeros(4, int)))
    text = program(jax.random.key(0), IMAGES).pretty_print(use_color=False)
    assert "optimization_barrier" in text
