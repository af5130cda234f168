"""Reads and writes weights under the names of public PyTorch models; `jaxrw.networks.torch_layouts` has the names.

Files are .safetensors, .npz of arrays, or written by `torch.save` and read with `weights_only`, so that nothing in them
is executed.
"""

import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from jaxrw import networks
from jaxrw.networks import torch_layouts
from jaxrw.system import files
from jaxrw.system.errors import UserError

# Averages of the weights over training, as checkpoints call them, and what they are preferred to.
_AVERAGES = ("state_dict_ema", "ema_state_dict", "model_ema", "ema")
_UNAVERAGED = "unaveraged_model_state_dict"

# Keys under which checkpoints keep the weights, if not at the top level, in the order of preference.
_NESTED = (*_AVERAGES, "state_dict", "model_state_dict", "net", "model", "last")

# Prefixes of wrappers: DataParallel, torch.compile, a sequence of a normalizing layer and the network.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|model|net|basic_net)\.|[01]\.(?=[^.]+\.))+")

# Weights that no prediction uses: of TRADES' copy of the first group, of Andriushchenko and Flammarion's second name of
# the first layers, of the attack in MadryLab's robustness library; and what BatchNorm and averages count.
_UNUSED = re.compile(r"(?:sub_block1|model_preact_hl1|attacker)\.|(?:.*\.)?num_batches_tracked$|n_averaged$")

# One of several files that hold the weights together, or the list of them, as transformers and diffusers name them.
_SHARD = re.compile(r".*(?:-\d+-of-\d+\.safetensors|\.safetensors\.index\.json)")

# Names of the mean and the std of a normalizing layer.
_MEAN, _STD = re.compile(r"(?:.*\.)?(?:new_mean|mean|mu)"), re.compile(r"(?:.*\.)?(?:new_std|std|sigma)")


def load(
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    *,
    model: str | networks.Network,
    num_classes: int,
) -> dict[str, Any]:
    """Reads a PyTorch state dict as Flax variables of a model that takes images in [0, 1].

    Prefixes of wrappers (`module.`), `num_batches_tracked` and weights that no prediction uses are left out. Of several
    sets of weights an average over training is preferred, and a line on stderr says so.

    A mean and std in the file become the collection `normalization`, which replaces the model's `mean` and `std`. If
    the file has none, its authors may still have normalized outside of the network, as Bag-of-Tricks does: then set the
    model's. For DeepMind's networks those of CIFAR-10 and CIFAR-100 are known; they are used unless the model has its
    own, and a line on stderr says so.

    What a file does not show are the `activation` of DeepMind's networks and the `shortcut` of a PreActResNet.

    Args:
      path_or_state_dict: a .safetensors or .npz file, any other file that `torch.save` wrote (needs torch), or a
        mapping from names to tensors or arrays, possibly nested below "state_dict", "model_state_dict", "net", "model".
      model: a name for `jaxrw.networks.create`, or a module that it created.
      num_classes: K.

    Returns:
      {"params", "batch_stats"}, and "normalization" if there is a mean and std; float32 leaves.

    Raises:
      UserError: the file cannot be read or does not fit the model; says which network it is of and how to set it, or
        else names the missing and extra weights and the wrong shapes.

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
    channels = variables["params"]["conv_stem"]["kernel"].shape[2]
    if not normalization and module.mean is None:
        normalization = _known_normalization(module, channels, title)
    if normalization:
        if any(values.shape != (channels,) for values in normalization.values()):
            raise UserError(f"{title} has a mean or std of other than {channels} numbers, one per channel")
        variables["normalization"] = normalization
    return variables


def save(
    path: str | os.PathLike[str],
    variables: Mapping[str, Any],
    *,
    model: networks.Network,
    step: int | None = None,
) -> None:
    """Writes variables as .safetensors that `load` and PyTorch networks of the same layout read.

    Args:
      path: of the file, replaced atomically.
      variables: of `model`. A mean and std are written as `mu` and `sigma` [1, C, 1, 1], as RobustBench names them. For
        DeepMind's networks they are always written, 0 and 1 if there are none, since their readers expect CIFAR's.
      model: a module created by `jaxrw.networks.create`.
      step: of the checkpoint, which `saved_step` reads; None: unknown.
    """
    metadata = {"format": "pt"} | ({} if step is None else {"step": str(step)})
    content = safetensors.numpy.save(to_state_dict(variables, model=model), metadata=metadata)
    with files.replacing(path) as file:
        file.write(content)


def saved_step(path: str | os.PathLike[str]) -> int | None:
    """Returns the step of the checkpoint that `save` wrote to a file; None: unknown, or no such file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return int((file.metadata() or {})["step"])
    except (OSError, KeyError, ValueError, SafetensorError):
        return None


