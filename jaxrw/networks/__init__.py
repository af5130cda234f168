"""Networks: `create` returns a Flax module that maps images in [0, 1] to logits."""

from jaxrw.networks.architectures import ARCHITECTURES, DTYPES, MAX_DEPTH, create
from jaxrw.networks.base import Network
from jaxrw.networks.preactivation import DeepMindPreActResNet, DeepMindWideResNet, PreActResNet, WideResNet
from jaxrw.networks.resnets import BottleneckResNet, ImageNetResNet, ResNet

__all__ = [
    "ARCHITECTURES",
    "DTYPES",
    "MAX_DEPTH",
    "BottleneckResNet",
    "DeepMindPreActResNet",
    "DeepMindWideResNet",
    "ImageNetResNet",
    "Network",
    "PreActResNet",
    "ResNet",
    "WideResNet",
    "create",
]
