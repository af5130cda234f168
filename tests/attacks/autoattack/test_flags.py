"""Which examples count as robust: exact answers of linear models, in any batch and on any number of devices."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.autoattack import KEY, SHORT, assert_sound, evaluate, evaluate_and_catch
from helpers.flags import xla_flags
from helpers.linear import SHAPE, linear, linear_problem, right

from jaxrw.attacks import apgd, fab
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.autoattack.ensemble import ATTACKS, STANDARD
from jaxrw.attacks.autoattack.slots import slot_count
from jaxrw.attacks.autoattack.state import WRONG
from jaxrw.attacks.batch import advance, begin, choose_states


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


def test_one_attack_may_be_given_by_its_name_and_eps_as_a_number_of_numpys(problem):
    logits_fn, images, labels, eps, _ = problem
    result = evaluate(logits_fn, images, labels, eps=np.float32(eps), attacks="apgd-ce", num_steps=2)
    assert list(result.accuracy) == ["apgd-ce"]
    assert json.loads(json.dumps(result.record()))["eps"] == pytest.approx(eps)


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
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(4),
        "PYTHONPATH": str(pathlib.Path(__file__).parents[3]),
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
