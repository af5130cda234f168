"""Weights of PyTorch networks: logits, wrappers, files, and every mistake told."""

import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from helpers.golden_networks import DEEPMIND, FIELDS, GOLDEN, SMALL, golden_weights
from hypothesis import given
from hypothesis import strategies as st

from jaxrw import networks
from jaxrw.networks import torch_layouts, torch_weights
from jaxrw.system.errors import UserError

try:
    import torch
except ImportError:
    torch = None

NORMALIZED = {"resnet", "preact_activated", "bottleneck"}  # with mu and sigma in the file
needs_torch = pytest.mark.skipif(torch is None, reason='needs torch: pip install -e ".[torch]"')


def logits_of(model, variables, images):
    with jax.default_matmul_precision("highest"):
        return np.asarray(model.apply(variables, jnp.asarray(images, jnp.float32), train=False))


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_pytorchs(name):
    """Files with everything public ones have: `module.model.`, mu and sigma, sub_block1, num_batches_tracked."""
    variables = torch_weights.load(GOLDEN / f"{name}.safetensors", model=SMALL[name], num_classes=10)
    with np.load(GOLDEN / f"{name}.npz") as expected:
        ours = logits_of(SMALL[name], variables, expected["images"] / 255)
        # Float32 sums of at most 576 products in another order, logits of order one.
        np.testing.assert_allclose(ours, expected["logits"], rtol=0, atol=1e-4)
        assert np.abs(expected["logits"]).max() > 0.5
    assert ("normalization" in variables) == (name in NORMALIZED | DEEPMIND)


def test_golden_files_have_what_public_files_have():
    names = {name: set(golden_weights(name)) for name in SMALL}
    assert {"module.0.layer1.0.bn1.weight", "module.0.layer2.0.shortcut.0.weight"} <= names["preact"]
    assert "model.layer.0.block.0.batchnorm_0.weight" in names["deepmind_wide"]
    assert "model.layer_3.0.conv_2d_2.weight" in names["deepmind_preact"]
    assert not [name for deepmind in DEEPMIND for name in names[deepmind] if "mu" in name.split(".")]
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
        key.removeprefix("module.").removeprefix("0.").removeprefix("model.")
        for key in golden_weights(name)
        if not key.endswith("num_batches_tracked") and not key.startswith("sub_block1")
    }
    assert set(safetensors.numpy.load_file(path)) == wanted | ({"mu", "sigma"} if name in DEEPMIND else set())


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
    "many": (lambda w: w | {f"more{i}": np.ones(1) for i in range(10)}, ["more0, more1", "more7 and 2 more"]),
    "shape": (with_more(conv1__weight=np.ones((16, 3, 5, 5))),
        ["conv1.weight is (16, 3, 5, 5), must be (16, 3, 3, 3)"]),
    "other classes": (with_more(fc__weight=np.ones((100, 64)), fc__bias=np.ones(100)),
        ["is a WRN-10-1 with 100 classes; must have 10"]),
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


def test_another_number_of_classes_than_the_models_is_refused():
    with pytest.raises(UserError, match="num_classes is 100, the model has 10"):
        torch_weights.load({}, model=SMALL["wide"], num_classes=100)


@pytest.mark.parametrize("name", sorted(DEEPMIND))
def test_deepminds_mean_and_std_are_known_and_told(name, capsys):
    images = np.random.default_rng(1).random((2, 8, 8, 3))
    weights, model = golden_weights(name), SMALL[name]
    variables = torch_weights.load(weights, model=model, num_classes=10)
    np.testing.assert_allclose(variables["normalization"]["std"], [0.2471, 0.2435, 0.2616])
    err = capsys.readouterr().err
    assert err.startswith("note: the state dict has no mean and std; those of CIFAR-10 are taken: (0.4914, ")
    assert err.count("\n") == 1
    # The model's own are preferred, those of the file to both; nothing is told of either.
    own = networks.create(num_classes=10, **FIELDS[name], mean=(0.1,) * 3, std=(0.9,) * 3)
    assert "normalization" not in torch_weights.load(weights, model=own, num_classes=10)
    inside = weights | {"mu": np.full((1, 3, 1, 1), 0.5), "sigma": np.full((1, 3, 1, 1), 0.5)}
    for reader in (model, own):
        variables = torch_weights.load(inside, model=reader, num_classes=10)
        np.testing.assert_array_equal(variables["normalization"]["mean"], [0.5] * 3)
    assert capsys.readouterr().err == ""
    # A run without mean and std has none after it was saved and loaded.
    plain = {key: variables[key] for key in ("params", "batch_stats")}
    again = torch_weights.load(torch_weights.to_state_dict(plain, model=model), model=model, num_classes=10)
    np.testing.assert_array_equal(logits_of(model, again, images), logits_of(model, plain, images))


