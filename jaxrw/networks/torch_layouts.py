"""Names of each family of networks in public PyTorch files, and which network a file's names and shapes are of.

ResNets have the names of MAIL, MART and RobustBench (`layer1.0.conv1`, `shortcut.0`, `linear`), WideResNets those of
TRADES, Bag-of-Tricks, AWP and RobustBench (`block1.layer.0.conv1`, `convShortcut`, `fc`), PreActResNets those of Fast
AT and Rice et al., DeepMind's those of its `model_zoo.py`, and the ResNet for 224x224 those of torchvision.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw import networks
from jaxrw.networks import normalizations
from jaxrw.networks.normalizations import Statistics


@dataclasses.dataclass(frozen=True)
class TorchLayout:
    """Names that the networks of a family have in PyTorch.

    Attributes:
      block: name of a block, a format of `stage` (from 1), `stage0` (from 0) and `index` (from 0).
      layers: PyTorch's name by Flax's for the layers whose names differ.
      convolutions: number of convolutions in a block.
      others: number of layers outside of blocks that the depth in the network's name counts.
      unit: channels of a network of width 1 in the first stage.
      statistics: mean and std that its authors keep outside of the file, by number of classes; empty if they keep them
        inside, or use none.
    """

    block: str
    layers: Mapping[str, str]
    convolutions: int = 2
    others: int = 2
    unit: int = 1
    statistics: Mapping[int, Statistics] = dataclasses.field(default_factory=dict)

    def name(self, layer: str) -> str:
        """Returns PyTorch's name of a layer or block, given Flax's."""
        if block := re.fullmatch(r"(?:stage|group)(\d+)_block(\d+)", layer):
            stage, index = int(block[1]), int(block[2]) - 1
            return self.block.format(stage=stage, stage0=stage - 1, index=index)
        return self.layers.get(layer, layer)

    def number_of_blocks(self, names: Mapping[str, Any]) -> int:
        """Returns how many blocks the weights of these names have."""
        pattern = re.escape(self.block)
        for field in ("stage", "stage0", "index"):
            pattern = pattern.replace(re.escape(f"{{{field}}}"), r"\d+")
        return len({match[0] for name in names if (match := re.match(rf"{pattern}\.", name))})


_COMMON_LAYERS = {
    "conv_stem": "conv1",
    "norm_stem": "bn1",
    "norm_head": "bn1",
    "norm1": "bn1",
    "norm2": "bn2",
    "norm3": "bn3",
}
_RESNET_LAYERS = _COMMON_LAYERS | {
    "conv_shortcut": "shortcut.0",
    "norm_shortcut": "shortcut.1",
    "dense": "linear",
}
_DEEPMIND_LAYERS = {
    "norm1": "batchnorm_0",
    "norm2": "batchnorm_1",
    "conv_shortcut": "shortcut",
    "norm_head": "batchnorm",
    "dense": "logits",
}
# DeepMind's code normalizes by those of CIFAR-10 and CIFAR-100.
_DEEPMIND_STATISTICS = {10: normalizations.CIFAR10, 100: normalizations.CIFAR100}
LAYOUTS: dict[type[networks.Network], TorchLayout] = {
    networks.ResNet: TorchLayout("layer{stage}.{index}", _RESNET_LAYERS),
    networks.BottleneckResNet: TorchLayout("layer{stage}.{index}", _RESNET_LAYERS, convolutions=3),
    networks.ImageNetResNet: TorchLayout(
        "layer{stage}.{index}",
        _COMMON_LAYERS | {"conv_shortcut": "downsample.0", "norm_shortcut": "downsample.1", "dense": "fc"},
        convolutions=3,
    ),
    networks.WideResNet: TorchLayout(
        "block{stage}.layer.{index}",
        _COMMON_LAYERS | {"conv_shortcut": "convShortcut", "dense": "fc"},
        others=4,
        unit=16,
    ),
    networks.PreActResNet: TorchLayout(
        "layer{stage}.{index}",
        _COMMON_LAYERS | {"conv_shortcut": "shortcut.0", "norm_head": "bn", "dense": "linear"},
    ),
    networks.DeepMindWideResNet: TorchLayout(
        "layer.{stage0}.block.{index}",
        _DEEPMIND_LAYERS | {"conv_stem": "init_conv", "conv1": "conv_0", "conv2": "conv_1"},
        others=4,
        unit=16,
        statistics=_DEEPMIND_STATISTICS,
    ),
    networks.DeepMindPreActResNet: TorchLayout(
        "layer_{stage0}.{index}",
        _DEEPMIND_LAYERS | {"conv_stem": "conv_2d", "conv1": "conv_2d_1", "conv2": "conv_2d_2"},
        statistics=_DEEPMIND_STATISTICS,
    ),
}

# PyTorch's name of a variable by Flax's, in any layer.
_VARIABLES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}

# Names of the last layer; public models of one family differ in it.
_DENSE = re.compile(r"^(?:fc|linear|logits)\.")

# Number of names that a message lists for each kind of mismatch.
_MOST_NAMES = 8


def torch_name(path: tuple[str, ...], network: type[networks.Network]) -> str:
    """Returns PyTorch's name of a variable, given its path (collection, block or layer, ..., variable)."""
    _, *layers, variable = path
    layout = LAYOUTS[network]
    return ".".join([*(layout.name(layer) for layer in layers), _VARIABLES[variable]])


