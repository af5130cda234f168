"""Residual networks with the activation after the sum (He et al. 2016)."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from jaxrw.networks.base import (
    Initializer,
    Layer,
    Network,
    blocks_of,
    he_normal,
    head,
    torch_bias,
    torch_uniform,
)


class ResNet(Network):
    """Post-activation ResNet for small images: 3x3 stem, no max-pool (He et al. 2016).

    With the defaults and 10 classes: 11,173,962 parameters.
    """

    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(torch_uniform, train)
        x = conv(self.width, 3, name="conv_stem")(self._normalize(images))
        x = nn.relu(norm(name="norm_stem")(x))
        for name, stage, stride in blocks_of("stage", self.stage_sizes):
            x = _ResNetBlock(self.width * 2**stage, stride, conv, norm, name=name)(x)
        return head(x, self.num_classes, bias_init=torch_bias(x.shape[-1]))


class BottleneckResNet(Network):
    """ResNet of 50 layers and more for small images, as RobustBench's: 3x3 stem, no max-pool, stride in the 3x3.

    With the defaults and 10 classes: 23,520,842 parameters.
    """

    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    width: int = 64
    kernel_init: Initializer = torch_uniform

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Returns logits [B, K]; `train` selects the statistics of the batch instead of the running ones."""
        conv, norm = self._layers(self.kernel_init, train)
        x = self._stem(conv, norm, self._normalize(images))
        for name, stage, stride in blocks_of("stage", self.stage_sizes):
            x = _Bottleneck(self.width * 2**stage, stride, conv, norm, name=name)(x)
        return head(x, self.num_classes, bias_init=torch_bias(x.shape[-1]))

    @nn.nowrap
    def _stem(self, conv: Layer, norm: Layer, images: jax.Array) -> jax.Array:
        x = conv(self.width, 3, name="conv_stem")(images)
        return nn.relu(norm(name="norm_stem")(x))


class ImageNetResNet(BottleneckResNet):
    """ResNet of 50 layers and more for images of 224x224, as torchvision's: 7x7 stem of stride 2, then a max-pool.

    With the defaults and 1,000 classes: 25,557,032 parameters.
    """

    kernel_init: Initializer = he_normal

    @nn.nowrap
    def _stem(self, conv: Layer, norm: Layer, images: jax.Array) -> jax.Array:
        x = conv(self.width, 7, 2, name="conv_stem")(images)
        x = nn.relu(norm(name="norm_stem")(x))
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


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


class _Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution to four times the channels, and a shortcut, with ReLU after the sum."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shortcut = x
        if self.stride != 1 or x.shape[-1] != 4 * self.channels:
            shortcut = self.conv(4 * self.channels, 1, self.stride, name="conv_shortcut")(x)
            shortcut = self.norm(name="norm_shortcut")(shortcut)
        x = nn.relu(self.norm(name="norm1")(self.conv(self.channels, 1, name="conv1")(x)))
        x = nn.relu(self.norm(name="norm2")(self.conv(self.channels, 3, self.stride, name="conv2")(x)))
        x = self.norm(name="norm3")(self.conv(4 * self.channels, 1, name="conv3")(x))
        return nn.relu(x + shortcut)
