"""Weights of PyTorch networks: names, layouts, wrappers, and every mistake told."""

import pathlib
import tempfile

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from jaxrw import networks
from jaxrw.networks import torch_weights
from jaxrw.system.errors import UserError

try:
    import torch
except ImportError:
    torch = None

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SMALL = {
    "resnet": networks.create("resnet18", 10, depth=10, width=3),
    "wide": networks.create("wrn", 10, depth=10, width=1),
}
needs_torch = pytest.mark.skipif(torch is None, reason='needs torch: pip install -e ".[torch]"')


def logits_of(model, variables, images):
    with jax.default_matmul_precision("highest"):
        return np.asarray(model.apply(variables, jnp.asarray(images, jnp.float32), train=False))


def golden_weights(name):
    """State dict as PyTorch wrote it."""
    return safetensors.numpy.load_file(GOLDEN / f"{name}.safetensors")


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_pytorchs(name):
    """Files with everything public ones have: `module.model.`, mu and sigma, sub_block1, num_batches_tracked."""
    variables = torch_weights.load(GOLDEN / f"{name}.safetensors", model=SMALL[name], num_classes=10)
    with np.load(GOLDEN / f"{name}.npz") as expected:
        ours = logits_of(SMALL[name], variables, expected["images"] / 255)
        # Float32 sums of at most 576 products in another order, logits of order one.
        np.testing.assert_allclose(ours, expected["logits"], rtol=0, atol=1e-4)
        assert np.abs(expected["logits"]).max() > 0.5
    assert ("normalization" in variables) == (name == "resnet")


def test_golden_files_have_what_public_files_have():
    names = {name: set(golden_weights(name)) for name in SMALL}
    assert {"module.mu", "module.sigma", "module.model.bn1.num_batches_tracked"} <= names["resnet"]
    assert "sub_block1.layer.0.conv1.weight" in names["wide"]


@pytest.mark.parametrize("name", SMALL)
def test_saved_and_loaded_again_is_the_same(name, tmp_path):
    variables = torch_weights.load(golden_weights(name), model=SMALL[name], num_classes=10)
    path = tmp_path / "model.safetensors"
    torch_weights.save(path, variables, model=SMALL[name])
    again = torch_weights.load(path, model=SMALL[name], num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    # The names of the original, without its wrapper and what nobody uses.
    wanted = {
        key.removeprefix("module.").removeprefix("model.")
        for key in golden_weights(name)
        if not key.endswith("num_batches_tracked") and not key.startswith("sub_block1")
    }
    assert set(safetensors.numpy.load_file(path)) == wanted


def test_mean_and_std_of_a_model_are_written_and_take_the_place_of_fields(tmp_path):
    plain = SMALL["wide"]
    normalizing = networks.create("wrn", 10, depth=10, width=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    variables = torch_weights.load(golden_weights("wide"), model=plain, num_classes=10)
    torch_weights.save(tmp_path / "m.safetensors", variables, model=normalizing)
    loaded = torch_weights.load(tmp_path / "m.safetensors", model=plain, num_classes=10)
    images = np.random.default_rng(1).random((2, 8, 8, 3))
    expected = logits_of(normalizing, variables, images)
    assert not np.allclose(expected, logits_of(plain, variables, images), atol=1e-2)
    # Once, not twice, whether or not the model has the fields as well.
    for model in plain, normalizing:
        np.testing.assert_allclose(logits_of(model, loaded, images), expected, atol=1e-6)


@pytest.mark.parametrize("keys", [("state_dict",), ("net",), ("model",), ("model", "state_dict")])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "1.", "module.model."])
def test_wherever_the_weights_are(keys, prefix):
    state_dict = {prefix + name: value for name, value in golden_weights("wide").items()}
    if prefix == "1.":
        state_dict |= {"0.mean": np.full(3, 0.5), "0.std": np.full((3, 1, 1), 0.25)}
    for key in keys:
        state_dict = {key: state_dict, "epoch": 3}
    variables = torch_weights.load(state_dict, model=SMALL["wide"], num_classes=10)
    expected = torch_weights.load(golden_weights("wide"), model=SMALL["wide"], num_classes=10)
    if prefix == "1.":
        normalization = variables.pop("normalization")
        np.testing.assert_array_equal(normalization["mean"], [0.5] * 3)
        np.testing.assert_array_equal(normalization["std"], [0.25] * 3)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_the_last_layer_may_have_the_other_name():
    state_dict = {name.replace("fc.", "linear."): value for name, value in golden_weights("wide").items()}
    torch_weights.load(state_dict, model=SMALL["wide"], num_classes=10)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_173_962), ("wrn34_10", 46_160_474)])
def test_full_size_networks_have_pytorchs_names(name, parameters):
    """Every name is another one, and none is left as Flax calls it."""
    model = networks.create(name, 10)
    shapes = torch_weights._shapes(model, 3)
    names = [torch_weights._torch_name(path, model) for path in flax.traverse_util.flatten_dict(shapes)]
    assert len(set(names)) == len(names)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters
    assert not [
        n for n in names if "stage" in n or "group" in n or "norm" in n or "dense" in n or "stem" in n
    ]


def without(*names):
    return lambda weights: {name: value for name, value in weights.items() if name not in names}


def with_more(**values):
    return lambda weights: weights | {name.replace("__", "."): value for name, value in values.items()}