def shapes(module: networks.Network, channels: int) -> dict[str, Any]:
    """Returns the shapes and types of the module's parameters and statistics, for images of so many channels."""
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    return {collection: variables[collection] for collection in ("params", "batch_stats")}


def to_torch(array: np.ndarray) -> np.ndarray:
    """Transposes kernels HWIO -> OIHW and [in, out] -> [out, in]; leaves vectors as they are."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def from_torch(array: np.ndarray) -> np.ndarray:
    """Transposes kernels OIHW -> HWIO and [out, in] -> [in, out]; leaves vectors as they are."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Weights beside a network that they may be of.

    Attributes:
      module: the network.
      weights: by PyTorch's names, the last layer's as the network's family calls it.
      paths: paths of the network's variables by their PyTorch names.
      missing: names that the weights lack.
      extra: names that the network lacks.
      wrong: names whose shapes differ, with both shapes.
    """

    module: networks.Network
    weights: Mapping[str, np.ndarray]
    paths: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def mistakes(self) -> int:
        """Number of names in which they differ; 0 iff the weights fit."""
        return len(self.missing) + len(self.extra) + len(self.wrong)

    def describe(self) -> str:
        """Returns the first names of each kind of mismatch."""
        parts = [f"{word} {_some(names)}" for word in ("missing", "extra") if (names := getattr(self, word))]
        return "; ".join([*parts, *([_some(self.wrong)] if self.wrong else [])])


def compare(weights: Mapping[str, np.ndarray], module: networks.Network) -> Comparison:
    """Compares the names and shapes of weights with those of a network."""
    network = type(module)
    layout = LAYOUTS[network]
    dense = f"{layout.name('dense')}."
    if not any(name.startswith(dense) for name in weights):
        weights = {_DENSE.sub(dense, name): value for name, value in weights.items()}
    stem = weights.get(f"{layout.name('conv_stem')}.weight")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    leaves = flax.traverse_util.flatten_dict(shapes(module, channels))
    paths = {torch_name(path, network): path for path in leaves}
    wanted = {name: to_torch(np.empty(leaves[path].shape, bool)).shape for name, path in paths.items()}
    wrong = [
        f"{name} is {weights[name].shape}, must be {shape}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    missing, extra = sorted(paths.keys() - weights), sorted(weights.keys() - paths)
    return Comparison(module, weights, paths, tuple(missing), tuple(extra), tuple(wrong))


@dataclasses.dataclass(frozen=True)
class Likeness:
    """The network that weights look most like.

    Attributes:
      title: as in tables.
      fields: of `jaxrw.networks.create`, without those that a file does not show, `num_classes` among them.
      unseen: options of the network that a file does not show, and their values.
      comparison: with that network.
    """

    title: str
    fields: Mapping[str, Any]
    unseen: Mapping[str, tuple[Any, ...]]
    comparison: Comparison


def recognise(weights: Mapping[str, np.ndarray]) -> Likeness | None:
    """Returns the network that the names and shapes of weights look most like; None if they look like none."""
    likenesses = []
    for network, layout in LAYOUTS.items():
        size = _size(weights, layout)
        if size is None:
            continue
        depth, width, num_classes = size
        same = [a for a in networks.ARCHITECTURES.values() if a.network is network]
        named = [a for a in same if (a.depth, a.width) == (depth, width)]
        architecture = named[0] if named else same[-1]
        fields: dict[str, Any] = {"name": architecture.name, "num_classes": num_classes}
        if not named:
            fields |= {"depth": depth, "width": width}
        if "last_norm" in architecture.options and f"{layout.name('norm_head')}.weight" not in weights:
            fields["last_norm"] = False
        try:
            module = networks.create(**fields)
        except ValueError:  # a depth or a number of classes that no such network has
            continue
        shown = {field: value for field, value in fields.items() if field in architecture.options}
        unseen = {f: values for f, values in architecture.options.items() if f != "last_norm"}
        title = architecture.label(fields.get("depth"), fields.get("width"), **shown)
        likenesses.append(Likeness(title, fields, unseen, compare(weights, module)))
    return min(likenesses, key=lambda likeness: likeness.comparison.mistakes, default=None)


def _size(weights: Mapping[str, np.ndarray], layout: TorchLayout) -> tuple[int, int, int] | None:
    """Returns depth, width and number of classes of weights with the names of a layout; None if they have others."""
    blocks = layout.number_of_blocks(weights)
    first = weights.get(f"{layout.name('stage1_block1')}.{layout.name('conv1')}.weight")
    dense = [value for name, value in weights.items() if _DENSE.match(name) and name.endswith(".weight")]
    if blocks == 0 or first is None or first.ndim != 4 or not dense or dense[0].ndim != 2:
        return None
    if first.shape[0] % layout.unit:
        return None
    return (
        layout.convolutions * blocks + layout.others,
        first.shape[0] // layout.unit,
        dense[0].shape[0],
    )


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