def test_cifar_100s_are_another_and_those_of_other_data_must_be_given():
    weights = golden_weights("deepmind_wide")
    for classes, words in (
        (100, None),
        (7, "has no mean and std.*CIFAR-10 and CIFAR-100 alone: set model.mean"),
    ):
        model = networks.create(num_classes=classes, **FIELDS["deepmind_wide"])
        changed = weights | {
            "model.logits.weight": np.ones((classes, 64)),
            "model.logits.bias": np.ones(classes),
        }
        if words is None:
            variables = torch_weights.load(changed, model=model, num_classes=classes)
            np.testing.assert_allclose(variables["normalization"]["mean"], [0.5071, 0.4865, 0.4409])
        else:
            with pytest.raises(UserError, match=words):
                torch_weights.load(changed, model=model, num_classes=classes)


def test_the_average_is_preferred_and_told(capsys):
    """DM-Improves-AT keeps both, timm calls its own `state_dict_ema`, Andriushchenko has a last and a best."""
    average = golden_weights("wide")
    live = {name: value + 1 for name, value in average.items()}
    expected = torch_weights.load(average, model=SMALL["wide"], num_classes=10)
    for content, words in (
        (
            {"unaveraged_model_state_dict": live, "model_state_dict": average, "optimizer": {"state": {}}},
            "model_state_dict, the averaged weights, is taken, not unaveraged_model_state_dict",
        ),
        (
            {"state_dict": live, "state_dict_ema": average, "epoch": 3},
            "state_dict_ema, the averaged weights, is taken, not state_dict",
        ),
        ({"best": live, "last": average}, "last is taken, not best"),
    ):
        variables = torch_weights.load(content, model=SMALL["wide"], num_classes=10)
        jax.tree.map(np.testing.assert_array_equal, variables, expected)
        assert capsys.readouterr().err == f"note: the state dict: {words}\n"
    torch_weights.load({"state_dict": average, "optimizer": {}}, model=SMALL["wide"], num_classes=10)
    assert capsys.readouterr().err == ""


def test_weights_that_no_prediction_uses_are_left_out():
    """Of an attack and a normalizer (robustness), of a second name of the first layers (Fast AT), of an average."""
    weights = golden_weights("wide")
    extra = {
        "module.attacker.model.conv1.weight": np.ones(1),
        "module.attacker.normalize.new_mean": np.ones(3),
        "module.normalizer.new_mean": np.full((3, 1, 1), 0.5),
        "module.normalizer.new_std": np.full((3, 1, 1), 0.25),
        "model_preact_hl1.1.weight": np.ones(1),
        "n_averaged": np.array(7),
    }
    variables = torch_weights.load(weights | extra, model=SMALL["wide"], num_classes=10)
    np.testing.assert_array_equal(variables["normalization"]["std"], [0.25] * 3)


