"""ResNet and WideResNet for small images, as the robustness literature trains them.

Pixels in [0, 1] go in, logits come out. Parameters, statistics and logits are float32, whatever `dtype` is.
"""

import dataclasses
from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrw.networks.convolution import for_flax

DTYPES = ("float32", "bfloat16")

# The deepest network of He et al. 2016; each layer costs some milliseconds even before anything is compiled.
MAX_DEPTH = 1202

# PyTorch's default: uniform(+-1/sqrt(fan_in)).
_torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# He initialisation by the fan out: normal(0, sqrt(2 / (k k out))).
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def create(
    name, num_classes, *, depth=None, width=None, mean=None, std=None, dtype="float32", axis_name=None
):
    """Flax module: images [B, H, W, C] in [0, 1], `train` -> logits [B, K] float32.

    Any number of channels, any H and W of at least 8.

    Args:
      name: "resnet18", "wrn34_10", or "wrn", which needs `depth` and `width`.
      num_classes: K, at least 2.
      depth: None: 18 or 34; at most `MAX_DEPTH`. ResNet: 8n + 2, or 34 for the usual (3, 4, 6, 3); WideResNet: 6n + 4.
      width: None: 64 or 10. ResNet: channels of the first stage; WideResNet: the factor on 16, 32, 64.
      mean: one number per channel in [0, 1], subtracted first; None: nothing is.
      std: one positive number per channel, divided by after `mean`; None: nothing is.
      dtype: "float32" or "bfloat16", of the activations between the first and the last layer; BatchNorm computes
        its statistics in float32, and the average over the pixels and the last layer stay float32.
      axis_name: mapped axis over which BatchNorm's statistics are averaged while training.

    Raises:
      ValueError: unknown name or dtype, impossible depth or width, mean without std.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"model.name is {name!r}; choose one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    depth = architecture.depth if depth is None else depth
    width = architecture.width if width is None else width
    if dtype not in DTYPES:
        raise ValueError(f"model.dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    if num_classes < 2:
        raise ValueError(f"the number of classes is {num_classes}; must be at least 2")
    if depth is None or width is None:
        raise ValueError(
            f"model.depth is {depth} and model.width is {width}; {name} needs both, as in 28 and 10"
        )
    if depth > MAX_DEPTH:
        raise ValueError(f"model.depth is {depth}; must be at most {MAX_DEPTH}")
    if width < 1:
        raise ValueError(f"model.width is {width}; must be at least 1")
    if (mean is None) != (std is None):
        raise ValueError(f"model.mean is {mean} and model.std is {std}; give both or none")
    for field, values in (("mean", mean), ("std", std)):
        if values is not None and not (
            len(values) and all(isinstance(value, int | float) for value in values)
        ):
            raise ValueError(
                f"model.{field} is {tuple(values)}; must be one number per channel, as (0.5, 0.5, 0.5)"
            )
    if std is not None and (len(std) != len(mean) or min(std) <= 0):
        raise ValueError(f"model.std is {tuple(std)}; must be positive and as many as model.mean has")
    fields = {
        "num_classes": num_classes,
        "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std),
        "dtype": jnp.dtype(dtype),
        "axis_name": axis_name,
    }
    if architecture.family is ResNet:
        return ResNet(stage_sizes=_resnet_stages(depth), width=width, **fields)
    return WideResNet(blocks=_wide_blocks(depth), width=width, **fields)


def _resnet_stages(depth):
    """Blocks of the four stages of a ResNet of two-convolution blocks."""
    if depth == 34:
        return (3, 4, 6, 3)
    if depth < 10 or depth % 8 != 2:
        raise ValueError(f"model.depth is {depth}; a ResNet's is 34 or 8n + 2, as in 10, 18, 26")
    return (depth // 8,) * 4


def _wide_blocks(depth):
    """Blocks of each of the three groups of a WideResNet."""
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"model.depth is {depth}; a WideResNet's is 6n + 4, as in 10, 28, 34")
    return depth // 6


class _Network(nn.Module):
    """Fields of both networks."""

    num_classes: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    dtype: jnp.dtype = jnp.dtype("float32")
    axis_name: str | None = None


class ResNet(_Network):
    """Post-activation ResNet for small images: 3x3 stem, no max-pool (He et al. 2016).

    With the defaults and 10 classes: 11,173,962 parameters.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64

    @nn.compact
    def __call__(self, images, train):
        """Logits [B, K] of images [B, H, W, C] in [0, 1]; `train`: statistics of this batch, not the running ones."""
        layers = _Layers(_torch_uniform, self.dtype, self.axis_name, train)
        x = _normalize(images, *_mean_and_std(self))
        x = nn.relu(layers.norm("norm_stem")(layers.conv(self.width, 3, 1, "conv_stem")(x)))
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = _ResNetBlock(
                    self.width * 2**stage, stride, layers, name=f"stage{stage + 1}_block{block + 1}"
                )(x)
        return _head(x, self.num_classes, bias_init=_dense_bias(x.shape[-1]))


