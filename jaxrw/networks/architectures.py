"""ResNet and WideResNet for small images, as the robustness literature trains them.

To add a network, write its Flax module and a function that builds it for a depth, add a record to `ARCHITECTURES`, and
add its PyTorch names to `jaxrw.networks.torch_weights.LAYOUTS`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrw.networks.convolution import for_flax

Initializer = Callable[..., jax.Array]
Layer = Callable[..., nn.Module]  # the constructor of a layer

DTYPES = ("float32", "bfloat16")

# The deepest network of He et al. 2016. Each layer costs milliseconds even before anything is compiled.
MAX_DEPTH = 1202

# Share of BatchNorm's running statistics that a training step keeps.
STATISTICS_MOMENTUM = 0.9

# PyTorch's default: uniform in +-1/sqrt(fan_in).
_torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He initialization by fan out: normal with variance 2 / (kernel height * kernel width * output channels).
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def create(
    name: str,
    num_classes: int,
    *,
    depth: int | None = None,
    width: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: str = "float32",
    axis_name: str | None = None,
) -> "Network":
    """Creates a Flax module that maps images [B, H, W, C] in [0, 1] and `train` to logits [B, K] float32.

    H and W must be at least 8; any number of channels is accepted. Parameters, statistics and logits are float32,
    whatever `dtype` is.

    Args:
      name: a key of `ARCHITECTURES`: "resnet18", "wrn34_10", or "wrn", which needs `depth` and `width`.
      num_classes: K, at least 2.
      depth: number of layers, at most `MAX_DEPTH`: 34 or 8n + 2 for a ResNet, 6n + 4 for a WideResNet. None: 18 for
        "resnet18", 34 for "wrn34_10".
      width: channels of the first stage of a ResNet; factor on 16, 32 and 64 channels for a WideResNet. None: 64 for
        "resnet18", 10 for "wrn34_10".
      mean: C numbers in units of [0, 1] that the network subtracts from its images, or None.
      std: C positive numbers that it then divides by; None iff `mean` is None.
      dtype: of the activations between the first and the last layer, "float32" or "bfloat16". The statistics of
        BatchNorm, the global average and the last layer are computed in float32 in either case.
      axis_name: mapped axis over which BatchNorm averages its statistics in training, or None.

    Raises:
      ValueError: unknown name or dtype, impossible number of classes, depth or width, or unusable mean and std.
    """
    _check(name in ARCHITECTURES, f"model.name is {name!r}; choose one of {', '.join(ARCHITECTURES)}")
    _check(dtype in DTYPES, f"model.dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    _check(num_classes >= 2, f"the number of classes is {num_classes}; must be at least 2")
    architecture = ARCHITECTURES[name]
    depth = architecture.depth if depth is None else depth
    width = architecture.width if width is None else width
    if depth is None or width is None:
        raise ValueError(
            f"model.depth is {depth} and model.width is {width}; {name} needs both, as in 28 and 10"
        )
    _check(depth <= MAX_DEPTH, f"model.depth is {depth}; must be at most {MAX_DEPTH}")
    _check(width >= 1, f"model.width is {width}; must be at least 1")
    _check((mean is None) == (std is None), f"model.mean is {mean} and model.std is {std}; give both or none")
    if mean is not None and std is not None:
        mean, std = tuple(mean), tuple(std)
        for field, values in (("mean", mean), ("std", std)):
            _check(
                len(values) > 0 and all(isinstance(value, int | float) for value in values),
                f"model.{field} is {values}; must be one number per channel, as (0.5, 0.5, 0.5)",
            )
        _check(
            len(std) == len(mean) and min(std) > 0,
            f"model.std is {std}; must be positive and as many as model.mean has",
        )
    return architecture.build(
        depth,
        width=width,
        num_classes=num_classes,
        mean=mean,
        std=std,
        dtype=jnp.dtype(dtype),
        axis_name=axis_name,
    )


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


class Network(nn.Module):
    """Fields and layers of every network; see `create`."""

    num_classes: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    dtype: jnp.dtype = jnp.dtype("float32")
    axis_name: str | None = None

    def _normalize(self, images: jax.Array) -> jax.Array:
        """Subtracts the mean and divides by the std: by the variables that came with weights, else by the fields."""
        chex.assert_rank(images, 4)
        _, height, width, channels = images.shape
        _check(min(height, width) >= 8, f"images are {height}x{width}; must be at least 8x8")
        mean, std = self.mean, self.std
        if self.has_variable("normalization", "mean"):
            mean, std = (self.get_variable("normalization", name) for name in ("mean", "std"))
        if mean is None:
            return images
        _check(
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
            momentum=STATISTICS_MOMENTUM,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        return conv, norm


class ResNet(Network):
    """Post-activation ResNet for small images: 3x3 stem, no max-pool (He et al. 2016).

    With the defaults and 10 classes: 11,173,962 parameters.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(_torch_uniform, train)
        x = conv(self.width, 3, name="conv_stem")(self._normalize(images))
        x = nn.relu(norm(name="norm_stem")(x))
        for name, stage, stride in _blocks("stage", self.stage_sizes):
            x = _ResNetBlock(self.width * 2**stage, stride, conv, norm, name=name)(x)
        return _head(x, self.num_classes, bias_init=_torch_bias(x.shape[-1]))


