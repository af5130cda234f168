"""What all networks share: their fields, layers, initialisations and last layer."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrw.networks.convolution import for_flax

Initializer = Callable[..., jax.Array]
Layer = Callable[..., nn.Module]  # the constructor of a layer

ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu}

# PyTorch's default: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He initialization by fan out: normal with variance 2 / (kernel height * kernel width * output channels).
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def torch_bias(fan_in: int) -> Initializer:
    """Returns PyTorch's default for the bias of a dense layer: uniform in +-1/sqrt(fan_in)."""
    limit = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class Network(nn.Module):
    """Fields and layers of every network; see `jaxrw.networks.create`."""

    num_classes: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    dtype: jnp.dtype = jnp.dtype("float32")
    axis_name: str | None = None

    # Share of BatchNorm's running statistics that a training step keeps.
    statistics_momentum: ClassVar[float] = 0.9

    def _normalize(self, images: jax.Array) -> jax.Array:
        """Subtracts the mean and divides by the std: by the variables that came with weights, else by the fields."""
        chex.assert_rank(images, 4)
        _, height, width, channels = images.shape
        check(min(height, width) >= 8, f"images are {height}x{width}; must be at least 8x8")
        mean, std = self.mean, self.std
        if self.has_variable("normalization", "mean"):
            mean, std = (self.get_variable("normalization", name) for name in ("mean", "std"))
        if mean is None:
            return images
        check(
            len(mean) == channels,
            f"model.mean has {len(mean)} numbers; the images have {channels} channels",
        )
        return (images - jnp.array(mean, images.dtype)) / jnp.array(std, images.dtype)

    def _layers(self, kernel_init: Initializer, train: bool) -> tuple[Layer, Layer]:
        """Returns constructors of convolutions and of BatchNorm.

        The running variance of BatchNorm is the biased one; PyTorch's is unbiased, which makes no practical difference.
        """
        conv = functools.partial(_conv, kernel_init=kernel_init, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.statistics_momentum,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        return conv, norm


def _conv(
    channels: int,
    size: int,
    stride: int = 1,
    padding: int | Sequence[tuple[int, int]] | None = None,
    *,
    kernel_init: Initializer,
    dtype: jnp.dtype,
    name: str,
) -> nn.Conv:
    """Returns a convolution; its padding is symmetric by default, as in PyTorch; Flax's "SAME" differs at stride 2."""
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2 if padding is None else padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=for_flax,
        name=name,
    )


def blocks_of(prefix: str, stage_sizes: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yields name, stage (from 0) and stride of each block; every stage but the first begins with stride 2."""
    for stage, blocks in enumerate(stage_sizes):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            yield f"{prefix}{stage + 1}_block{block + 1}", stage, stride


def head(x: jax.Array, num_classes: int, *, bias_init: Initializer) -> jax.Array:
    """Applies the global average and the dense layer in float32; to be called in a module's compact method."""
    dense = nn.Dense(num_classes, kernel_init=torch_uniform, bias_init=bias_init, name="dense")
    return dense(x.mean((1, 2), dtype=jnp.float32))


def check(condition: bool, message: str) -> None:
    """Raises ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)
