import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.linear import linear, linear_problem, right

from jaxrw.attacks import square
from jaxrw.attacks.autoattack.checks import in_ball
from jaxrw.attacks.norms import NORMS
from jaxrw.attacks.square import _add_square, _bumps, _draw_grid, _move_window, _odd_sides, _sides, _windows
from jaxrw.methods.margins import logit_margin

KEY = jax.random.key(11)


def test_fools_exactly_what_can_be_fooled_on_a_linear_model():
    # Two classes: the margin is linear, every pixel has its best sign, and 16 pixels of 4 signs are soon tried.
    logits_fn, images, labels, distance = linear_problem(2)
    eps = float(np.median(distance))
    clear = np.abs(distance / eps - 1) > 1e-3
    adversarial = np.asarray(square(KEY, logits_fn, images, labels, eps=eps, num_queries=2000))
    robust = right(logits_fn, adversarial, labels)
    np.testing.assert_array_equal(robust[clear], (distance > eps)[clear])
    assert in_ball(adversarial, images, eps=eps).all()
    # Every pixel is at an end of its range: stripes and squares know nothing between.
    np.testing.assert_allclose(np.abs(adversarial - images), eps, atol=1e-6)


def test_uses_no_gradient():
    logits_fn, images, labels, distance = linear_problem(2)

    def rounded(weights, images):
        return linear(weights, jnp.round(images * 50) / 50)

    eps = 2 * float(np.median(distance))
    model = jax.tree_util.Partial(rounded, logits_fn.args[0])
    adversarial = square(KEY, model, images, labels, eps=eps, num_queries=1000)
    assert right(model, adversarial, labels).mean() < 0.5


def test_the_margin_never_rises():
    logits_fn, images, labels, distance = linear_problem(5, size=16)
    eps = float(distance.min()) / 2
    margins = [
        np.asarray(
            jax.vmap(logit_margin)(
                logits_fn(square(KEY, logits_fn, images, labels, eps=eps, num_queries=n)), labels
            )
        )
        for n in (1, 200)
    ]
    assert (margins[1] <= margins[0]).all()
    assert (margins[1] < margins[0]).any()


def test_is_the_same_again_alone_and_among_others():
    logits_fn, images, _, _ = linear_problem(5, size=12)
    images = np.clip((images - 0.5) * 3 + 0.5, 0, 1)  # at the walls, too
    labels = np.asarray(logits_fn(images).argmax(1))

    def attack(chosen, key=KEY):
        adversarial = square(
            key,
            logits_fn,
            images[chosen],
            labels[chosen],
            eps=0.03,
            num_queries=100,
            index=jnp.asarray(chosen),
        )
        return np.asarray(adversarial)

    together, order = attack(np.arange(12)), np.random.default_rng(0).permutation(12)
    assert in_ball(together, images, eps=0.03).all()
    np.testing.assert_array_equal(attack(np.arange(12)), together)
    np.testing.assert_array_equal(attack(order), together[order])
    crowd = np.repeat(np.array([3, 7]), 6)
    np.testing.assert_array_equal(attack(crowd), together[crowd])
    assert 0 < right(logits_fn, together, labels).sum() < 12
    assert (attack(np.arange(12), jax.random.key(12)) != together).any()


def test_a_square_is_a_square_of_extremes_and_reaches_every_place():
    image = jnp.full((6, 5, 2), 0.5)
    draw = jax.vmap(lambda key: _add_square(key, image, image, 2, eps=0.1))
    changes = np.asarray(draw(jax.random.split(KEY, 400))) - 0.5
    covered = np.abs(changes) > 0
    assert (covered.sum((1, 2, 3)) == 2 * 2 * 2).all()
    np.testing.assert_allclose(np.abs(changes[covered]), 0.1, atol=1e-6)
    # One sign for each channel of each square.
    assert (np.abs(changes.sum((1, 2))) > 0.39).all()
    assert covered.any(0).all()


