"""SGD as PyTorch's, learning rates of every step, and weight perturbation, against float64 NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrw.training import optimizer

PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.3, -0.2])}
GRADIENTS = {"kernel": np.array([[0.3, -0.1], [0.2, 0.7]]), "bias": np.array([0.1, 0.4])}


def by_hand(params, rates, *, momentum, weight_decay, nesterov=False, decay_all=True, clip_norm=None):
    """PyTorch's documented update, buf = momentum buf + g + wd p, gradients growing with each step."""
    params, buffers = dict(params), {name: np.zeros_like(p) for name, p in params.items()}
    for number, rate in enumerate(rates):
        gradients = {name: (number + 1) * g for name, g in GRADIENTS.items()}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        if clip_norm is not None and norm > clip_norm:
            gradients = {name: g * clip_norm / norm for name, g in gradients.items()}
        for name, p in params.items():
            g = gradients[name] + (weight_decay * p if decay_all or p.ndim > 1 else 0)
            buffers[name] = momentum * buffers[name] + g
            params[name] = p - rate * (g + momentum * buffers[name] if nesterov else buffers[name])
    return params


@pytest.mark.parametrize(
    "options", [{}, {"nesterov": True}, {"decay_all": False}, {"clip_norm": 2.0}, {"clip_norm": 100.0}]
)
def test_sgd_is_pytorchs(options):
    schedule = optimizer.create_schedule(
        "milestones", learning_rate=0.1, num_epochs=4, steps_per_epoch=2, milestones=(2, 3), decay=0.1
    )
    sgd = optimizer.create_optimizer(schedule, momentum=0.9, weight_decay=0.01, **options)
    params = {name: jnp.array(p) for name, p in PARAMS.items()}
    state = sgd.init(params)
    for number in range(8):
        gradients = {name: jnp.array((number + 1) * g) for name, g in GRADIENTS.items()}
        updates, state = sgd.update(gradients, state, params)
        params = {name: p + updates[name] for name, p in params.items()}
    rates = [0.1] * 4 + [0.01] * 2 + [0.001] * 2
    expected = by_hand(PARAMS, rates, momentum=0.9, weight_decay=0.01, **options)
    for name, values in expected.items():
        np.testing.assert_allclose(params[name], values, rtol=1e-5)


def rates(name, num_epochs=4, steps_per_epoch=5, **options):
    schedule = optimizer.create_schedule(
        name, learning_rate=0.4, num_epochs=num_epochs, steps_per_epoch=steps_per_epoch, **options
    )
    return np.array([schedule(step) for step in range(num_epochs * steps_per_epoch)])


def test_milestones_rise_from_zero():
    expected = 0.4 * np.repeat([1, 1, 0.1, 0.1], 5)
    expected[:7] *= np.arange(7) / 7  # 1.4 epochs of 5 steps
    np.testing.assert_allclose(
        rates("milestones", milestones=(2,), decay=0.1, rise_epochs=1.4), expected, rtol=1e-6
    )


def test_cosine_ends_at_zero():
    """Half a cosine over the 15 steps after the rise."""
    expected = 0.4 * np.concatenate([np.arange(5) / 5, (1 + np.cos(np.pi * np.arange(15) / 15)) / 2])
    np.testing.assert_allclose(rates("cosine", rise_epochs=1.0), expected, rtol=1e-5)


def test_one_cycle_is_pytorchs():
    """Cosines from 1/25 of the highest to it over the first quarter, and down to 1/250,000."""

    def cosine(first, last, share):
        return last + (first - last) * (1 + np.cos(np.pi * share)) / 2

    expected = [
        cosine(0.4 / 25, 0.4, step / 5) if step < 5 else cosine(0.4, 0.4 / 25e4, (step - 5) / 15)
        for step in range(20)
    ]
    np.testing.assert_allclose(rates("one_cycle", peak=0.25), expected, rtol=1e-4)


def test_a_schedule_that_is_none_is_named():
    with pytest.raises(ValueError, match="name is 'linear'; choose one of milestones, cosine, one_cycle"):
        optimizer.create_schedule("linear", learning_rate=0.1, num_epochs=1, steps_per_epoch=1)


def test_kernels_move_up_the_loss_by_their_own_length():
    """d = |w| g / |g| for the kernel alone, of length gamma |w|."""
    moved = optimizer.perturb_weights(
        {name: jnp.array(p) for name, p in PARAMS.items()},
        {name: jnp.array(g) for name, g in GRADIENTS.items()},
        gamma=0.01,
    )
    w, g = PARAMS["kernel"], GRADIENTS["kernel"]
    expected = w + 0.01 * np.linalg.norm(w) * g / np.linalg.norm(g)
    np.testing.assert_allclose(moved["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(moved["bias"], np.float32(PARAMS["bias"]))


def test_a_gradient_of_zero_moves_nothing():
    params = {name: jnp.array(p) for name, p in PARAMS.items()}
    moved = optimizer.perturb_weights(params, {name: 0 * p for name, p in params.items()}, gamma=0.01)
    np.testing.assert_array_equal(moved["kernel"], params["kernel"])