MISTAKES = {
    "missing": (without("fc.bias", "bn1.weight"), ["the state dict does not fit WideResNet with 10 classes: ",
        "missing bn1.weight, fc.bias"]),
    "extra": (with_more(block4__weight=np.ones(1), alpha=np.ones(1)), ["extra alpha, block4.weight"]),
    "both": (lambda w: {("head.bias" if n == "fc.bias" else n): v for n, v in w.items()},
        ["missing fc.bias", "extra head.bias"]),
    "shape": (with_more(conv1__weight=np.ones((16, 3, 5, 5))),
        ["conv1.weight is (16, 3, 5, 5), must be (16, 3, 3, 3)"]),
    "other classes": (with_more(fc__weight=np.ones((100, 64)), fc__bias=np.ones(100)),
        ["fc.weight is (100, 64), must be (10, 64)", "fc.bias is (100,), must be (10,)"]),
    "twice": (with_more(module__fc__bias=np.ones(10)), ["fc.bias twice", "module.fc.bias"]),
    "no tensor": (with_more(epoch="seven"), ["epoch is a str"]),
    "mean alone": (with_more(mean=np.ones(3)), ["has mean", "one mean and one std"]),
    "two means": (with_more(mean=np.ones(3), std=np.ones(3), mu=np.ones(3)), ["has mean, mu, std"]),
    "std 0": (with_more(mean=np.ones(3), std=np.zeros(3)), ["std of [0.0, 0.0, 0.0]", "positive"]),
    "two channels": (with_more(mean=np.ones(2), std=np.ones(2)), ["other than 3 numbers"]),
    "no mapping": (lambda w: list(w), ["holds a list"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_does_not_fit_is_told_in_one_line(mistake):
    change, words = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        torch_weights.load(change(golden_weights("wide")), model=SMALL["wide"], num_classes=10)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_another_network_is_refused_by_name():
    with pytest.raises(UserError, match=r"missing .*layer1\.0\.conv1\.weight.*extra .*block1\.layer\.0"):
        torch_weights.load(golden_weights("wide"), model="resnet18", num_classes=10)
    with pytest.raises(UserError, match="num_classes is 100, the model has 10"):
        torch_weights.load({}, model=SMALL["wide"], num_classes=100)


def test_files_that_cannot_be_read(tmp_path):
    def told(path, words):
        with pytest.raises(UserError, match=words) as caught:
            torch_weights.load(path, model="resnet18", num_classes=10)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"no weights")
    told(garbage, "is no .safetensors file")
    told(tmp_path / "nothing.safetensors", "cannot be read: No such file")
    told(tmp_path / "nothing.pt", "cannot be read: No such file")


@given(st.data())
def test_any_damage_of_a_file(drawn):
    """Cut or with changed bytes, in its header or its numbers, it is read or refused in one line."""
    content = bytearray((GOLDEN / "resnet.safetensors").read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for place in drawn.draw(st.lists(st.one_of(st.integers(0, 7), st.integers(8, header - 1)), max_size=4)):
        content[place] = drawn.draw(st.integers(0, 255))
    content = content[: drawn.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "model.safetensors"
        path.write_bytes(content)
        message = ""
        try:
            torch_weights.load(path, model=SMALL["resnet"], num_classes=10)
        except UserError as error:
            message = str(error)
        assert "\n" not in message


def test_bfloat16_is_read(tmp_path):
    weights = {name: value.astype(jnp.bfloat16) for name, value in golden_weights("wide").items()}
    safetensors.numpy.save_file(weights, tmp_path / "half.safetensors")
    variables = torch_weights.load(tmp_path / "half.safetensors", model=SMALL["wide"], num_classes=10)
    kernel = np.asarray(weights["fc.weight"], np.float32).T
    np.testing.assert_array_equal(variables["params"]["dense"]["kernel"], kernel)


def test_without_torch_a_pt_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs torch .*pip install torch.*safetensors"):
        torch_weights.load(tmp_path / "model.pt", model="resnet18", num_classes=10)


class Trap:
    """What a pickle may do to its reader."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@needs_torch
def test_a_pt_file_is_read_and_nothing_in_it_executed(tmp_path):
    weights = {name: torch.tensor(value) for name, value in golden_weights("wide").items()}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "model.pt")
    variables = torch_weights.load(tmp_path / "model.pt", model=SMALL["wide"], num_classes=10)
    expected = torch_weights.load(golden_weights("wide"), model=SMALL["wide"], num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    for content in {"state_dict": weights, "args": Trap()}, Trap():
        torch.save(content, tmp_path / "trap.pt")
        with pytest.raises(UserError, match="nothing else is unpickled") as caught:
            torch_weights.load(tmp_path / "trap.pt", model=SMALL["wide"], num_classes=10)
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "model.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match="holds no weights alone"):
        torch_weights.load(tmp_path / "cut.pt", model=SMALL["wide"], num_classes=10)


def torch_network(name, **fields):
    from helpers import torch_networks

    network = torch_networks.ResNet if name == "resnet18" else torch_networks.WideResNet
    return torch_networks.randomize(network(**fields))


@needs_torch
@pytest.mark.parametrize(("name", "fields"), [("resnet18", {}), ("wrn34_10", {"sub_block1": True})])
def test_full_size_logits_are_pytorchs(name, fields):
    network, model = torch_network(name, **fields), networks.create(name, 10)
    variables = torch_weights.load(network.state_dict(), model=name, num_classes=10)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    with torch.no_grad():
        expected = network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    ours = logits_of(model, variables, images)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


@needs_torch
def test_a_run_is_loaded_by_pytorch(tmp_path):
    from safetensors.torch import load_file

    model = networks.create("resnet18", 10, depth=10, width=4)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), torch_weights._shapes(model, 3)
    )
    torch_weights.save(tmp_path / "m.safetensors", variables, model=model)
    network = torch_network("resnet18", stages=(1, 1, 1, 1), width=4)
    network.load_state_dict(load_file(tmp_path / "m.safetensors"))  # strict
    images = rng.random((3, 16, 16, 3), np.float32)
    with torch.no_grad():
        theirs = network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(logits_of(model, variables, images), theirs, rtol=1e-5)
