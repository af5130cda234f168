"""Weights of PyTorch networks, read and written under the names that public robust models have.

ResNet-18 as MAIL, MART and RobustBench write it (`layer1.0.conv1`, `shortcut.0`, `linear`), WideResNets as TRADES,
Bag-of-Tricks, AWP and RobustBench do (`block1.layer.0.conv1`, `convShortcut`, `fc`). Files are .safetensors, or what
`torch.save` wrote, read with `weights_only`: nothing in them is ever executed.
"""

import os
import pathlib
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from jaxrw import networks
from jaxrw.system import files
from jaxrw.system.errors import UserError

# Where checkpoints keep the weights, if not at the top.
_NESTED = ("state_dict", "model_state_dict", "net", "model")

# What wrappers put before every name: DataParallel, torch.compile, a normalising layer before the network.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|net|basic_net|1)\.)+")

_MEAN, _STD = re.compile(r"(?:.*\.)?(?:mean|mu)"), re.compile(r"(?:.*\.)?(?:std|sigma)")

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_LAYERS = {"conv_stem": "conv1", "norm_stem": "bn1", "norm_head": "bn1", "norm1": "bn1", "norm2": "bn2"}


def load(path_or_state_dict, *, model, num_classes):
    """Flax variables of a PyTorch state dict; images in [0, 1] go into the model that they are for.

    Prefixes of wrappers (`module.`), `num_batches_tracked` and the `sub_block1` that some WideResNets carry unused are
    left out. A mean and std that the file holds become the collection `normalization`, which takes the place of
    the model's `mean` and `std`; where a file holds none, its authors may still have normalised outside of the
    network, as Bag-of-Tricks does: then give them to the model.

    Args:
      path_or_state_dict: .safetensors, or any other file that `torch.save` wrote (needs torch), or a mapping from
        names to tensors or arrays; also where it is nested below "state_dict", "net" or "model".
      model: "resnet18" or "wrn34_10", or a module of `jaxrw.models.create` for other depths and widths.
      num_classes: K.

    Returns:
      {"params", "batch_stats"}, and "normalization" where there is a mean and std; float32 leaves.

    Raises:
      UserError: a file that cannot be read, or that does not fit the model: every missing and extra name and every
        other shape is named.

    >>> load({}, model="resnet18", num_classes=10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jaxrw.errors.UserError: the state dict does not fit ResNet with 10 classes: missing ...
    """
    module = networks.create(model, num_classes) if isinstance(model, str) else model
    if module.num_classes != num_classes:
        raise UserError(f"num_classes is {num_classes}, the model has {module.num_classes}; must be the same")
    if isinstance(path_or_state_dict, str | os.PathLike):
        title = str(path_or_state_dict)
        found = _read(pathlib.Path(path_or_state_dict))
    else:
        title, found = "the state dict", path_or_state_dict
    found = _unwrap(found, title)
    normalization = _take_normalization(found, title)
    variables = _convert(found, module, title)
    if normalization is None:
        return variables
    channels = variables["params"]["conv_stem"]["kernel"].shape[2]
    if normalization["mean"].shape != (channels,) or normalization["std"].shape != (channels,):
        raise UserError(f"{title} has a mean or std of other than {channels} numbers, one per channel")
    return variables | {"normalization": normalization}


def save(path, variables, *, model):
    """Write variables as .safetensors that `load` reads and PyTorch networks of the same layout load.

    Args:
      path: of the file, replaced atomically.
      variables: of `model`; a mean and std are written as `mu` and `sigma` [1, C, 1, 1], as RobustBench names them.
      model: a module of `jaxrw.models.create`.
    """
    content = safetensors.numpy.save(to_state_dict(variables, model=model), metadata={"format": "pt"})
    with files.replacing(path) as file:
        file.write(content)


def to_state_dict(variables, *, model):
    """Variables of a `model` of `jaxrw.models.create` under PyTorch's names; {name: float32 array}."""
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