class WideResNet(Network):
    """Pre-activation WideResNet without dropout (Zagoruyko & Komodakis 2016), as TRADES and MAIL use it.

    With the defaults, WRN-34-10: 46,160,474 parameters for 10 classes, 46,218,164 for 100.
    """

    blocks: int = 5
    width: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(_he_normal, train)
        x = conv(16, 3, name="conv_stem")(self._normalize(images))
        for name, group, stride in _blocks("group", (self.blocks,) * 3):
            x = _WideBlock(16 * 2**group * self.width, stride, conv, norm, name=name)(x)
        x = nn.relu(norm(name="norm_head")(x))
        return _head(x, self.num_classes, bias_init=nn.initializers.zeros_init())


class _ResNetBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with ReLU after the sum."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.channels:
            shortcut = self.conv(self.channels, 1, self.stride, name="conv_shortcut")(x)
            shortcut = self.norm(name="norm_shortcut")(shortcut)
        x = self.conv(self.channels, 3, self.stride, name="conv1")(x)
        x = nn.relu(self.norm(name="norm1")(x))
        x = self.conv(self.channels, 3, name="conv2")(x)
        x = self.norm(name="norm2")(x)
        return nn.relu(x + shortcut)


class _WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; a convolved shortcut shares the first of each."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activated = nn.relu(self.norm(name="norm1")(x))
        shortcut = x
        if x.shape[-1] != self.channels:
            shortcut = self.conv(self.channels, 1, self.stride, name="conv_shortcut")(activated)
        x = self.conv(self.channels, 3, self.stride, name="conv1")(activated)
        x = nn.relu(self.norm(name="norm2")(x))
        return self.conv(self.channels, 3, name="conv2")(x) + shortcut


def _blocks(prefix: str, stage_sizes: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yields name, stage (from 0) and stride of each block; every stage but the first begins with stride 2."""
    for stage, blocks in enumerate(stage_sizes):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            yield f"{prefix}{stage + 1}_block{block + 1}", stage, stride


def _conv(
    channels: int,
    size: int,
    stride: int = 1,
    *,
    kernel_init: Initializer,
    dtype: jnp.dtype,
    name: str,
) -> nn.Conv:
    """Returns a convolution with symmetric padding, as in PyTorch; Flax's "SAME" differs at stride 2."""
    return nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=for_flax,
        name=name,
    )


def _torch_bias(fan_in: int) -> Initializer:
    """Returns PyTorch's default for the bias of a dense layer: uniform in +-1/sqrt(fan_in)."""
    limit = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


def _head(x: jax.Array, num_classes: int, *, bias_init: Initializer) -> jax.Array:
    """Applies the global average and the dense layer in float32; to be called in a module's compact method."""
    dense = nn.Dense(num_classes, kernel_init=_torch_uniform, bias_init=bias_init, name="dense")
    return dense(x.mean((1, 2), dtype=jnp.float32))


def _resnet(depth: int, **fields: Any) -> ResNet:
    if depth == 34:
        return ResNet(stage_sizes=(3, 4, 6, 3), **fields)
    _check(
        depth >= 10 and depth % 8 == 2,
        f"model.depth is {depth}; a ResNet's is 34 or 8n + 2, as in 10, 18, 26",
    )
    return ResNet(stage_sizes=(depth // 8,) * 4, **fields)


def _wide_resnet(depth: int, **fields: Any) -> WideResNet:
    _check(
        depth >= 10 and depth % 6 == 4,
        f"model.depth is {depth}; a WideResNet's is 6n + 4, as in 10, 28, 34",
    )
    return WideResNet(blocks=depth // 6, **fields)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network that a config can name.

    Attributes:
      name: as in configs.
      title: as in tables, with the default depth and width.
      sized_title: as in tables if a config sets them; a format of `depth` and possibly `width`.
      build: (depth, **fields of the module) -> module; raises ValueError for an impossible depth.
      depth: default; None if the config has to set it.
      width: default; None if the config has to set it.
    """

    name: str
    title: str
    sized_title: str
    build: Callable[..., Network]
    depth: int | None = None
    width: int | None = None

    def label(self, depth: int | None, width: int | None) -> str:
        """Returns the title of the network with the depth and width that its config sets, if any."""
        if depth is None and width is None:
            return self.title
        label = self.sized_title.format(
            depth=self.depth if depth is None else depth, width=self.width if width is None else width
        )
        return label if width is None or "{width}" in self.sized_title else f"{label} (width {width})"


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("resnet18", "ResNet-18", "ResNet-{depth}", _resnet, 18, 64),
        Architecture("wrn34_10", "WRN-34-10", "WRN-{depth}-{width}", _wide_resnet, 34, 10),
        Architecture("wrn", "wrn", "WRN-{depth}-{width}", _wide_resnet),
    )
}
