"""An evaluation that is interrupted goes on from its state file."""

import jax
import numpy as np
import pytest
from helpers.autoattack import KEY, SHORT, KilledError, evaluate, in_the_widest_gap
from helpers.linear import linear, linear_problem

from jaxrw.attacks import autoattack
from jaxrw.attacks.autoattack.ensemble import ATTACKS, STANDARD


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
    garbage, other, single = (tmp_path / name for name in ("garbage.npz", "other.npz", "single.npy"))
    garbage.write_bytes(b"PK\x03\x04 and then nothing")
    np.savez(other, images=images)
    np.save(single, images)
    for path in garbage, other, single:
        with pytest.raises(ValueError, match="holds no state of an evaluation"):
            evaluate(logits_fn, images, labels, eps=eps, state_path=path)


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