def _read(path):
    """Mapping that a file holds."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        return _read_torch(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no .safetensors file: {error}") from error


def _read_torch(path):
    """Mapping that `torch.save` wrote; nothing but tensors and plain containers is let in."""
    with path.open("rb"):  # what is wrong with the path is not torch's to say
        pass
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path} needs torch to be read (pip install torch); or save it as .safetensors, which needs nothing"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead to
        raise UserError(
            f"{path} holds no weights alone ({type(error).__name__}); nothing else is unpickled: save "
            "model.state_dict() with torch.save, or as .safetensors"
        ) from error


def _unwrap(found, title):
    """{name without wrappers: float32 array} of the weights, wherever the mapping keeps them."""
    while hasattr(found, "keys") and (
        name := next((n for n in _NESTED if hasattr(found.get(n), "keys")), None)
    ):
        found = found[name]
    if not hasattr(found, "items"):
        raise UserError(f"{title} holds a {type(found).__name__}, no state dict; save model.state_dict()")
    unwrapped = {}
    for name, value in found.items():
        short = _WRAPPERS.sub("", str(name))
        if short in unwrapped:
            raise UserError(f"{title} holds {short} twice, once as {name}; keep one")
        unwrapped[short] = _as_array(value, name, title)
    return unwrapped


def _as_array(value, name, title):
    """A tensor or array as float32 NumPy."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float()
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{title}: {name} is a {type(value).__name__}, no tensor; save only weights"
        ) from error


def _take_normalization(found, title):
    """Remove mean and std from the weights; {"mean", "std"} of shape [C], or None."""
    names = [[name for name in found if pattern.fullmatch(name)] for pattern in (_MEAN, _STD)]
    if not any(names):
        return None
    if [len(some) for some in names] != [1, 1]:
        raise UserError(
            f"{title} has {', '.join([*names[0], *names[1]])}; must be one mean and one std, or none"
        )
    mean, std = (jnp.asarray(found.pop(some[0]).reshape(-1)) for some in names)
    if not bool((std > 0).all()):
        raise UserError(f"{title} has a std of {std.tolist()}; must be positive")
    return {"mean": mean, "std": std}


def _convert(found, module, title):
    """Flax variables of the module from PyTorch's names and layouts; refuses what does not fit exactly."""
    channels = found["conv1.weight"].shape[1] if getattr(found.get("conv1.weight"), "ndim", 0) == 4 else 3
    expected = flax.traverse_util.flatten_dict(_shapes(module, channels))
    names = {path: _torch_name(path, module) for path in expected}
    found = {
        name: value for name, value in _with_our_dense(found, module).items() if not _unused(name, module)
    }
    complaints = [
        ("missing", sorted(set(names.values()) - found.keys())),
        ("extra", sorted(found.keys() - set(names.values()))),
    ]
    told = [f"{word} {', '.join(some)}" for word, some in complaints if some]
    for path, name in names.items():
        shape = _torch_shape(expected[path].shape)
        if name in found and found[name].shape != shape:
            told.append(f"{name} is {found[name].shape}, must be {shape}")
    if told:
        raise UserError(
            f"{title} does not fit {type(module).__name__} with {module.num_classes} classes: {'; '.join(told)}"
        )
    return flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(_from_torch(found[name])) for path, name in names.items()}
    )


def _shapes(module, channels):
    """Variables of the module as shapes."""
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)
    return {collection: variables[collection] for collection in ("params", "batch_stats")}


def _torch_name(path, module):
    """PyTorch's name of a variable, given as (collection, layer or block, ..., leaf)."""
    _, *layers, leaf = path
    wide = isinstance(module, networks.WideResNet)
    names = {
        **_LAYERS,
        "dense": _dense_name(module),
        "conv_shortcut": "convShortcut" if wide else "shortcut.0",
        "norm_shortcut": "shortcut.1",
    }
    words = []
    for layer in layers:
        block = re.fullmatch(r"(?:stage|group)(\d+)_block(\d+)", layer)
        if block:
            number = int(block[2]) - 1
            words.append(f"block{block[1]}.layer.{number}" if wide else f"layer{block[1]}.{number}")
        else:
            words.append(names.get(layer, layer))
    return ".".join([*words, _LEAVES[leaf]])


def _dense_name(module):
    """Name of the last layer."""
    return "fc" if isinstance(module, networks.WideResNet) else "linear"


def _with_our_dense(found, module):
    """The weights with the last layer under the usual name of this network: some say fc, some linear."""
    ours = _dense_name(module)
    other = "linear" if ours == "fc" else "fc"
    if any(name.startswith(f"{ours}.") for name in found):
        return found
    return {re.sub(rf"^{other}\.", f"{ours}.", name): value for name, value in found.items()}


def _unused(name, module):
    """Whether PyTorch saves this without using it for a prediction."""
    return name.endswith(".num_batches_tracked") or (
        isinstance(module, networks.WideResNet) and name.startswith("sub_block1.")
    )


def _to_torch(array):
    """Kernels HWIO -> OIHW, [in, out] -> [out, in]; the rest as it is."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(array):
    """Kernels OIHW -> HWIO, [out, in] -> [in, out]; the rest as it is."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _torch_shape(shape):
    """Shape of a variable in PyTorch's layout."""
    return _to_torch(np.empty(shape, bool)).shape
