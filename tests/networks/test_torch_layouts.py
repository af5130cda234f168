"""Names of PyTorch networks: each layer has its own, and a file of another network is called what it is."""

import flax
import numpy as np
import pytest
from helpers.golden_networks import FIELDS, SMALL, golden_weights

from jaxrw import networks
from jaxrw.networks import torch_layouts, torch_weights
from jaxrw.system.errors import UserError


@pytest.mark.parametrize("name", [name for name in networks.ARCHITECTURES if name != "wrn"])
def test_full_size_networks_have_pytorchs_names(name):
    """Every name is another one, and none is left as Flax calls it."""
    model = networks.create(name, 10)
    shapes = torch_layouts.shapes(model, 3)
    paths = flax.traverse_util.flatten_dict(shapes)
    names = [torch_layouts.torch_name(path, type(model)) for path in paths]
    assert len(set(names)) == len(names)
    flax_words = ("stage", "group", "norm_", "norm1", "norm2", "norm3", "dense", "stem")
    left = [n for n in names if any(word in n.replace("batchnorm_", "") for word in flax_words)]
    assert not left


# What each golden file is called when it is loaded as another network.
CALLED = {
    "resnet": "is a ResNet-10 (width 3) with 10 classes: set model.name to 'resnet18', model.depth to 10, "
        "model.width to 3",
    "wide": "is a WRN-10-1 with 10 classes: set model.name to 'wrn', model.depth to 10, model.width to 1",
    "preact": "is a PreActResNet-10 (width 3, last_norm False) with 10 classes: set model.name to 'preact_resnet18', "
        "model.depth to 10, model.width to 3, model.last_norm to False; "
        "model.shortcut may be 'activated' or 'raw', which no file shows",
    "preact_activated": "is a PreActResNet-10 (width 3) with 10 classes: set model.name to 'preact_resnet18', "
        "model.depth to 10, model.width to 3; model.shortcut may be 'activated' or 'raw', which no file shows",
    "deepmind_wide": "is a DeepMind WRN-10-1 with 10 classes: set model.name to 'dm_wrn', model.depth to 10, "
        "model.width to 1; model.activation may be 'silu' or 'relu', which no file shows",
    "deepmind_preact": "is a DeepMind PreActResNet-10 (width 3) with 10 classes: set model.name to "
        "'dm_preact_resnet18', model.depth to 10, model.width to 3; "
        "model.activation may be 'silu' or 'relu', which no file shows",
    "bottleneck": "is a ResNet-14 (width 3) with 10 classes: set model.name to 'resnet50', model.depth to 14, "
        "model.width to 3",
    "imagenet": "is a ResNet-14 for 224x224 (width 3) with 10 classes: set model.name to 'imagenet_resnet50', "
        "model.depth to 14, model.width to 3",
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_another_network_is_named_with_the_fields_to_set(name):
    for model in {"wide", "deepmind_preact", "bottleneck"} - {name}:
        with pytest.raises(UserError) as caught:
            torch_weights.load(golden_weights(name), model=SMALL[model], num_classes=10)
        assert str(caught.value) == f"the state dict {CALLED[name]}"


def test_fields_at_their_defaults_are_not_told():
    shapes = flax.traverse_util.flatten_dict(torch_layouts.shapes(networks.create("dm_wrn", 10), 3))
    weights = {
        torch_layouts.torch_name(path, networks.DeepMindWideResNet): torch_layouts.to_torch(
            np.zeros(leaf.shape, np.float32)
        )
        for path, leaf in shapes.items()
    }
    with pytest.raises(
        UserError, match=r"is a DeepMind WRN-28-10 with 10 classes: set model\.name to 'dm_wrn'; "
    ):
        torch_weights.load(weights, model="wrn34_10", num_classes=10)


def test_half_of_another_network_is_told_as_what_it_looks_like():
    weights = golden_weights("wide")
    del weights["fc.bias"]
    with pytest.raises(UserError, match=r"looks like a WRN-10-1 with 10 classes, but for: missing fc\.bias$"):
        torch_weights.load(weights, model="resnet18", num_classes=10)


def test_a_last_norm_that_is_missing_or_too_many_is_told():
    weights = {n: v for n, v in golden_weights("preact_activated").items() if not n.startswith("model.bn.")}
    with pytest.raises(UserError, match=r"last_norm False.* set .*model\.last_norm to False"):
        torch_weights.load(weights, model=SMALL["preact_activated"], num_classes=10)
    without = networks.create(num_classes=10, **FIELDS["preact_activated"] | {"last_norm": False})
    variables = torch_weights.load(weights, model=without, num_classes=10)
    assert "norm_head" not in variables["params"]
    with pytest.raises(UserError, match=r"is a PreActResNet-10 \(width 3\) with 10 classes: set"):
        torch_weights.load(golden_weights("preact_activated"), model=without, num_classes=10)
