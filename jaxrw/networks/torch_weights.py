"""Reads and writes weights under the names of public PyTorch models.

ResNets have the names of MAIL, MART and RobustBench (`layer1.0.conv1`, `shortcut.0`, `linear`), WideResNets those of
TRADES, Bag-of-Tricks, AWP and RobustBench (`block1.layer.0.conv1`, `convShortcut`, `fc`). Files are .safetensors, or
written by `torch.save` and read with `weights_only`, so that nothing in them is executed.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxrw import networks
from jaxrw.system import files
from jaxrw.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class TorchLayout:
    """Names that the networks of a family have in PyTorch.

    Attributes:
      block: name of a block, a format of `stage` (from 1) and `index` (from 0).
      layers: PyTorch's name by Flax's for the layers whose names differ.
      unused: prefixes of weights that are saved without being used for a prediction.
    """

    block: str
    layers: Mapping[str, str]
    unused: tuple[str, ...] = ()

    def name(self, layer: str) -> str:
        """Returns PyTorch's name of a layer or block, given Flax's."""
        if block := re.fullmatch(r"(?:stage|group)(\d+)_block(\d+)", layer):
            return self.block.format(stage=block[1], index=int(block[2]) - 1)
        return self.layers.get(layer, layer)


_COMMON_LAYERS = {
    "conv_stem": "conv1",
    "norm_stem": "bn1",
    "norm_head": "bn1",
    "norm1": "bn1",
    "norm2": "bn2",
}
LAYOUTS: dict[type[networks.Network], TorchLayout] = {
    networks.ResNet: TorchLayout(
        block="layer{stage}.{index}",
        layers=_COMMON_LAYERS
        | {"conv_shortcut": "shortcut.0", "norm_shortcut": "shortcut.1", "dense": "linear"},
    ),
    networks.WideResNet: TorchLayout(
        block="block{stage}.layer.{index}",
        layers=_COMMON_LAYERS | {"conv_shortcut": "convShortcut", "dense": "fc"},
        unused=("sub_block1.",),  # TRADES' networks have an unused copy of the first group.
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
_DENSE = re.compile(r"^(?:fc|linear)\.")

# Keys under which checkpoints keep the weights, if not at the top level.
_NESTED = ("state_dict", "model_state_dict", "net", "model")

# Prefixes of wrappers: DataParallel, torch.compile, a normalizing layer before the network.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|net|basic_net|1)\.)+")

# Names of the mean and the std of a normalizing layer.
_MEAN, _STD = re.compile(r"(?:.*\.)?(?:mean|mu)"), re.compile(r"(?:.*\.)?(?:std|sigma)")


def load(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    *,
    model: str | networks.Network,
    num_classes: int,
) -> dict[str, Any]:
    """Reads a PyTorch state dict as Flax variables of a model that takes images in [0, 1].

    Prefixes of wrappers (`module.`), `num_batches_tracked` and weights that no prediction uses are left out. A mean and
    std in the file become the collection `normalization`, which replaces the model's `mean` and `std`. If the file has
    none, its authors may still have normalized outside of the network, as Bag-of-Tricks does: then set the model's.

    Args:
      path_or_state_dict: a .safetensors file, any other file that `torch.save` wrote (needs torch), or a mapping from
        names to tensors or arrays, possibly nested below "state_dict", "model_state_dict", "net" or "model".
      model: a name for `jaxrw.networks.create`, or a module that it created.
      num_classes: K.

    Returns:
      {"params", "batch_stats"}, and "normalization" if there is a mean and std; float32 leaves.

    Raises:
      UserError: the file cannot be read or does not fit the model; names every missing and extra weight and every
        wrong shape.

    >>> load({}, model="resnet18", num_classes=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxrw.system.errors.UserError: the state dict does not fit ResNet with 10 classes: missing ...
    """
    module = networks.create(model, num_classes) if isinstance(model, str) else model
    if module.num_classes != num_classes:
        raise UserError(f"num_classes is {num_classes}, the model has {module.num_classes}; must be the same")
    if isinstance(path_or_state_dict, str | os.PathLike):
        title = str(path_or_state_dict)
        weights = _unwrap(_read(pathlib.Path(path_or_state_dict)), title)
    else:
        title = "the state dict"
        weights = _unwrap(path_or_state_dict, title)
    normalization = _pop_normalization(weights, title)
    variables = _to_variables(weights, module, title)
    if normalization:
        channels = variables["params"]["conv_stem"]["kernel"].shape[2]
        if any(values.shape != (channels,) for values in normalization.values()):
            raise UserError(f"{title} has a mean or std of other than {channels} numbers, one per channel")
        variables["normalization"] = normalization
    return variables


def save(path: str | os.PathLike[str], variables: Mapping[str, Any], *, model: networks.Network) -> None:
    """Writes variables as .safetensors that `load` and PyTorch networks of the same layout read.

    Args:
      path: of the file, replaced atomically.
      variables: of `model`. A mean and std are written as `mu` and `sigma` [1, C, 1, 1], as RobustBench names them.
      model: a module created by `jaxrw.networks.create`.
    """
    content = safetensors.numpy.save(to_state_dict(variables, model=model), metadata={"format": "pt"})
    with files.replacing(path) as file:
        file.write(content)


def to_state_dict(variables: Mapping[str, Any], *, model: networks.Network) -> dict[str, np.ndarray]:
    """Returns the variables of a model created by `jaxrw.networks.create` as float32 arrays by PyTorch's names."""
    trained = {collection: variables[collection] for collection in ("params", "batch_stats")}
    state_dict = {
        _torch_name(path, model): np.ascontiguousarray(_to_torch(np.asarray(leaf, np.float32)))
        for path, leaf in flax.traverse_util.flatten_dict(trained).items()
    }
    normalization = variables.get("normalization", {"mean": model.mean, "std": model.std})
    if normalization["mean"] is not None:
        for name, field in (("mu", "mean"), ("sigma", "std")):
            state_dict[name] = np.asarray(normalization[field], np.float32).reshape(1, -1, 1, 1)
    return state_dict


def _read(path: pathlib.Path) -> Any:
    """Returns the content of a file; only a .safetensors file is known to hold a mapping."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        path.open("rb").close()  # so that a wrong path is reported as such, with or without torch
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no .safetensors file: {error}") from error
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs torch to be read (pip install torch); or save it as .safetensors, which needs nothing"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises any type of error for a damaged file
        raise UserError(
            f"{path} holds no weights alone ({type(error).__name__}); nothing else is unpickled: save "
            "model.state_dict() with torch.save, or as .safetensors"
        ) from error


def _unwrap(content: Any, title: str) -> dict[str, np.ndarray]:
    """Returns the weights in float32 by their names without wrappers, wherever the content keeps them."""
    while isinstance(content, Mapping) and (
        name := next((n for n in _NESTED if isinstance(content.get(n), Mapping)), None)
    ):
        content = content[name]
    if not isinstance(content, Mapping):
        raise UserError(f"{title} holds a {type(content).__name__}, no state dict; save model.state_dict()")
    weights: dict[str, np.ndarray] = {}
    for name, value in content.items():
        short = _WRAPPERS.sub("", str(name))
        if short in weights:
            raise UserError(f"{title} holds {short} twice, once as {name}; keep one")
        if hasattr(value, "detach"):
            value = value.detach().cpu().float()
        try:
            weights[short] = np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{title}: {name} is a {type(value).__name__}, no tensor; save only weights"
            ) from error
    return weights


def _pop_normalization(weights: dict[str, np.ndarray], title: str) -> dict[str, jax.Array]:
    """Removes mean and std, each of shape [C], from the weights and returns them; empty if there are none."""
    means, stds = ([name for name in weights if pattern.fullmatch(name)] for pattern in (_MEAN, _STD))
    if not means and not stds:
        return {}
    if len(means) != 1 or len(stds) != 1:
        raise UserError(f"{title} has {', '.join(means + stds)}; must be one mean and one std, or none")
    mean, std = (jnp.asarray(weights.pop(name).reshape(-1)) for name in (*means, *stds))
    if not bool((std > 0).all()):
        raise UserError(f"{title} has a std of {std.tolist()}; must be positive")
    return {"mean": mean, "std": std}


def _to_variables(weights: dict[str, np.ndarray], module: networks.Network, title: str) -> dict[str, Any]:
    """Returns the weights as Flax variables of the module; raises UserError unless names and shapes fit exactly."""
    layout = LAYOUTS[type(module)]
    dense = f"{layout.name('dense')}."
    if not any(name.startswith(dense) for name in weights):
        weights = {_DENSE.sub(dense, name): value for name, value in weights.items()}
    weights = {
        name: value
        for name, value in weights.items()
        if not name.endswith(".num_batches_tracked") and not name.startswith(layout.unused)
    }
    stem = weights.get("conv1.weight")
    channels = stem.shape[1] if stem is not None and stem.ndim == 4 else 3
    leaves = flax.traverse_util.flatten_dict(_shapes(module, channels))
    paths = {_torch_name(path, module): path for path in leaves}
    problems = [
        f"{word} {', '.join(sorted(names))}"
        for word, names in (("missing", paths.keys() - weights), ("extra", weights.keys() - paths))
        if names
    ]
    for name, path in paths.items():
        shape = _to_torch(np.empty(leaves[path].shape, bool)).shape
        if name in weights and weights[name].shape != shape:
            problems.append(f"{name} is {weights[name].shape}, must be {shape}")
    if problems:
        raise UserError(
            f"{title} does not fit {type(module).__name__} with {module.num_classes} classes: {'; '.join(problems)}"
        )
    return flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(_from_torch(weights[name])) for name, path in paths.items()}
    )


def _shapes(module: networks.Network, channels: int) -> dict[str, Any]:
    """Returns the shapes and types of the module's variables."""
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    return {collection: variables[collection] for collection in ("params", "batch_stats")}


def _torch_name(path: tuple[str, ...], model: networks.Network) -> str:
    """Returns PyTorch's name of a variable, given its path (collection, block or layer, ..., variable)."""
    _, *layers, variable = path
    layout = LAYOUTS[type(model)]
    return ".".join([*(layout.name(layer) for layer in layers), _VARIABLES[variable]])


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Transposes kernels HWIO -> OIHW and [in, out] -> [out, in]; leaves vectors as they are."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array: np.ndarray) -> np.ndarray:
    """Transposes kernels OIHW -> HWIO and [out, in] -> [in, out]; leaves vectors as they are."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
