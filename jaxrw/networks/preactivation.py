"""Residual networks with BatchNorm and activation before each convolution: WideResNets and PreActResNets."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax

from jaxrw.networks.base import (
    ACTIVATIONS,
    Layer,
    Network,
    blocks_of,
    he_normal,
    head,
    torch_bias,
    torch_uniform,
)

SHORTCUTS = ("activated", "raw")

# Of DeepMind's networks; PyTorch's default is 0.9.
_DEEPMIND_MOMENTUM = 0.99


class WideResNet(Network):
    """Pre-activation WideResNet without dropout (Zagoruyko & Komodakis 2016), as TRADES and MAIL use it.

    With the defaults, WRN-34-10: 46,160,474 parameters for 10 classes, 46,218,164 for 100.
    """

    blocks: int = 5
    width: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(he_normal, train)
        x = conv(16, 3, name="conv_stem")(self._normalize(images))
        for name, group, stride in blocks_of("group", (self.blocks,) * 3):
            x = _Block(16 * 2**group * self.width, stride, conv, norm, name=name)(x)
        x = nn.relu(norm(name="norm_head")(x))
        return head(x, self.num_classes, bias_init=nn.initializers.zeros_init())


class DeepMindWideResNet(Network):
    """DeepMind's WideResNet (Gowal et al. 2020), which most models trained on generated images are.

    It differs from `WideResNet` in its activation, in padding images below and to the right alone at stride 2, and in
    its names in PyTorch files. It is initialised as in DM-Improves-AT (Wang et al. 2023). With the defaults, WRN-28-10:
    36,479,194 parameters for 10 classes.
    """

    blocks: int = 4
    width: int = 10
    activation: str = "silu"

    statistics_momentum: ClassVar[float] = _DEEPMIND_MOMENTUM

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(he_normal, train)
        activation = ACTIVATIONS[self.activation]
        x = conv(16, 3, name="conv_stem")(self._normalize(images))
        for name, group, stride in blocks_of("group", (self.blocks,) * 3):
            channels = 16 * 2**group * self.width
            x = _Block(channels, stride, conv, norm, self.activation, deepmind=True, name=name)(x)
        x = activation(norm(name="norm_head")(x))
        return head(x, self.num_classes, bias_init=nn.initializers.zeros_init())


class PreActResNet(Network):
    """Pre-activation ResNet for small images (He et al. 2016b), as Fast AT and Rice et al. use it.

    Public versions differ in two things: whether the convolved shortcut starts from the block's input ("raw", Fast AT)
    or from its first activation ("activated"), and whether BatchNorm and ReLU follow the last block. With the defaults
    and 10 classes: 11,172,170 parameters, 1,024 less without the last norm.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    shortcut: str = "activated"
    last_norm: bool = True

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(torch_uniform, train)
        x = conv(self.width, 3, name="conv_stem")(self._normalize(images))
        for name, stage, stride in blocks_of("stage", self.stage_sizes):
            x = _Block(self.width * 2**stage, stride, conv, norm, shortcut=self.shortcut, name=name)(x)
        if self.last_norm:
            x = nn.relu(norm(name="norm_head")(x))
        return head(x, self.num_classes, bias_init=torch_bias(x.shape[-1]))


class DeepMindPreActResNet(Network):
    """DeepMind's PreActResNet (Rebuffi et al. 2021): SiLU, and 3x3 convolutions of the raw input as shortcuts.

    At stride 2 it pads images below and to the right alone. With the defaults and 10 classes: 12,548,426 parameters.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    activation: str = "silu"

    statistics_momentum: ClassVar[float] = _DEEPMIND_MOMENTUM

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(he_normal, train)
        x = conv(self.width, 3, name="conv_stem")(self._normalize(images))
        for name, stage, stride in blocks_of("stage", self.stage_sizes):
            block = _Block(
                self.width * 2**stage,
                stride,
                conv,
                norm,
                self.activation,
                shortcut="raw",
                shortcut_size=3,
                deepmind=True,
                name=name,
            )
            x = block(x)
        x = ACTIVATIONS[self.activation](norm(name="norm_head")(x))
        return head(x, self.num_classes, bias_init=nn.initializers.zeros_init())


class _Block(nn.Module):
    """BatchNorm and activation before each of two 3x3 convolutions; a shortcut, convolved if the shape changes."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer
    activation: str = "relu"
    shortcut: str = "activated"
    shortcut_size: int = 1
    deepmind: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = ACTIVATIONS[self.activation]
        padding = self._padding(x.shape)
        activated = activation(self.norm(name="norm1")(x))
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.channels:
            start = activated if self.shortcut == "activated" else x
            around = padding if self.shortcut_size == 3 else None
            conv = self.conv(self.channels, self.shortcut_size, self.stride, around, name="conv_shortcut")
            shortcut = conv(start)
        x = self.conv(self.channels, 3, self.stride, padding, name="conv1")(activated)
        x = activation(self.norm(name="norm2")(x))
        return self.conv(self.channels, 3, name="conv2")(x) + shortcut

    def _padding(self, shape: Sequence[int]) -> list[tuple[int, int]] | None:
        """Returns the padding of the strided 3x3 convolutions; None for PyTorch's usual one.

        DeepMind's is a row below and a column to the right. Beside a 1x1 shortcut, which keeps the last row of an odd
        number, that gives one row too few: there it is one on each side, as its JAX code ("SAME") has it.
        """
        if not self.deepmind or self.stride == 1:
            return None
        return [(size % 2 if self.shortcut_size == 1 else 0, 1) for size in shape[1:3]]
