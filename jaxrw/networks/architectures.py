"""The networks that a config can name, and `create`, which builds them.

To add a network, write its Flax module and a function from a depth to its fields, add a record to `ARCHITECTURES`, and
add its PyTorch names to `jaxrw.networks.torch_layouts.LAYOUTS`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxrw.networks.base import ACTIVATIONS, Network, check
from jaxrw.networks.preactivation import (
    SHORTCUTS,
    DeepMindPreActResNet,
    DeepMindWideResNet,
    PreActResNet,
    WideResNet,
)
from jaxrw.networks.resnets import BottleneckResNet, ImageNetResNet, ResNet

DTYPES = ("float32", "bfloat16")

# The deepest network of He et al. 2016. Each layer costs milliseconds even before anything is compiled.
MAX_DEPTH = 1202


def create(
    name: str,
    num_classes: int,
    *,
    depth: int | None = None,
    width: int | None = None,
    activation: str | None = None,
    shortcut: str | None = None,
    last_norm: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: str = "float32",
    axis_name: str | None = None,
) -> Network:
    """Creates a Flax module that maps images [B, H, W, C] in [0, 1] and `train` to logits [B, K] float32.

    H and W must be at least 8; any number of channels is accepted. Parameters, statistics and logits are float32,
    whatever `dtype` is.

    Args:
      name: a key of `ARCHITECTURES`, such as "resnet18", "wrn34_10", or "wrn", which needs `depth` and `width`.
      num_classes: K, at least 2.
      depth: number of layers, at most `MAX_DEPTH`: 34 or 8n + 2 for a ResNet or PreActResNet, 50, 101, 152 or 12n + 2
        for a ResNet of bottlenecks, 6n + 4 for a WideResNet. None: that of the name.
      width: channels of the first stage of a ResNet, before the factor 4 of bottlenecks; factor on 16, 32 and 64
        channels for a WideResNet. None: that of the name.
      activation: "silu" or "relu", of DeepMind's networks alone. None: silu.
      shortcut: of "preact_resnet18" alone, what its convolved shortcuts start from: "activated" or "raw", see
        `PreActResNet`. None: activated.
      last_norm: of "preact_resnet18" alone, whether BatchNorm and ReLU follow the last block. None: they do.
      mean: C numbers in units of [0, 1] that the network subtracts from its images, or None.
      std: C positive numbers that it then divides by; None iff `mean` is None.
      dtype: of the activations between the first and the last layer, "float32" or "bfloat16". The statistics of
        BatchNorm, the global average and the last layer are computed in float32 in either case.
      axis_name: mapped axis over which BatchNorm averages its statistics in training, or None.

    Raises:
      ValueError: unknown name or dtype, impossible number of classes, depth or width, a field that the network does
        not have, or unusable mean and std.
    """
    check(name in ARCHITECTURES, f"model.name is {name!r}; choose one of {', '.join(ARCHITECTURES)}")
    check(dtype in DTYPES, f"model.dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    check(num_classes >= 2, f"the number of classes is {num_classes}; must be at least 2")
    architecture = ARCHITECTURES[name]
    depth = architecture.depth if depth is None else depth
    width = architecture.width if width is None else width
    if depth is None or width is None:
        raise ValueError(
            f"model.depth is {depth} and model.width is {width}; {name} needs both, as in 28 and 10"
        )
    check(depth <= MAX_DEPTH, f"model.depth is {depth}; must be at most {MAX_DEPTH}")
    check(width >= 1, f"model.width is {width}; must be at least 1")
    given = {"activation": activation, "shortcut": shortcut, "last_norm": last_norm}
    options = _check_options(name, {field: value for field, value in given.items() if value is not None})
    if (mean is None) != (std is None):
        raise ValueError(f"model.mean is {mean} and model.std is {std}; give both or none")
    if mean is not None and std is not None:
        mean, std = tuple(mean), tuple(std)
        _check_normalization(mean, std)
    return architecture.network(
        **architecture.sizes(depth) | options | {"width": width},
        num_classes=num_classes,
        mean=mean,
        std=std,
        dtype=jnp.dtype(dtype),
        axis_name=axis_name,
    )


def _check_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that only some networks have; raises ValueError if this one has them not, or not so."""
    for field, value in options.items():
        values = ARCHITECTURES[name].options.get(field, ())
        check(len(values) > 0, f"model.{field} is {value!r}; {name} has no such field: leave it out")
        check(value in values, f"model.{field} is {value!r}; choose one of {', '.join(map(str, values))}")
    return options