def test_npz_files_are_read_if_they_hold_arrays_alone(tmp_path):
    weights = golden_weights("wide")
    np.savez(tmp_path / "weights.npz", **weights)
    variables = torch_weights.load(tmp_path / "weights.npz", model=SMALL["wide"], num_classes=10)
    expected = torch_weights.load(weights, model=SMALL["wide"], num_classes=10)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)

    def told(path, words):
        with pytest.raises(UserError, match=words) as caught:
            torch_weights.load(path, model=SMALL["wide"], num_classes=10)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)

    np.savez(tmp_path / "objects.npz", **weights, args=np.array({"trap": Trap()}, object))
    np.save(tmp_path / "objects.npy", np.array(weights, object), allow_pickle=True)
    np.save(tmp_path / "array.npy", weights["fc.weight"])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "weights.npz").read_bytes()[:900])
    (tmp_path / "empty.npy").write_bytes(b"")
    told(tmp_path / "objects.npz", "holds no arrays alone.*nothing is unpickled")
    told(tmp_path / "objects.npy", "holds no arrays alone.*nothing is unpickled")
    told(tmp_path / "array.npy", "holds a ndarray, no state dict")
    told(tmp_path / "cut.npz", "holds no arrays alone")
    told(tmp_path / "empty.npy", "holds no arrays alone")
    told(tmp_path / "nothing.npz", "cannot be read: No such file")


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
    for part in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        told(tmp_path / part, "is a part of weights in several files; must be one")


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


def torch_network(model):
    from helpers import torch_networks

    return torch_networks.randomize(torch_networks.like(model))


def torch_logits(network, images):
    with torch.no_grad():
        return network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()


FULL_SIZE = {
    "resnet18": {},
    "wrn34_10": {},
    "preact_resnet18": {},
    "preact_resnet18 raw": {"name": "preact_resnet18", "shortcut": "raw", "last_norm": False},
    "dm_wrn": {},
    "dm_wrn relu": {"name": "dm_wrn", "activation": "relu"},
    "dm_preact_resnet18": {},
    "resnet50": {},
    "imagenet_resnet50": {},
}


@needs_torch
@pytest.mark.parametrize("case", FULL_SIZE)
def test_full_size_logits_are_pytorchs(case):
    """With the mean and std 0 and 1: what is told of DeepMind's is tested with the golden files."""
    model = networks.create(
        **{"name": case, "num_classes": 10, "mean": (0.0,) * 3, "std": (1.0,) * 3} | FULL_SIZE[case]
    )
    network = torch_network(model)
    variables = torch_weights.load(network.state_dict(), model=model, num_classes=10)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    ours, expected = logits_of(model, variables, images), torch_logits(network, images)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.1


@needs_torch
@pytest.mark.parametrize("size", [(9, 13), (14, 32)])
@pytest.mark.parametrize("name", SMALL)
def test_logits_and_gradients_are_pytorchs_at_any_size(name, size):
    model = networks.create(num_classes=10, **FIELDS[name], mean=(0.0,) * 3, std=(1.0,) * 3)
    network = torch_network(model)
    variables = torch_weights.load(network.state_dict(), model=model, num_classes=10)
    images = np.random.default_rng(0).random((2, *size, 3), np.float32)
    # Float32 sums in another order, logits of order one.
    np.testing.assert_allclose(
        logits_of(model, variables, images), torch_logits(network, images), rtol=0, atol=1e-4
    )
    pixels = torch.tensor(images).permute(0, 3, 1, 2).requires_grad_()
    (network(pixels) ** 2).sum().backward()
    expected = pixels.grad.permute(0, 2, 3, 1).numpy()

    @jax.jit
    @jax.grad
    def gradient(x):
        return (model.apply(variables, x, train=False) ** 2).sum()

    np.testing.assert_allclose(gradient(images), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@needs_torch
@pytest.mark.parametrize("name", SMALL)
def test_a_run_is_loaded_by_pytorch(name, tmp_path):
    from safetensors.torch import load_file

    model = SMALL[name]
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), torch_layouts.shapes(model, 3)
    )
    torch_weights.save(tmp_path / "m.safetensors", variables, model=model)
    network = torch_network(model)
    weights = load_file(tmp_path / "m.safetensors")
    if name in DEEPMIND:
        assert (weights.pop("mu") == 0).all()
        assert (weights.pop("sigma") == 1).all()
    network.load_state_dict(weights)  # strict
    images = rng.random((3, 16, 16, 3), np.float32)
    np.testing.assert_allclose(logits_of(model, variables, images), torch_logits(network, images), rtol=1e-4)