def test_sides_are_the_papers():
    sides = _sides(5000, 0.8, 32, 32)
    assert sides[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist() == [29, 20, 14, 10, 7, 5, 4, 3]
    assert sides[[10, 50, 200, 500, 1000, 2000, 4000]].tolist() == [29, 20, 14, 10, 7, 5, 4]
    assert _sides(5000, 0.8, 4, 8).max() == 4
    assert _sides(5000, 0.8, 4, 4).min() == 1


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [1, 2, 3, 6, 7, 21])
def test_windows_are_a_peak_and_a_trough(norm, side):
    """Section 3.4 of the paper, rectangle by rectangle: the k-th covers what is k - 1 pixels around the middle."""
    power, order = {"l2": (2, 2), "l1": (4, 1)}[norm]

    def pyramid(height, width):
        pixels = np.zeros((height, width))
        for k in range(1, max(height // 2, width // 2) + 2):
            for i in range(height):
                for j in range(width):
                    if abs(i - height // 2) < k and abs(j - width // 2) < k:
                        pixels[i, j] += k**-power
        return pixels / np.linalg.norm(pixels.ravel(), order) if height else pixels

    expected = np.concatenate([pyramid(side // 2, side), -pyramid(side - side // 2, side)])
    expected /= np.linalg.norm(expected.ravel(), order)
    np.testing.assert_allclose(_bumps(side, norm), expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_grid_has_five_by_five_windows(norm):
    grids = np.stack(
        [_draw_grid(key, shape=(17, 16, 2), norm=NORMS[norm]) for key in jax.random.split(KEY, 20)]
    )
    # Windows of side 3, one row in from the top and none from the left; each is one of two, up to its sign.
    bumps = _bumps(3, norm)
    seen = set()
    for row in range(5):
        for column in range(5):
            windows = grids[:, 1 + 3 * row : 4 + 3 * row, 3 * column : 3 + 3 * column]
            for window in windows.transpose(0, 3, 1, 2).reshape(-1, 3, 3):
                matches = [np.allclose(window, s * b, atol=1e-6) for b in (bumps, bumps.T) for s in (1, -1)]
                assert sum(matches) == 1
                seen.add(matches.index(True))
    assert seen == {0, 1, 2, 3}
    assert (grids[:, 0] == 0).all()
    assert (grids[:, :, 15] == 0).all()


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_query_moves_one_window_to_another(norm):
    rng = np.random.default_rng(0)
    image, side, eps = jnp.full((12, 11, 3), 0.5), 5, 0.8
    best = image + jnp.asarray(rng.normal(size=image.shape), jnp.float32) * 1e-3
    draw = jax.vmap(
        lambda key: _move_window(
            key, best, image, jnp.int32(side), windows=_windows((3, 5, 9), norm), eps=eps, norm=NORMS[norm]
        )
    )
    steps = np.asarray(draw(jax.random.split(KEY, 200)), np.float64) - 0.5
    # Far from the walls nothing is clipped, so the whole radius is used.
    np.testing.assert_allclose(
        np.linalg.norm(steps.reshape(200, -1), int(norm[1]), axis=1), eps, rtol=1e-5 if norm == "l2" else 1e-4
    )
    emptied = (np.abs(steps) < 1e-7).all(-1)
    before = np.asarray(best - image, np.float64)
    moved = 0
    for step, empty in zip(steps, emptied, strict=True):
        if norm == "l2":
            # What is in neither window keeps its direction.
            ratio = (step / before).reshape(-1)
            kept = np.isclose(ratio, np.median(ratio), rtol=1e-2)
            assert kept.sum() >= (12 * 11 - 2 * 25) * 3 - 5
        moved += empty.any()
        assert empty.sum() <= 25 or norm == "l1"
    assert moved > 150  # Two windows on the same place leave none empty.


def test_windows_have_odd_sides_of_at_least_three():
    sides = _odd_sides(5000, 0.8, 32, 32)
    assert sides[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist() == [29, 21, 15, 11, 7, 5, 5, 3]
    assert _odd_sides(5000, 0.8, 4, 4).max() == 4
    assert _odd_sides(5000, 0.8, 8, 8).min() == 3


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_in_other_norms_it_is_the_same_alone_and_fools_nothing_that_cannot_be_fooled(norm):
    logits_fn, images, labels, distance = linear_problem(3, size=24, norm=norm)
    eps = float(np.median(distance)) * 1.5

    def attack(chosen):
        return np.asarray(
            square(
                KEY,
                logits_fn,
                images[chosen],
                labels[chosen],
                eps=eps,
                num_queries=300,
                norm=norm,
                index=jnp.asarray(chosen),
            )
        )

    together, order = attack(np.arange(24)), np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(attack(order), together[order])
    assert in_ball(together, images, eps=eps, norm=norm).all()
    robust = right(logits_fn, together, labels)
    assert robust[distance > eps].all()
    # Random search is no gradient, but half of what can be fooled is found.
    assert robust[distance < eps].mean() < 0.5


@pytest.mark.parametrize("changed", [{"num_queries": 0}, {"p_init": 0}, {"p_init": 1.5}])
def test_mistakes_are_named(changed):
    logits_fn, images, labels, _ = linear_problem(2, size=4)
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        square(KEY, logits_fn, images, labels, eps=0.1, **changed)
