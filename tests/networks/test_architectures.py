"""Networks against float64 NumPy, their published sizes and initialisations; test_torch_weights has PyTorch's."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrw import networks

IMAGES = jax.random.uniform(jax.random.key(5), (3, 16, 16, 3))


def abstract(name, num_classes, shape=(1, 32, 32, 3), **fields):
    model = networks.create(name, num_classes, **fields)
    return jax.eval_shape(lambda key: model.init(key, jnp.zeros(shape), train=False), jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "num_classes", "fields", "size"),
    [
        ("resnet18", 10, {}, 11_173_962),
        ("wrn34_10", 10, {}, 46_160_474),
        ("wrn34_10", 100, {}, 46_218_164),
        ("wrn", 10, {"depth": 28, "width": 10}, 36_479_194),
        # pytorch-cifar's PreActResNet18 and ResNet50, and torchvision's resnet50.
        ("preact_resnet18", 10, {"last_norm": False}, 11_171_146),
        ("resnet50", 10, {}, 23_520_842),
        ("imagenet_resnet50", 1000, {}, 25_557_032),
        # Gowal et al. 2020 round them to 36 and 267 million.
        ("dm_wrn", 10, {}, 36_479_194),
        ("dm_wrn", 10, {"depth": 70, "width": 16}, 266_796_506),
        # PreActResNet18 with 3x3 shortcuts, 9 - 1 times 64 x 128 + 128 x 256 + 256 x 512 more, and a last norm of 512.
        ("dm_preact_resnet18", 10, {}, 11_171_146 + 8 * (64 * 128 + 128 * 256 + 256 * 512) + 2 * 512),
    ],
)
def test_parameter_counts(name, num_classes, fields, size):
    params = abstract(name, num_classes, **fields)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size


def test_the_general_wide_resnet_is_the_named_one():
    chex.assert_trees_all_equal(abstract("wrn", 10, depth=34, width=10), abstract("wrn34_10", 10))


TINY = {
    "resnet18": (10, 4),
    "wrn": (10, 1),
    "preact_resnet18": (10, 4),
    "dm_wrn": (10, 1),
    "dm_preact_resnet18": (10, 4),
    "resnet50": (14, 2),
    "imagenet_resnet50": (14, 2),
}


def test_every_family_is_tested():
    modules = {networks.ARCHITECTURES[name].network for name in TINY}
    assert modules == {architecture.network for architecture in networks.ARCHITECTURES.values()}


@pytest.mark.parametrize(("name", "depth", "width"), [(name, *size) for name, size in TINY.items()])
@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 9, 13, 4)])
def test_any_size_channels_and_classes(name, depth, width, shape):
    model = networks.create(name, 7, depth=depth, width=width)
    variables = abstract(name, 7, shape, depth=depth, width=width)
    logits = jax.eval_shape(lambda v: model.apply(v, jnp.zeros(shape), train=False), variables)
    chex.assert_shape(logits, (2, 7))
    assert logits.dtype == jnp.float32


def logits_of(model, variables):
    return jax.jit(lambda v: model.apply(v, IMAGES, train=False))(variables)


def randomized(model):
    """Variables of both signs, statistics and scales among them near 1: not those of an untrained network."""
    random = np.random.RandomState(1)
    shapes = jax.eval_shape(lambda key: model.init(key, IMAGES, train=False), jax.random.key(0))

    def draw(path, leaf):
        values = random.randn(*leaf.shape) * 0.2
        return np.float32(np.abs(1 + values) if path[-1].key in ("scale", "var") else values)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class InNumpy:
    """Layers in float64 by their definitions: PyTorch's padding, evaluation-mode BatchNorm."""

    def __init__(self, variables):
        self.variables = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)

    def conv(self, x, scope, name, stride=1):
        kernel = self._get("params", scope, name)["kernel"]
        pad, size = kernel.shape[0] // 2, (x.shape[1] - 1) // stride + 1
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        out = np.zeros((len(x), size, size, kernel.shape[3]))
        for i in range(size):
            for j in range(size):
                at = x[:, i * stride :, j * stride :][:, : kernel.shape[0], : kernel.shape[1]]
                out[:, i, j] = np.einsum("bhwi,hwio->bo", at, kernel)
        return out

    def norm(self, x, scope, name):
        statistics, parameters = self._get("batch_stats", scope, name), self._get("params", scope, name)
        scale = parameters["scale"] / np.sqrt(statistics["var"] + 1e-5)
        return (x - statistics["mean"]) * scale + parameters["bias"]

    def head(self, x):
        dense = self.variables["params"]["dense"]
        return x.mean((1, 2)) @ dense["kernel"] + dense["bias"]

    def _get(self, kind, scope, name):
        tree = self.variables[kind]
        return (tree[scope] if scope else tree)[name]


