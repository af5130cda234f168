"""Networks for small images: `create` returns a Flax module that maps images in [0, 1] to logits."""

from jaxrw.networks.architectures import ARCHITECTURES, DTYPES, MAX_DEPTH, Network, ResNet, WideResNet, create

__all__ = ["ARCHITECTURES", "DTYPES", "MAX_DEPTH", "Network", "ResNet", "WideResNet", "create"]
