"""The page of RobustBench's models is what the program writes, and each model that loads is one that can be built."""

import re

import flax
import pytest

from benchmarks import zoo
from jaxrw import networks
from jaxrw.networks import torch_layouts

try:
    import torch
except ImportError:
    torch = None

ENTRIES = zoo.read()
LOADED = [entry for entry in ENTRIES if entry["name"]]


def test_the_page_is_what_the_program_writes():
    assert (zoo.DOCS / "zoo.md").read_text() == zoo.page(ENTRIES)


def test_the_table_has_every_entry_of_the_boards():
    """As many as the README of RobustBench numbers; each once, with a network or a reason."""
    boards = [entry["board"] for entry in ENTRIES]
    counts = {board: boards.count(board) for board in set(boards)}
    assert counts == {"CIFAR-10 Linf": 76, "CIFAR-10 L2": 21, "CIFAR-100 Linf": 38}
    assert len({(entry["board"], entry["model"]) for entry in ENTRIES}) == len(ENTRIES)
    assert all(bool(entry["name"]) != bool(entry["reason"]) for entry in ENTRIES)


def size(module):
    """A network's size in the words of RobustBench."""
    if hasattr(module, "blocks"):
        return f"WideResNet-{6 * module.blocks + 4}-{module.width}"
    assert module.width == 64
    prefix = "PreActResNet" if "PreAct" in type(module).__name__ else "ResNet"
    return f"{prefix}-{ {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50}[module.stage_sizes] }"


@pytest.mark.parametrize("entry", LOADED, ids=lambda entry: f"{entry['board']} {entry['model']}")
def test_what_loads_can_be_built_and_has_the_published_size(entry):
    classes = 100 if "CIFAR-100" in entry["board"] else 10
    module = networks.create(num_classes=classes, **zoo.fields(entry))
    assert size(module) == entry["architecture"]
    known = torch_layouts.LAYOUTS[type(module)].statistics
    assert not (known and entry["mean"])


@pytest.mark.skipif(torch is None, reason='needs torch: pip install -e ".[torch]"')
def test_names_and_shapes_are_those_of_pytorchs_networks():
    from helpers import torch_networks

    modules = {networks.create(num_classes=10, **zoo.fields(e) | {"mean": None, "std": None}) for e in LOADED}
    assert len(modules) > 10
    for module in modules:
        paths = flax.traverse_util.flatten_dict(torch_layouts.shapes(module, 3))
        ours = {torch_layouts.torch_name(path, type(module)): leaf.size for path, leaf in paths.items()}
        with torch.device("meta"):  # without memory for the weights
            weights = torch_networks.like(module).state_dict()
        theirs = {name: tensor.numel() for name, tensor in weights.items()}
        assert ours == {name: n for name, n in theirs.items() if not re.search("num_batches_tracked$", name)}