def _check_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises ValueError if images cannot be normalized so."""
    for field, numbers in (("mean", mean), ("std", std)):
        check(
            len(numbers) > 0 and all(isinstance(number, int | float) for number in numbers),
            f"model.{field} is {numbers}; must be one number per channel, as (0.5, 0.5, 0.5)",
        )
    check(
        len(std) == len(mean) and min(std) > 0,
        f"model.std is {std}; must be positive and as many as model.mean has",
    )


def _resnet(depth: int) -> dict[str, Any]:
    if depth == 34:
        return {"stage_sizes": (3, 4, 6, 3)}
    check(
        depth >= 10 and depth % 8 == 2,
        f"model.depth is {depth}; a ResNet's is 34 or 8n + 2, as in 10, 18, 26",
    )
    return {"stage_sizes": (depth // 8,) * 4}


def _bottleneck_resnet(depth: int) -> dict[str, Any]:
    named = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
    if depth in named:
        return {"stage_sizes": named[depth]}
    check(
        depth >= 14 and depth % 12 == 2,
        f"model.depth is {depth}; that of a ResNet of bottlenecks is 50, 101, 152 or 12n + 2, as in 14, 26, 38",
    )
    return {"stage_sizes": (depth // 12,) * 4}


def _wide_resnet(depth: int) -> dict[str, Any]:
    check(
        depth >= 10 and depth % 6 == 4,
        f"model.depth is {depth}; a WideResNet's is 6n + 4, as in 10, 28, 34",
    )
    return {"blocks": depth // 6}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network that a config can name.

    Attributes:
      name: as in configs.
      title: as in tables, with the default depth and width.
      sized_title: as in tables if a config sets them; a format of `depth` and possibly `width`.
      network: the Flax module.
      sizes: depth -> fields of the module; raises ValueError for an impossible depth.
      depth: default; None if the config has to set it.
      width: default; None if the config has to set it.
      options: further fields of the module that a config can set, and their values, the default first.
    """

    name: str
    title: str
    sized_title: str
    network: type[Network]
    sizes: Callable[[int], dict[str, Any]]
    depth: int | None = None
    width: int | None = None
    options: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    def label(self, depth: int | None, width: int | None, **options: Any) -> str:
        """Returns the title of the network with the depth, width and options that its config sets, if any."""
        label, notes = self.title, []
        if depth is not None or width is not None:
            label = self.sized_title.format(
                depth=self.depth if depth is None else depth, width=self.width if width is None else width
            )
            if width is not None and "{width}" not in self.sized_title:
                notes = [f"width {width}"]
        for field, (default, *_) in self.options.items():
            if options.get(field) not in (None, default):
                notes.append(f"{field} {options[field]}")
        return f"{label} ({', '.join(notes)})" if notes else label


_ACTIVATIONS = {"activation": ("silu", *(name for name in ACTIVATIONS if name != "silu"))}
ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("resnet18", "ResNet-18", "ResNet-{depth}", ResNet, _resnet, 18, 64),
        Architecture("wrn34_10", "WRN-34-10", "WRN-{depth}-{width}", WideResNet, _wide_resnet, 34, 10),
        Architecture("wrn", "wrn", "WRN-{depth}-{width}", WideResNet, _wide_resnet),
        Architecture(
            "preact_resnet18",
            "PreActResNet-18",
            "PreActResNet-{depth}",
            PreActResNet,
            _resnet,
            18,
            64,
            {"shortcut": SHORTCUTS, "last_norm": (True, False)},
        ),
        Architecture(
            "dm_wrn",
            "DeepMind WRN-28-10",
            "DeepMind WRN-{depth}-{width}",
            DeepMindWideResNet,
            _wide_resnet,
            28,
            10,
            _ACTIVATIONS,
        ),
        Architecture(
            "dm_preact_resnet18",
            "DeepMind PreActResNet-18",
            "DeepMind PreActResNet-{depth}",
            DeepMindPreActResNet,
            _resnet,
            18,
            64,
            _ACTIVATIONS,
        ),
        Architecture("resnet50", "ResNet-50", "ResNet-{depth}", BottleneckResNet, _bottleneck_resnet, 50, 64),
        Architecture(
            "imagenet_resnet50",
            "ResNet-50 for 224x224",
            "ResNet-{depth} for 224x224",
            ImageNetResNet,
            _bottleneck_resnet,
            50,
            64,
        ),
    )
}