def to_state_dict(variables: Mapping[str, Any], *, model: networks.Network) -> dict[str, np.ndarray]:
    """Returns the variables of a model created by `jaxrw.networks.create` as float32 arrays by PyTorch's names."""
    trained = {collection: variables[collection] for collection in ("params", "batch_stats")}
    state_dict = {
        torch_layouts.torch_name(path, type(model)): np.ascontiguousarray(
            torch_layouts.to_torch(np.asarray(leaf, np.float32))
        )
        for path, leaf in flax.traverse_util.flatten_dict(trained).items()
    }
    normalization = variables.get("normalization", {"mean": model.mean, "std": model.std})
    if normalization["mean"] is None and torch_layouts.LAYOUTS[type(model)].statistics:
        channels = variables["params"]["conv_stem"]["kernel"].shape[2]
        normalization = {"mean": np.zeros(channels), "std": np.ones(channels)}
    if normalization["mean"] is not None:
        for name, field in (("mu", "mean"), ("sigma", "std")):
            state_dict[name] = np.asarray(normalization[field], np.float32).reshape(1, -1, 1, 1)
    return state_dict


def _read(path: pathlib.Path) -> Any:
    """Returns the content of a file; only a .safetensors or .npz file is known to hold a mapping."""
    if _SHARD.fullmatch(path.name):
        raise UserError(
            f"{path} is a part of weights in several files; must be one: join them as one .safetensors"
        )
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        if path.suffix in (".npz", ".npy"):
            return _read_arrays(path)
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


def _read_arrays(path: pathlib.Path) -> Any:
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} holds no arrays alone ({error}); nothing is unpickled: save the weights by their names with "
            "numpy.savez, or as .safetensors"
        ) from error


def _unwrap(content: Any, title: str) -> dict[str, np.ndarray]:
    """Returns the weights in float32 by their names without wrappers, wherever the content keeps them."""
    while isinstance(content, Mapping):
        nested = [n for n in (*_NESTED, _UNAVERAGED, "best") if isinstance(content.get(n), Mapping)]
        if not nested or nested[0] not in _NESTED:
            break
        if len(nested) > 1:
            averaged = nested[0] in _AVERAGES or _UNAVERAGED in nested
            words = f"{nested[0]}{', the averaged weights,' if averaged else ''}"
            _say(f"{title}: {words} is taken, not {', '.join(nested[1:])}")
        content = content[nested[0]]
    if not isinstance(content, Mapping):
        raise UserError(f"{title} holds a {type(content).__name__}, no state dict; save model.state_dict()")
    weights: dict[str, np.ndarray] = {}
    for name, value in content.items():
        short = _WRAPPERS.sub("", str(name))
        if _UNUSED.match(short):
            continue
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


def _known_normalization(module: networks.Network, channels: int, title: str) -> dict[str, jax.Array]:
    """Returns the mean and std that the authors of the module's family keep outside of files; empty if they do not."""
    statistics = torch_layouts.LAYOUTS[type(module)].statistics
    if not statistics:
        return {}
    if module.num_classes not in statistics or channels != 3:
        raise UserError(
            f"{title} has no mean and std, and DeepMind's networks keep them outside of files; they are known for "
            "CIFAR-10 and CIFAR-100 alone: set model.mean and model.std, to 0 and 1 for none"
        )
    mean, std = statistics[module.num_classes]
    _say(
        f"{title} has no mean and std; those of CIFAR-{module.num_classes} are taken: {mean} and {std}. "
        "Set model.mean and model.std if it has others"
    )
    return {"mean": jnp.asarray(mean), "std": jnp.asarray(std)}


def _to_variables(weights: dict[str, np.ndarray], module: networks.Network, title: str) -> dict[str, Any]:
    """Returns the weights as Flax variables of the module; raises UserError unless names and shapes fit exactly."""
    found = torch_layouts.compare(weights, module)
    if found.mistakes:
        raise UserError(f"{title} {_explain(found)}")
    return flax.traverse_util.unflatten_dict(
        {
            path: jnp.asarray(torch_layouts.from_torch(found.weights[name]))
            for name, path in found.paths.items()
        }
    )


def _explain(found: torch_layouts.Comparison) -> str:
    """Says which network the weights are of, if another fits them better, else how they differ from this one."""
    module = found.module
    unlike = f"does not fit {type(module).__name__} with {module.num_classes} classes: {found.describe()}"
    likeness = torch_layouts.recognise(found.weights)
    if likeness is None or likeness.comparison.mistakes >= found.mistakes:
        return unlike
    num_classes = likeness.comparison.module.num_classes
    is_like = f"{likeness.title} with {num_classes} classes"
    if likeness.comparison.mistakes:
        return f"looks like a {is_like}, but for: {likeness.comparison.describe()}"
    other = likeness.comparison.module.clone(num_classes=module.num_classes)
    if _same_sizes(module, other):
        return f"is a {is_like}; must have {module.num_classes}"
    fields = [
        f"model.{name} to {value!r}" for name, value in likeness.fields.items() if name != "num_classes"
    ]
    unseen = [
        f"; model.{field} may be {' or '.join(map(repr, values))}, which no file shows"
        for field, values in likeness.unseen.items()
    ]
    return f"is a {is_like}: set {', '.join(fields)}{''.join(unseen)}"


def _same_sizes(module: networks.Network, other: networks.Network) -> bool:
    fields = ("stage_sizes", "blocks", "width", "last_norm")
    return type(module) is type(other) and all(
        getattr(module, field, None) == getattr(other, field, None) for field in fields
    )


def _say(line: str) -> None:
    print(f"note: {line}", file=sys.stderr, flush=True)