class WideResNet(_Network):
    """Pre-activation WideResNet without dropout (Zagoruyko & Komodakis 2016), as TRADES and MAIL use it.

    WRN-34-10, which is `blocks=5, width=10`: 46,160,474 parameters with 10 classes, 46,218,164 with 100.
    """

    blocks: int = 5
    width: int = 10

    @nn.compact
    def __call__(self, images, train):
        """Logits [B, K] of images [B, H, W, C] in [0, 1]; `train`: statistics of this batch, not the running ones."""
        layers = _Layers(_he_normal, self.dtype, self.axis_name, train)
        x = layers.conv(16, 3, 1, "conv_stem")(_normalize(images, *_mean_and_std(self)))
        for group in range(3):
            for block in range(self.blocks):
                stride = 2 if group > 0 and block == 0 else 1
                channels = 16 * 2**group * self.width
                x = _WideBlock(channels, stride, layers, name=f"group{group + 1}_block{block + 1}")(x)
        x = nn.relu(layers.norm("norm_head")(x))
        return _head(x, self.num_classes, bias_init=nn.initializers.zeros_init())


class _ResNetBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum."""

    channels: int
    stride: int
    layers: "_Layers"

    @nn.compact
    def __call__(self, x):
        conv, norm = self.layers.conv, self.layers.norm
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.channels:
            shortcut = norm("norm_shortcut")(conv(self.channels, 1, self.stride, "conv_shortcut")(x))
        x = nn.relu(norm("norm1")(conv(self.channels, 3, self.stride, "conv1")(x)))
        x = norm("norm2")(conv(self.channels, 3, 1, "conv2")(x))
        return nn.relu(x + shortcut)


class _WideBlock(nn.Module):
    """BatchNorm and ReLU before each of two 3x3 convolutions; where the shape changes, the shortcut shares them."""

    channels: int
    stride: int
    layers: "_Layers"

    @nn.compact
    def __call__(self, x):
        conv, norm = self.layers.conv, self.layers.norm
        activated = nn.relu(norm("norm1")(x))
        shortcut = x
        if x.shape[-1] != self.channels:
            shortcut = conv(self.channels, 1, self.stride, "conv_shortcut")(activated)
        x = nn.relu(norm("norm2")(conv(self.channels, 3, self.stride, "conv1")(activated)))
        return conv(self.channels, 3, 1, "conv2")(x) + shortcut


class _Layers:
    """The two layers that all blocks are made of, with what the whole network agrees on."""

    def __init__(self, kernel_init, dtype, axis_name, train):
        self.kernel_init, self.dtype, self.axis_name, self.train = kernel_init, dtype, axis_name, train

    def conv(self, channels, size, stride, name):
        """Convolution without bias, padded alike on both sides as in PyTorch ("SAME" is not, at stride 2)."""
        return nn.Conv(
            channels,
            (size, size),
            strides=(stride, stride),
            padding=[(size // 2, size // 2)] * 2,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            conv_general_dilated=for_flax,
            name=name,
        )

    def norm(self, name):
        """BatchNorm; the running variance is the biased one where PyTorch keeps the unbiased: immaterial."""
        return nn.BatchNorm(
            use_running_average=not self.train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name=name,
        )


def _mean_and_std(module):
    """What a network normalises by: what came with its weights, as variables, or else its fields."""
    if module.has_variable("normalization", "mean"):
        return tuple(module.get_variable("normalization", name) for name in ("mean", "std"))
    return module.mean, module.std


def _normalize(images, mean, std):
    """First layer: subtract the mean and divide by std if the model carries them, so that eps means pixels."""
    chex.assert_rank(images, 4)
    if min(images.shape[1:3]) < 8:
        raise ValueError(f"images are {images.shape[1]}x{images.shape[2]}; must be at least 8x8")
    if mean is None:
        return images
    if len(mean) != images.shape[-1]:
        raise ValueError(f"model.mean has {len(mean)} numbers; the images have {images.shape[-1]} channels")
    return (images - jnp.array(mean, images.dtype)) / jnp.array(std, images.dtype)


def _dense_bias(fan_in):
    """PyTorch's default for a dense bias: uniform(+-1/sqrt(fan_in))."""
    limit = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


def _head(x, num_classes, *, bias_init):
    """Global average and the dense layer, in float32; only ever called inside a module's compact method."""
    return nn.Dense(num_classes, kernel_init=_torch_uniform, bias_init=bias_init, name="dense")(
        x.mean((1, 2), dtype=jnp.float32)
    )


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network that a config can name.

    Attributes:
      name: as in configs.
      title: as in tables; completed by depth and width where a config sets them, see `label`.
      family: class of the Flax module.
      depth: if the config sets none; None: it has to.
      width: likewise.
    """

    name: str
    title: str
    family: type[_Network]
    depth: int | None = None
    width: int | None = None

    def label(self, depth: int | None, width: int | None) -> str:
        """Returns the title of the network with the depth and width that its config sets, if any."""
        if depth is None and width is None:
            return self.title
        real_depth = self.depth if depth is None else depth
        if self.family is WideResNet:
            return f"WRN-{real_depth}-{self.width if width is None else width}"
        return f"ResNet-{real_depth}" + ("" if width is None else f" (width {width})")


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("resnet18", "ResNet-18", ResNet, 18, 64),
        Architecture("wrn34_10", "WRN-34-10", WideResNet, 34, 10),
        Architecture("wrn", "wrn", WideResNet),
    )
}
