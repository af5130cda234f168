"""The networks of the files in tests/golden, and their weights."""

import pathlib

import safetensors.numpy

from jaxrw import networks

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
# Fields of the network of each file in tests/golden.
FIELDS = {
    "resnet": {"name": "resnet18", "depth": 10, "width": 3},
    "wide": {"name": "wrn", "depth": 10, "width": 1},
    "preact": {"name": "preact_resnet18", "depth": 10, "width": 3, "shortcut": "raw", "last_norm": False},
    "preact_activated": {"name": "preact_resnet18", "depth": 10, "width": 3},
    "deepmind_wide": {"name": "dm_wrn", "depth": 10, "width": 1},
    "deepmind_preact": {"name": "dm_preact_resnet18", "depth": 10, "width": 3},
    "bottleneck": {"name": "resnet50", "depth": 14, "width": 3},
    "imagenet": {"name": "imagenet_resnet50", "depth": 14, "width": 3},
}
SMALL = {name: networks.create(num_classes=10, **fields) for name, fields in FIELDS.items()}
DEEPMIND = {"deepmind_wide", "deepmind_preact"}  # with the known mean and std


def golden_weights(name):
    """State dict as PyTorch wrote it."""
    return safetensors.numpy.load_file(GOLDEN / f"{name}.safetensors")