def relu(x):
    return np.maximum(x, 0)


def test_resnet_against_numpy():
    model = networks.create("resnet18", 5, depth=10, width=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    variables = randomized(model)
    net = InNumpy(variables)
    x = (np.asarray(IMAGES, np.float64) - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    x = relu(net.norm(net.conv(x, None, "conv_stem"), None, "norm_stem"))
    for stage in range(1, 5):
        scope, stride = f"stage{stage}_block1", 2 if stage > 1 else 1
        shortcut = x
        if stage > 1:
            shortcut = net.norm(net.conv(x, scope, "conv_shortcut", stride), scope, "norm_shortcut")
        x = relu(net.norm(net.conv(x, scope, "conv1", stride), scope, "norm1"))
        x = relu(net.norm(net.conv(x, scope, "conv2"), scope, "norm2") + shortcut)
    np.testing.assert_allclose(logits_of(model, variables), net.head(x), rtol=1e-4)


def test_wide_resnet_against_numpy():
    model = networks.create("wrn", 5, depth=16, width=2)
    variables = randomized(model)
    net = InNumpy(variables)
    x = net.conv(np.asarray(IMAGES, np.float64), None, "conv_stem")
    for group in range(1, 4):
        for block in range(1, 3):
            scope, stride = f"group{group}_block{block}", 2 if group > 1 and block == 1 else 1
            activated = relu(net.norm(x, scope, "norm1"))
            shortcut = net.conv(activated, scope, "conv_shortcut", stride) if block == 1 else x
            inner = relu(net.norm(net.conv(activated, scope, "conv1", stride), scope, "norm2"))
            x = net.conv(inner, scope, "conv2") + shortcut
    x = relu(net.norm(x, None, "norm_head"))
    np.testing.assert_allclose(logits_of(model, variables), net.head(x), rtol=1e-4)


def test_training_uses_the_batch_and_moves_the_running_statistics():
    model = networks.create("resnet18", 5, depth=10, width=4)
    variables = randomized(model)

    @jax.jit
    def statistics_and_stem(variables):
        stem = nn.Conv(4, (3, 3), padding=1, use_bias=False)
        _, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        return updated["batch_stats"]["norm_stem"], stem.apply(
            {"params": variables["params"]["conv_stem"]}, IMAGES
        )

    statistics, stem = statistics_and_stem(variables)
    before = variables["batch_stats"]["norm_stem"]
    mean, variance = stem.mean((0, 1, 2)), stem.var((0, 1, 2))
    np.testing.assert_allclose(statistics["mean"], 0.9 * before["mean"] + 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.9 * before["var"] + 0.1 * variance, rtol=1e-5)


def test_initialisation_is_pytorchs_for_the_resnet():
    """uniform(+-1/sqrt(fan_in)): the maximum reaches the limit, the deviation is limit / sqrt(3)."""
    model = networks.create("resnet18", 10, depth=10, width=64)
    params = jax.jit(model.init, static_argnames="train")(jax.random.key(0), IMAGES, train=False)["params"]
    for kernel, fan_in in (
        (params["stage4_block1"]["conv2"]["kernel"], 9 * 512),
        (params["dense"]["kernel"], 512),
        (params["dense"]["bias"], 512),
    ):
        limit = fan_in**-0.5
        assert jnp.abs(kernel).max() <= limit
        # The deviation of a uniform sample's deviation is below its size / sqrt(n); n is at least 10 here.
        np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=1 / np.sqrt(kernel.size) + 0.01)
    np.testing.assert_array_equal(params["norm_stem"]["scale"], np.ones(64))


def test_initialisation_is_he_by_fan_out_for_the_wide_resnet():
    model = networks.create("wrn", 10, depth=10, width=4)
    params = jax.jit(model.init, static_argnames="train")(jax.random.key(0), IMAGES, train=False)["params"]
    kernel = params["group3_block1"]["conv1"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.02)
    assert jnp.abs(kernel).max() > 3.5 * kernel.std()  # normal, not truncated at 2 deviations
    np.testing.assert_array_equal(params["dense"]["bias"], np.zeros(10))


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("vgg", {}, "model.name is 'vgg'; choose one of resnet18, wrn34_10, wrn, preact_resnet18, dm_wrn"),
        ("resnet50", {"depth": 30}, "50, 101, 152 or 12n [+] 2"),
        ("dm_wrn", {"activation": "gelu"}, "model.activation is 'gelu'; choose one of silu, relu"),
        ("dm_wrn", {"shortcut": "raw"}, "model.shortcut is 'raw'; dm_wrn has no such field: leave it out"),
        ("wrn34_10", {"activation": "relu"}, "model.activation is 'relu'; wrn34_10 has no such field"),
        ("resnet18", {"last_norm": False}, "model.last_norm is False; resnet18 has no such field"),
        ("preact_resnet18", {"last_norm": 3}, "model.last_norm is 3; choose one of True, False"),
        ("wrn", {"depth": 28}, "wrn needs both"),
        ("wrn34_10", {"depth": 33}, "6n [+] 4"),
        ("resnet18", {"depth": 17}, "8n [+] 2"),
        ("resnet18", {"width": 0}, "model.width is 0"),
        ("resnet18", {"mean": (0.5,)}, "give both or none"),
        ("resnet18", {"mean": (0.5,), "std": (0.0,)}, "must be positive"),
    ],
)
def test_impossible_models_are_refused(name, fields, words):
    with pytest.raises(ValueError, match=words):
        networks.create(name, 10, **fields)


