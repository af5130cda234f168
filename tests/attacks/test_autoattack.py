import collections
import functools
import json
import pathlib
import subprocess
import sys
import textwrap
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import SHAPE, linear, linear_problem, right

from jaxrw.attacks import RobustnessWarning, apgd, autoattack, fab
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.autoattack.ensemble import ATTACKS, STANDARD
from jaxrw.attacks.autoattack.slots import slot_count
from jaxrw.attacks.autoattack.state import ROBUST, WRONG
from jaxrw.attacks.batch import advance, begin, choose_states

KEY = jax.random.key(5)
# Enough for linear models, whose best image lies in a corner of the ball.
SHORT = {"num_steps": 20, "num_queries": 400}


def evaluate(logits_fn, images, labels, *, eps, batch_size=64, **settings):
    return autoattack(KEY, logits_fn, images, labels, eps=eps, batch_size=batch_size, **{**SHORT, **settings})


def evaluate_and_catch(*arguments, **settings):
    """The result, and the texts of its warnings, which must be the same as those in the result."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = evaluate(*arguments, **settings)
    assert [str(c.message) for c in caught if c.category is RobustnessWarning] == list(result.warnings)
    assert all("\n" not in text for text in result.warnings)
    return result


def assert_sound(result, logits_fn, images, labels, *, eps):
    """What holds of every result."""
    assert in_ball(result.adversarial, images, eps=eps).all()
    np.testing.assert_array_equal(right(logits_fn, result.adversarial, labels), result.robust)
    np.testing.assert_array_equal(result.robust, result.fooled_by == ROBUST)
    chain = [result.clean_accuracy, *result.accuracy.values()]
    assert chain == sorted(chain, reverse=True)
    assert chain[-1] == 100 * result.robust.mean()
    attacked = [result.attacked[name] for name in result.accuracy]
    for name, number, after in zip(
        result.accuracy, attacked, [*attacked[1:], result.robust.sum()], strict=True
    ):
        assert number - result.fooled[name] == after


@pytest.fixture(scope="module")
def problem():
    """Linear, five classes, a few labels wrong from the start, half of the rest within eps."""
    logits_fn, images, labels, distance = linear_problem(5)
    labels[:6] = (labels[:6] + 1) % 5
    eps = float(np.median(distance))
    assert np.abs(distance / eps - 1).min() > 1e-3
    return logits_fn, images, labels, eps, (distance > eps) & (np.arange(64) >= 6)


@pytest.fixture(scope="module")
def standard(problem):
    logits_fn, images, labels, eps, _ = problem
    return evaluate(logits_fn, images, labels, eps=eps)


def test_finds_exactly_the_robust_examples_of_a_linear_model(problem, standard):
    logits_fn, images, labels, eps, robust = problem
    np.testing.assert_array_equal(standard.robust, robust)
    assert_sound(standard, logits_fn, images, labels, eps=eps)
    assert standard.warnings == ()
    assert list(standard.accuracy) == list(STANDARD)
    assert standard.clean_accuracy == 100 * 58 / 64
    assert (standard.fooled_by[:6] == WRONG).all()
    assert standard.num_targets == 4
    assert standard.attacked["apgd-ce"] == 58
    # Where nothing had to be changed or could be, the image itself is returned.
    kept = standard.fooled_by < 0
    np.testing.assert_array_equal(standard.adversarial[kept], images[kept])


def test_accuracies_by_class_and_the_record(problem, standard):
    """Counted one by one in Python; the record survives JSON."""
    _, _, labels, eps, robust = problem
    by_class = standard.by_class()
    assert sorted(by_class) == sorted(set(labels.tolist()))
    for label, (size, clean, under_attack) in by_class.items():
        members = [number for number in range(64) if labels[number] == label]
        assert size == len(members)
        assert clean == pytest.approx(100 * sum(number >= 6 for number in members) / size)
        assert under_attack == pytest.approx(100 * sum(bool(robust[number]) for number in members) / size)
    record = json.loads(json.dumps(standard.record()))
    assert record["clean_acc"] == standard.clean_accuracy
    assert record["autoattack_acc"] == 100 * robust.mean()
    assert (record["eps"], record["norm"], record["version"]) == (eps, "linf", "standard")
    assert {attack["name"]: attack["accuracy"] for attack in record["attacks"]} == standard.accuracy
    assert record["packages"]["jax"] == jax.__version__


def test_small_batches_end_in_the_same_images(problem, standard):
    # Sixteen slots for 58 examples: most examples take over a slot that another has left.
    logits_fn, images, labels, eps, _ = problem
    result = evaluate(logits_fn, images, labels, eps=eps, batch_size=16)
    np.testing.assert_array_equal(result.fooled_by, standard.fooled_by)
    np.testing.assert_array_equal(result.adversarial, standard.adversarial)


def test_a_batch_larger_than_the_data_ends_in_the_same_images(problem, standard):
    logits_fn, images, labels, eps, _ = problem
    result = evaluate(logits_fn, images, labels, eps=eps, batch_size=500, attacks=("apgd-ce", "fab-t"))
    first = standard.fooled_by == 0
    np.testing.assert_array_equal(result.fooled_by == 0, first)
    np.testing.assert_array_equal(result.adversarial[first], standard.adversarial[first])
    assert (standard.robust <= result.robust).all()


def test_one_attack_is_the_plain_function_on_each_example(problem):
    logits_fn, images, labels, eps, _ = problem
    for name, loss in {"apgd-ce": "ce", "apgd-t": "dlr-targeted"}.items():
        result = evaluate(logits_fn, images, labels, eps=eps, attacks=(name,))
        key = jax.random.fold_in(KEY, list(ATTACKS).index(name))
        alone = np.asarray(
            apgd(key, logits_fn, images, labels, eps=eps, loss=loss, num_steps=SHORT["num_steps"])
        )
        attacked = result.fooled_by != WRONG
        np.testing.assert_array_equal(right(logits_fn, alone, labels)[attacked], result.robust[attacked])
        fooled = result.fooled_by == 0
        np.testing.assert_array_equal(alone[fooled], result.adversarial[fooled])


def test_another_attack_never_raises_robust_accuracy(problem, standard):
    logits_fn, images, labels, eps, _ = problem
    for attacks in ("apgd-ce",), ("apgd-ce", "fab-t"):
        result = evaluate(logits_fn, images, labels, eps=eps, attacks=attacks)
        assert_sound(result, logits_fn, images, labels, eps=eps)
        assert (standard.robust <= result.robust).all()
        # An attack draws the same numbers in whatever company.
        first = result.fooled_by == 0
        np.testing.assert_array_equal(first, standard.fooled_by == 0)
        np.testing.assert_array_equal(result.adversarial[first], standard.adversarial[first])


def test_nothing_is_compiled_again(problem):
    logits_fn, images, labels, eps, _ = problem
    programs = begin, advance, choose_states

    def count(model):
        before = [program._cache_size() for program in programs]
        evaluate(model, images, labels, eps=eps, batch_size=17, attacks=("apgd-t", "fab-t"))
        return [program._cache_size() - number for program, number in zip(programs, before, strict=True)]

    # Of each attack at most one start, one loop, one change of examples, though these come and go all the time.
    assert max(count(logits_fn)) <= 2
    # Another checkpoint of the same model needs nothing new.
    assert count(jax.tree_util.Partial(linear, logits_fn.args[0].copy())) == [0, 0, 0]


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("name", STANDARD)
def test_goes_on_after_a_kill_in_each_attack(problem, standard, tmp_path, name):
    logits_fn, images, labels, eps, _ = problem
    path = tmp_path / "state.npz"
    looks = []

    def kill(progress):
        looks.append(progress)
        if progress.attack == name and sum(p.attack == name for p in looks) == 2:
            raise KilledError

    call = {"eps": eps, "state_path": path, "state_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, progress=kill, **call)
    again = []
    result = evaluate(logits_fn, images, labels, progress=again.append, **call)
    np.testing.assert_array_equal(result.fooled_by, standard.fooled_by)
    np.testing.assert_array_equal(result.adversarial, standard.adversarial)
    assert (result.accuracy, result.attacked) == (standard.accuracy, standard.attacked)
    # Work that was done is not done again: not an attack before, not the two looks at this one.
    assert again[0].attack == name
    assert again[0].fraction > looks[-1].fraction
    assert result.seconds[name] > looks[-1].seconds
    # At its end there is nothing left to do.
    finished = []
    np.testing.assert_array_equal(
        evaluate(logits_fn, images, labels, progress=finished.append, **call).adversarial,
        standard.adversarial,
    )
    assert finished == []
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_who_stops_it_finds_its_state_written(problem, standard, tmp_path):
    """What `progress` raises, as for SIGTERM, ends it with the state of just then, long before its next write."""
    logits_fn, images, labels, eps, _ = problem
    looks = []

    def stop(progress):
        looks.append(progress)
        if len(looks) == 2:
            raise KilledError

    call = {"eps": eps, "state_path": tmp_path / "state.npz", "state_seconds": 1e9}
    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, progress=stop, **call)
    again = []
    result = evaluate(logits_fn, images, labels, progress=again.append, **call)
    assert again[0].attack == looks[-1].attack
    assert again[0].fraction > looks[-1].fraction
    np.testing.assert_array_equal(result.adversarial, standard.adversarial)


def test_goes_on_with_another_batch_size(problem, standard, tmp_path):
    logits_fn, images, labels, eps, _ = problem

    def kill(progress):
        if progress.attack == "apgd-t":
            raise KilledError

    call = {"eps": eps, "state_path": tmp_path / "state.npz", "state_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, progress=kill, batch_size=16, **call)
    result = evaluate(logits_fn, images, labels, **call)
    np.testing.assert_array_equal(result.adversarial, standard.adversarial)


def test_state_files_of_earlier_versions_stay_readable(problem, tmp_path):
    """Whoever changes these names, types or numbers raises `resume.VERSION`."""
    logits_fn, images, labels, eps, _ = problem
    path = tmp_path / "state.npz"

    def stop(progress):
        raise KilledError

    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, eps=eps, progress=stop, state_path=path)
    state = {"fooled_by": "i1", "adversarial": "f4", "tried": "i2", "seconds": "f8", "attacked": "i8"}
    state |= {"fooled": "b1", "unconfirmed": "i4", "nan": "i4", "fingerprint": "U", "logits": "f4"}
    slots = {"slot_attack": "i4", "slot_examples": "i4", "slot_ranks": "i4"}
    apgd_state = ["f4", "b1", "b1", "i4", "f4", "f4", "f4", "f4", "f4", "f4", "i4", "b1", "f4"]
    slots |= {f"slot_state_{i}": dtype for i, dtype in enumerate(apgd_state)}
    with np.load(path) as arrays:
        found = {name: array.dtype for name, array in arrays.items()}
    assert found.pop("fingerprint").kind == state.pop("fingerprint")
    assert found == state | slots
    assert {name: attack.stream for name, attack in ATTACKS.items()} == {
        "apgd-ce": 0,
        "apgd-t": 1,
        "fab-t": 2,
        "square": 3,
        "apgd-dlr": 4,
        "fab": 5,
    }


@pytest.fixture(scope="module")
def finished_state(problem, tmp_path_factory):
    logits_fn, images, labels, eps, _ = problem
    path = tmp_path_factory.mktemp("state") / "state.npz"
    evaluate(logits_fn, images, labels, eps=eps, attacks=("apgd-ce",), state_path=path)
    return path


@pytest.mark.filterwarnings("ignore::jaxrw.attacks.RobustnessWarning")  # The radius is another norm's.
@pytest.mark.parametrize(
    "changed", ["images", "labels", "norm", "eps", "key", "attacks", "settings", "model"]
)
def test_refuses_the_state_of_another_evaluation(problem, finished_state, changed):
    logits_fn, images, labels, eps, _ = problem
    before = finished_state.read_bytes()
    call = {"eps": eps, "attacks": ("apgd-ce",), "state_path": finished_state, "batch_size": 64, **SHORT}
    call |= {
        "eps": {"eps": eps * 1.01},
        "norm": {"norm": "l2"},
        "attacks": {"attacks": STANDARD},
        "settings": {"num_steps": 21},
    }.get(changed, {})
    key = jax.random.key(6) if changed == "key" else KEY
    images = images * 0.99 if changed == "images" else images
    labels = np.roll(labels, 1) if changed == "labels" else labels
    if changed == "model":
        logits_fn = jax.tree_util.Partial(linear, logits_fn.args[0] * 1.01)
    with pytest.raises(ValueError, match=f"another evaluation: .*{changed}.* differ") as caught:
        autoattack(key, logits_fn, images, labels, **call)
    assert "\n" not in str(caught.value)
    assert finished_state.read_bytes() == before


def test_refuses_a_file_that_is_no_state(problem, tmp_path):
    logits_fn, images, labels, eps, _ = problem
    garbage, other = tmp_path / "garbage.npz", tmp_path / "other.npz"
    garbage.write_bytes(b"PK\x03\x04 and then nothing")
    np.savez(other, images=images)
    for path in garbage, other:
        with pytest.raises(ValueError, match="holds no state of an evaluation"):
            evaluate(logits_fn, images, labels, eps=eps, state_path=path)


def test_masked_gradients_are_told_and_do_not_help(problem):
    logits_fn, images, labels, eps, robust = problem
    steep = jax.tree_util.Partial(linear, logits_fn.args[0] * 1e4)
    result = evaluate_and_catch(steep, images, labels, eps=eps)
    assert any("cross-entropy has no input gradient" in text for text in result.warnings)
    assert not any("logit margin" in text for text in result.warnings)
    np.testing.assert_array_equal(result.robust, robust)
    assert result.fooled["apgd-t"] > 0


def test_a_layer_without_gradient_is_told_and_square_helps(problem):
    logits_fn, images, labels, eps, _ = problem

    def rounded(images):
        return linear(logits_fn.args[0], jnp.round(images * 100) / 100)

    correct = right(rounded, images, labels)
    result = evaluate_and_catch(rounded, images, labels, eps=2 * eps, attacks=("apgd-ce", "square"))
    assert any(
        f"logit margin has no input gradient at all for {correct.sum()}" in text for text in result.warnings
    )
    assert any(f"square fooled {result.fooled['square']} examples" in text for text in result.warnings)
    assert result.fooled["square"] > 5
    assert_sound(result, rounded, images, labels, eps=2 * eps)


def test_probabilities_are_told(problem):
    logits_fn, images, labels, eps, _ = problem
    result = evaluate_and_catch(
        lambda images: jax.nn.softmax(logits_fn(images)), images, labels, eps=eps, attacks=("apgd-ce",)
    )
    assert [text for text in result.warnings if "look like probabilities" in text]


@pytest.mark.parametrize("frozen_by_compiling", [True, False])
def test_random_outputs_are_told(problem, frozen_by_compiling):
    logits_fn, images, labels, eps, _ = problem
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.normal(size=shape).astype(np.float32)

    @jax.custom_jvp
    def drawn_anew(logits):
        shape = jax.ShapeDtypeStruct(logits.shape, jnp.float32)
        return jax.pure_callback(lambda _: draw(shape.shape), shape, logits)

    drawn_anew.defjvp(lambda primals, tangents: (drawn_anew(*primals), jnp.zeros_like(tangents[0])))

    def noisy(images):
        logits = logits_fn(images)
        if frozen_by_compiling:
            return logits + draw(logits.shape)
        return logits + drawn_anew(logits)

    settings = {"attacks": ("square",), "num_queries": 5}
    result = evaluate_and_catch(noisy, images, labels, eps=eps, **settings)
    assert any("outputs are random" in text for text in result.warnings)


def test_images_that_do_not_fool_again_do_not_count(problem):
    logits_fn, images, labels, eps, _ = problem
    calls = collections.Counter()

    def forgiving(images):
        """Wrong on everything that differs from the data, but only in the compiled program of an attack."""
        traced = isinstance(images, jax.core.Tracer)
        calls["traced"] += traced
        logits = logits_fn(images)
        return -logits if calls["traced"] > 4 else logits

    result = evaluate_and_catch(forgiving, images, labels, eps=eps / 100, attacks=("apgd-ce",))
    assert result.fooled == {"apgd-ce": 0}
    assert any(
        "58 examples had adversarial images that the model, asked again, predicted right" in t
        for t in result.warnings
    )


@pytest.mark.parametrize("depends_on", ["others", "place"])
def test_outputs_that_depend_on_the_batch_are_told(problem, depends_on):
    logits_fn, images, labels, eps, _ = problem

    def entangled(images):
        logits = logits_fn(images)
        if depends_on == "others":
            return logits - logits.mean(0)
        return logits + jnp.linspace(0, 1, len(images))[:, None] * jnp.arange(5)

    result = evaluate_and_catch(entangled, images, labels, eps=eps, attacks=("fab-t",))
    assert any("depend on the other examples" in text for text in result.warnings)


def test_nan_is_not_robust_and_told(problem):
    logits_fn, images, labels, eps, _ = problem

    def broken(images):
        """NaN for the last class where the first pixel is dark, as two or more images are, and more can be made."""
        logits = logits_fn(jnp.asarray(images))
        return logits.at[:, -1].add(jnp.where(images[:, 0, 0, 0] < 0.35, jnp.nan, 0))

    result = evaluate_and_catch(broken, images, labels, eps=eps, attacks=("apgd-ce",))
    dark = images[:, 0, 0, 0] < 0.35
    assert any(f"the logits of {dark.sum()} images are NaN" in text for text in result.warnings)
    assert (result.fooled_by[dark] == WRONG).all()
    broken_by_attack = np.isnan(broken(result.adversarial)).any(1) & ~dark
    assert any(
        f"the logits of {broken_by_attack.sum()} adversarial images" in text for text in result.warnings
    )
    assert not result.robust[broken_by_attack].any()


def test_three_classes():
    logits_fn, images, labels, distance = linear_problem(3)
    eps = float(np.median(distance))
    result = evaluate(logits_fn, images, labels, eps=eps, attacks=("apgd-t",), num_steps=50)
    np.testing.assert_array_equal(result.robust, distance > eps)
    assert result.num_targets == 2


@pytest.mark.parametrize(
    ("attack", "plain"), [("apgd-t", functools.partial(apgd, loss="dlr-targeted")), ("fab-t", fab)]
)
def test_tries_the_targets_one_after_the_other(attack, plain):
    # The likeliest wrong class is always 0.1 behind the true one; the second can be reached, from 0.05 on.
    def logits_fn(images):
        bright = 10 * (images.mean((1, 2, 3)) - 0.5)
        return jnp.stack([bright + 1, bright + 0.9, -bright, jnp.full_like(bright, -5)], axis=1)

    images, labels = np.full((8, *SHAPE), 0.5, np.float32), np.zeros(8, int)
    result = evaluate_and_catch(logits_fn, images, labels, eps=0.06, attacks=(attack,))
    assert not result.robust.any()
    # So does the plain function; and the first target alone fools nobody.
    for num_targets in 1, 2:
        adversarial = plain(KEY, logits_fn, images, labels, eps=0.06, num_steps=20, num_targets=num_targets)
        assert set(right(logits_fn, adversarial, labels).tolist()) == {num_targets == 1}


def test_all_wrong_and_all_robust(problem):
    logits_fn, images, _, eps, _ = problem
    predicted = np.asarray(logits_fn(images).argmax(1))
    wrong = evaluate(logits_fn, images, (predicted + 1) % 5, eps=eps)
    assert not wrong.robust.any()
    assert (wrong.clean_accuracy, set(wrong.accuracy.values())) == (0, {0.0})
    assert set(wrong.attacked.values()) == {0}
    np.testing.assert_array_equal(wrong.adversarial, images)
    robust = evaluate(logits_fn, images, predicted, eps=1e-6)
    assert robust.robust.all()
    assert set(robust.accuracy.values()) == {100.0}
    assert set(robust.attacked.values()) == {64}


def test_fewer_examples_than_devices_or_slots():
    logits_fn, images, labels, distance = linear_problem(5)
    result = evaluate(logits_fn, images[:1], labels[:1], eps=float(distance[0]) * 1.05, attacks=("apgd-t",))
    assert result.robust.tolist() == [False]


def test_slots_fit_the_survivors():
    for size in (1, 7, 64, 130, 999):
        for devices in (1, 4):
            count = slot_count(size, 128, devices)
            assert count % devices == 0
            assert count <= 128
            rounds = -(-size // 128)
            assert -(-size // count) == rounds
            assert rounds * count - size < rounds * 4


def test_reports_progress(problem):
    logits_fn, images, labels, eps, _ = problem
    looks = []
    result = evaluate(logits_fn, images, labels, eps=eps, batch_size=16, progress=looks.append)
    for name in STANDARD:
        fractions = [look.fraction for look in looks if look.attack == name]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
    robust = [look.robust for look in looks]
    assert robust == sorted(robust, reverse=True)
    assert robust[-1] == result.robust.sum()
    assert looks[-1].seconds_left == 0
    assert {look.size for look in looks} == {64}


MISTAKES = {
    "bytes": ({"images": np.full((2, *SHAPE), 255, np.uint8)}, "images range from 255 to 255; must lie in"),
    "nan": ({"images": np.full((2, *SHAPE), np.nan, np.float32)}, "images range from nan"),
    "flat": ({"images": np.zeros((2, 32))}, r"images are \(2, 32\)"),
    "lengths": ({"labels": np.zeros(3, int)}, r"labels \(3,\)"),
    "empty": ({"images": np.zeros((0, *SHAPE)), "labels": np.zeros(0, int)}, "empty"),
    "float labels": ({"labels": np.zeros(2)}, "labels are float64"),
    "label 5": ({"labels": np.array([0, 5])}, "labels range from 0 to 5; the model has 5 classes"),
    "label -1": ({"labels": np.array([0, -1])}, "labels range from -1 to 0"),
    "eps 8": ({"eps": 8}, "eps is 8; .* 8 / 255"),
    "eps 0": ({"eps": 0.0}, "eps is 0.0"),
    "batch": ({"batch_size": 0}, "batch_size is 0"),
    "attack": ({"attacks": ("apgd", "square")}, "attack is 'apgd'; choose of apgd-ce, apgd-t"),
    "twice": ({"attacks": ("square", "square")}, "each once"),
    "none": ({"attacks": ()}, "at least one"),
    "queries": ({"num_queries": 0}, "num_queries is 0"),
    "restarts": ({"num_restarts": 0}, "num_restarts is 0"),
    "targets": ({"num_targets": 0}, "num_targets is 0"),
    "samples": ({"version": "rand", "num_samples": 0}, "num_samples is 0"),
    "votes": ({"version": "rand", "num_votes": 0}, "num_votes is 0"),
    "norm": ({"norm": "L2"}, "norm is 'L2'; choose one of linf, l2, l1"),
    "version": ({"version": "fast"}, "version is 'fast'; choose one of standard, plus, rand"),
    "not for random": (
        {"version": "rand", "attacks": ("square",)},
        "attack is 'square'; choose of apgd-ce, apgd-t, apgd-dlr for random models",
    ),
    "eps in l2": ({"norm": "l2", "eps": 6}, r"eps is 6; must be in \(0, 5.657\]"),
    "state": ({"state_path": "no/such/directory/state.npz"}, "its directory does not exist"),
    "outputs": ({"logits_fn": lambda images: images.sum((1, 2, 3))}, "must be .* to"),
    "one class": ({"logits_fn": lambda images: images.sum((2, 3))[:, :1]}, "1 class; must be 2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_in_one_line(problem, name):
    changed, message = MISTAKES[name]
    call = {
        "logits_fn": problem[0],
        "images": np.full((2, *SHAPE), 0.5),
        "labels": np.zeros(2, int),
        "eps": 0.1,
        "batch_size": 2,
    } | changed
    with pytest.raises(ValueError, match=message) as caught:
        autoattack(KEY, call.pop("logits_fn"), call.pop("images"), call.pop("labels"), **call)
    assert "\n" not in str(caught.value)


def test_untargeted_dlr_needs_three_classes():
    logits_fn, images, labels, _ = linear_problem(2)
    with pytest.raises(ValueError, match="'apgd-dlr' needs at least 3 classes"):
        evaluate(logits_fn, images, labels, eps=0.1, attacks=("apgd-dlr",))


ON_FOUR_DEVICES = {
    "linf": {},
    "l2": {"norm": "l2", "eps": 0.06, "attacks": ("apgd-ce", "square")},
    "l1": {"norm": "l1", "eps": 0.12, "attacks": ("apgd-ce", "square")},
}


@pytest.mark.filterwarnings("ignore:eps is:UserWarning")
def test_four_devices_end_in_the_same_images(problem, tmp_path):
    logits_fn, images, labels, eps, _ = problem
    np.savez(tmp_path / "problem.npz", weights=logits_fn.args[0], images=images, labels=labels)
    variants = {name: {"eps": eps, **SHORT, **changed} for name, changed in ON_FOUR_DEVICES.items()}
    script = textwrap.dedent(f"""
        import jax, numpy as np
        from jaxrw.attacks import autoattack

        assert jax.local_device_count() == 4
        problem = np.load({str(tmp_path / "problem.npz")!r})

        def linear(weights, images):
            return (images.reshape(len(images), -1) - 0.5) @ weights

        for name, settings in {variants!r}.items():
            result = autoattack(
                jax.random.key(5),
                jax.tree_util.Partial(linear, problem["weights"]),
                problem["images"],
                problem["labels"],
                batch_size=64,
                **settings,
            )
            path = {str(tmp_path)!r} + "/" + name + ".npz"
            np.savez(path, fooled_by=result.fooled_by, adversarial=result.adversarial)
    """)
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
    }
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    for name, settings in variants.items():
        alone = evaluate(logits_fn, images, labels, **settings)
        assert (alone.fooled_by >= 0).any(), name
        result = np.load(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(result["fooled_by"], alone.fooled_by, err_msg=name)
        # A length adds up all pixels, and programs of other shapes do so in another order.
        rounding = 0 if name == "linf" else 1e-6
        np.testing.assert_allclose(
            result["adversarial"], alone.adversarial, rtol=0, atol=rounding, err_msg=name
        )


# Other norms


@pytest.fixture(scope="module")
def l2_problem():
    """Linear, three classes, half of the labels within eps in L2."""
    logits_fn, images, labels, distance = linear_problem(3, norm="l2")
    eps = in_the_widest_gap(distance)
    return logits_fn, images, labels, eps, distance > eps


def in_the_widest_gap(distance):
    """A radius in the middle third of the distances, but not within one per cent of any: FAB may miss that."""
    middle = np.sort(distance)[21:43]
    gap = np.diff(middle).argmax()
    eps = float(middle[gap : gap + 2].mean())
    assert np.abs(distance / eps - 1).min() > 0.01
    return eps


@pytest.fixture(scope="module")
def l2_standard(l2_problem):
    logits_fn, images, labels, eps, _ = l2_problem
    return evaluate(logits_fn, images, labels, eps=eps, norm="l2")


def test_finds_exactly_the_robust_examples_in_l2(l2_problem, l2_standard):
    logits_fn, images, labels, eps, robust = l2_problem
    np.testing.assert_array_equal(l2_standard.robust, robust)
    assert in_ball(l2_standard.adversarial, images, eps=eps, norm="l2").all()
    np.testing.assert_array_equal(right(logits_fn, l2_standard.adversarial, labels), l2_standard.robust)
    assert (l2_standard.norm, l2_standard.version, l2_standard.warnings) == ("l2", "standard", ())


@pytest.mark.filterwarnings("ignore:eps is:UserWarning")
@pytest.mark.parametrize(("norm", "num_classes"), [("l2", 2), ("l2", 10), ("l1", 3), ("l1", 10)])
def test_finds_exactly_the_robust_examples_of_each_norm_and_number_of_classes(norm, num_classes):
    logits_fn, images, labels, distance = linear_problem(num_classes, norm=norm)
    eps = float(np.median(distance))
    attacks = ("apgd-t", "fab-t")
    result = evaluate(logits_fn, images, labels, eps=eps, norm=norm, attacks=attacks, num_steps=40)
    assert not result.robust[distance < 0.99 * eps].any()  # FAB may miss what is within one per cent.
    assert result.robust[distance > eps].all()
    assert in_ball(result.adversarial, images, eps=eps, norm=norm).all()
    assert result.num_targets == min(num_classes - 1, 9)


@pytest.mark.filterwarnings("ignore:eps is:UserWarning")
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_thousand_classes(norm):
    """Every example is fooled that one of its nine likeliest wrong classes can take."""
    logits_fn, images, labels, nine = linear_problem(1000, norm=norm, num_targets=9)
    eps = float(np.median(nine))
    result = evaluate(logits_fn, images, labels, eps=eps, norm=norm, attacks=("fab-t",), num_steps=40)
    assert not result.robust[nine < 0.99 * eps].any()
    assert in_ball(result.adversarial, images, eps=eps, norm=norm).all()
    assert result.num_targets == 9


@pytest.mark.filterwarnings("ignore:eps is:UserWarning")
@pytest.mark.parametrize(
    ("norm", "name"),
    [
        ("l2", "apgd-ce"),
        ("l2", "fab-t"),
        ("l2", "square"),
        ("l1", "apgd-ce"),
        ("l1", "fab-t"),
        ("l1", "square"),
    ],
)
def test_kills_and_batch_sizes_change_nothing_in_other_norms(tmp_path, norm, name):
    logits_fn, images, labels, distance = linear_problem(3, norm=norm)
    eps = in_the_widest_gap(distance)
    call = {"eps": eps, "norm": norm, "attacks": (name,), "num_steps": 10, "num_queries": 150}
    whole = evaluate(logits_fn, images, labels, **call)
    looks = []

    def kill(progress):
        looks.append(progress)
        raise KilledError

    call |= {"state_path": tmp_path / "state.npz", "state_seconds": 0, "batch_size": 16}
    for _ in range(2):
        with pytest.raises(KilledError):
            evaluate(logits_fn, images, labels, progress=kill, **call)
    assert looks[1].fraction > looks[0].fraction
    result = evaluate(logits_fn, images, labels, **call)
    np.testing.assert_array_equal(result.fooled_by, whole.fooled_by)
    np.testing.assert_array_equal(result.adversarial, whole.adversarial)
    assert 0 < whole.fooled[name] < 64


def test_a_ball_is_of_its_norm():
    images = np.full((3, *SHAPE), 0.5, np.float32)  # of 32 pixels
    moved = images.copy()
    moved[1] += 0.1
    moved[2, 0, 0, 0] += 0.4
    # The second is 0.1, 0.57 or 3.2 away, the third 0.4 in every norm.
    for norm, inside in {
        "linf": [True, True, False],
        "l2": [True, False, True],
        "l1": [True, False, True],
    }.items():
        eps = 0.3 if norm == "linf" else 0.45
        assert in_ball(moved, images, eps=eps, norm=norm).tolist() == inside
    assert not in_ball(moved[2:], images[2:], eps=0.3999, norm="l2").any()


def test_a_radius_of_another_norm_is_told(l2_problem):
    logits_fn, images, labels, _, _ = l2_problem
    result = evaluate_and_catch(logits_fn, images, labels, eps=8 / 255, norm="l2", attacks=("apgd-ce",))
    assert result.warnings[0].startswith("eps is 0.03137 for norm 'l2'")


# Versions


def test_individual_attacks_are_the_attacks_alone(problem, standard):
    logits_fn, images, labels, eps, _ = problem
    attacks = ("apgd-ce", "fab-t")
    result = evaluate(logits_fn, images, labels, eps=eps, attacks=attacks, individual=True)
    assert result.attacked == dict.fromkeys(attacks, 58)
    for name in attacks:
        alone = evaluate(logits_fn, images, labels, eps=eps, attacks=(name,))
        np.testing.assert_array_equal(result.robust_under[name], alone.robust)
        assert result.accuracy[name] == alone.accuracy[name] == 100 * alone.robust.mean()
        assert result.fooled[name] == alone.fooled[name]
    one_by_one = evaluate(logits_fn, images, labels, eps=eps, attacks=attacks)
    np.testing.assert_array_equal(result.fooled_by, one_by_one.fooled_by)
    np.testing.assert_array_equal(result.adversarial, one_by_one.adversarial)
    np.testing.assert_array_equal(one_by_one.robust_under["fab-t"], one_by_one.robust)
    # What they find does overlap, or both ways would be the same.
    assert sum(result.fooled.values()) > sum(one_by_one.fooled.values())


def test_individual_attacks_go_on_after_a_kill(problem, tmp_path):
    logits_fn, images, labels, eps, _ = problem
    call = {"eps": eps, "attacks": ("apgd-ce", "fab-t"), "individual": True, "num_steps": 10}
    whole = evaluate(logits_fn, images, labels, **call)

    def kill(progress):
        if progress.attack == "fab-t":
            raise KilledError

    call |= {"state_path": tmp_path / "state.npz", "state_seconds": 0}
    with pytest.raises(KilledError):
        evaluate(logits_fn, images, labels, progress=kill, **call)
    result = evaluate(logits_fn, images, labels, **call)
    assert result.accuracy == whole.accuracy
    np.testing.assert_array_equal(result.adversarial, whole.adversarial)
    with pytest.raises(ValueError, match="individual was True, is False"):
        evaluate(logits_fn, images, labels, **call | {"individual": False})


def test_plus_runs_all_attacks_and_restarts(problem):
    logits_fn, images, labels, eps, robust = problem
    looks = []
    result = evaluate(
        logits_fn,
        images,
        labels,
        eps=eps,
        version="plus",
        num_steps=10,
        num_queries=100,
        progress=looks.append,
    )
    assert list(result.accuracy) == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    np.testing.assert_array_equal(result.robust, robust)
    assert result.version == "plus"


def test_restarts_begin_elsewhere():
    """The image lies on a plateau without a gradient; a brighter first pixel leads off it, then to another class."""

    def logits_fn(images):
        pixel = images[:, 0, 0, 0] - 0.5
        margin = jnp.where(pixel > 0.005, 0.05 - pixel, 1)
        return jnp.stack([margin, jnp.zeros_like(pixel), jnp.full_like(pixel, -10.0)], axis=1)

    images, labels = np.full((32, *SHAPE), 0.5, np.float32), np.zeros(32, int)
    # A start is darker with a probability of 0.525 (APGD) or 0.55 (FAB); the first of FAB is the image itself.
    for name, most in {"apgd-ce": 28, "fab": 32}.items():
        robust = [
            evaluate_and_catch(
                logits_fn, images, labels, eps=0.1, attacks=(name,), num_restarts=number, num_steps=5
            ).robust.sum()
            for number in (1, 7)
        ]
        assert 5 < robust[0] <= most
        assert robust[1] <= 4
    assert robust[0] == 32


# Random models


def noisy(images, key):
    """Two classes, told apart by the mean, behind noise in front; right with a probability that falls with the mean."""
    bright = 40 * (images.mean((1, 2, 3)) - 0.5) + jax.random.normal(key, (len(images),))
    return jnp.stack([-bright, bright, jnp.full_like(bright, -100)], axis=1)


def test_a_random_model_is_judged_by_votes():
    """A shift of the mean by s is right with probability Phi(40 s), so more than half of the time if s is positive."""
    shifts = np.linspace(-0.05, 0.05, 32)
    images = (0.5 + shifts[:, None, None, None] * np.ones(SHAPE)).astype(np.float32)
    result = evaluate_and_catch(noisy, images, np.ones(32, int), eps=0.02, version="rand", num_votes=200)
    # 200 votes know a probability to 0.035: 40 * 0.0032 / sqrt(2 pi) = 0.05.
    clear = np.abs(shifts) > 0.0032
    np.testing.assert_array_equal((result.fooled_by != WRONG)[clear], (shifts > 0)[clear])
    clear = np.abs(shifts - 0.02) > 0.0032
    np.testing.assert_array_equal(result.robust[clear], (shifts > 0.02)[clear])
    assert list(result.accuracy) == ["apgd-ce", "apgd-dlr"]
    assert in_ball(result.adversarial, images, eps=0.02).all()


def test_a_random_model_gives_the_same_in_any_batch_and_after_a_kill(tmp_path):
    shifts = np.linspace(0.001, 0.04, 24)
    images, labels = (0.5 + shifts[:, None, None, None] * np.ones(SHAPE)).astype(np.float32), np.ones(24, int)
    call = {"eps": 0.02, "version": "rand", "num_samples": 4, "num_votes": 5, "num_steps": 10}
    whole = evaluate_and_catch(noisy, images, labels, **call)

    def kill(progress):
        raise KilledError

    path = tmp_path / "state.npz"
    with pytest.raises(KilledError):
        evaluate_and_catch(noisy, images, labels, progress=kill, state_path=path, **call)
    for more in {"batch_size": 7}, {"state_path": path}:
        result = evaluate_and_catch(noisy, images, labels, **call, **more)
        np.testing.assert_array_equal(result.fooled_by, whole.fooled_by)
        np.testing.assert_allclose(result.adversarial, whole.adversarial, atol=1e-6)
    assert 0 < whole.robust.sum() < 24


def test_the_mean_gradient_finds_its_way_through_noise():
    """Steep noise hides a slope: one gradient points anywhere, the mean of many along it."""
    rng = np.random.default_rng(0)
    slope = jnp.asarray(rng.normal(size=32), jnp.float32)

    def logits_fn(images, key):
        tilt = slope + 3 * jax.random.normal(key, (32,))
        score = (images.reshape(len(images), -1) - 0.5) @ tilt
        return jnp.stack([jnp.zeros_like(score), score + 1, jnp.full_like(score, -100.0)], axis=1)

    images, labels = np.full((16, *SHAPE), 0.5, np.float32), np.ones(16, int)
    # The whole slope takes eps * |slope|_1, more than 1 with some to spare.
    eps = 1.6 / float(jnp.abs(slope).sum())
    robust = [
        evaluate_and_catch(
            logits_fn,
            images,
            labels,
            eps=eps,
            version="rand",
            num_samples=n,
            num_votes=100,
            attacks=("apgd-ce",),
        ).robust.mean()
        for n in (1, 40)
    ]
    assert robust[1] < 0.2 < robust[0]


def test_models_of_other_arguments_are_told(problem):
    logits_fn, images, labels, eps, _ = problem
    with pytest.raises(
        ValueError, match="version is 'rand', so logits_fn must take images and a key"
    ) as caught:
        evaluate(logits_fn, images, labels, eps=eps, version="rand")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match="a random model, of images and a key, needs version='rand'"
    ) as caught:
        evaluate(noisy, images, labels, eps=eps)
    assert "\n" not in str(caught.value)