def test_impossible_images_are_refused():
    with pytest.raises(ValueError, match="7x8; must be at least 8x8"):
        abstract("resnet18", 10, shape=(1, 7, 8, 3))
    with pytest.raises(ValueError, match="has 3 numbers; the images have 1"):
        abstract("resnet18", 10, shape=(1, 8, 8, 1), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("name", "depth", "width"), [("resnet18", 10, 8), ("wrn", 10, 1), ("dm_wrn", 10, 1), ("resnet50", 14, 4)]
)
def test_bfloat16_is_of_the_activations_alone(name, depth, width):
    """Parameters, statistics and logits are float32; the logits are float32's to some roundings of 2^-9."""
    fields = {"depth": depth, "width": width, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    model, half = (networks.create(name, 5, dtype=dtype, **fields) for dtype in networks.DTYPES)
    variables = jax.jit(half.init, static_argnames="train")(jax.random.key(0), IMAGES, train=False)
    chex.assert_trees_all_equal_shapes_and_dtypes(variables, abstract(name, 5, IMAGES.shape, **fields))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    @functools.partial(jax.jit, static_argnums=0)
    def train(model, variables):
        return model.apply(
            variables,
            IMAGES,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )

    (logits, updated), (expected, exact) = train(half, variables), train(model, variables)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updated["batch_stats"])} == {jnp.dtype("float32")}
    for path, (output,) in jax.tree_util.tree_leaves_with_path(
        updated["intermediates"], is_leaf=lambda x: isinstance(x, tuple)
    ):
        inner = path[0].key != "dense" and len(path) > 1 and path[0].key != "__call__"
        assert output.dtype == (jnp.bfloat16 if inner else jnp.float32), path
    # Some 20 roundings in a row, each 2^-9 of its size, of logits of size 1; not bit for bit, or nothing was rounded.
    np.testing.assert_allclose(logits, expected, atol=20 * 2**-9)
    assert jnp.abs(logits - expected).max() > 1e-4
    for a, b in zip(*(jax.tree.leaves(x["batch_stats"]) for x in (updated, exact)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.02)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match=r"model.dtype is 'float16'; choose one of float32, bfloat16"):
        networks.create("resnet18", 10, dtype="float16")


def test_options_change_what_is_computed_and_not_the_variables():
    """SiLU x / (1 + exp(-x)) against ReLU, and where the shortcut starts."""
    for name, options in (("dm_wrn", {"activation": "relu"}), ("preact_resnet18", {"shortcut": "raw"})):
        depth, width = TINY[name]
        usual, other = (networks.create(name, 5, depth=depth, width=width, **o) for o in ({}, options))
        variables = randomized(usual)
        chex.assert_trees_all_equal_shapes(variables, randomized(other))
        assert not np.allclose(logits_of(usual, variables), logits_of(other, variables), atol=1e-2)


def test_deepminds_running_statistics_keep_99_percent():
    model = networks.create("dm_wrn", 5, depth=10, width=1)
    variables = randomized(model)
    _, updated = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
    stem = nn.Conv(16, (3, 3), padding=1, use_bias=False)
    mean = stem.apply({"params": variables["params"]["conv_stem"]}, IMAGES).mean((0, 1, 2))
    norm = "group1_block1", "norm1"
    before, after = (tree["batch_stats"][norm[0]][norm[1]]["mean"] for tree in (variables, updated))
    np.testing.assert_allclose(after, 0.99 * before + 0.01 * mean, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "width", "options", "title"),
    [
        (None, None, {}, "PreActResNet-18"),
        (34, None, {"shortcut": "activated"}, "PreActResNet-34"),
        (10, 3, {"last_norm": False}, "PreActResNet-10 (width 3, last_norm False)"),
        (None, None, {"shortcut": "raw", "last_norm": None}, "PreActResNet-18 (shortcut raw)"),
    ],
)
def test_titles_name_what_is_unusual(depth, width, options, title):
    assert networks.ARCHITECTURES["preact_resnet18"].label(depth, width, **options) == title
