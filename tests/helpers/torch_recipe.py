"""Training steps of whole recipes in PyTorch, float64, written from the papers' formulas.

PYTHONPATH=tests:. python -m helpers.torch_recipe    writes tests/golden/recipes.npz anew; needs PyTorch and JAX
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch

from helpers import recipes
from jaxrw import attacks
from jaxrw.training.augment import to_pixels
from jaxrw.training.batches import epoch_order

MOMENTUM, TINY = 0.9, 1e-20


def train(params, starts, images, labels, recipe):
    """Parameters, statistics and their average after one step for each batch.

    params: kernel [3, 3, C, F], scale, offset [F], dense [P, K], bias [K], as NumPy arrays; starts and images
    [steps, B, H, W, C]; recipe: a dict, see recipes.py.
    """
    params = {name: torch.tensor(value, dtype=torch.float64) for name, value in params.items()}
    features = len(params["scale"])
    statistics = [torch.zeros(features, dtype=torch.float64), torch.ones(features, dtype=torch.float64)]
    buffers = {name: torch.zeros_like(value) for name, value in params.items()}
    average = dict(params)
    for step, (start, batch, y) in enumerate(zip(starts, images, labels, strict=True)):
        x, y = torch.tensor(batch, dtype=torch.float64), torch.tensor(y, dtype=torch.long)
        adversarial = attack(params, statistics, torch.tensor(start, dtype=torch.float64), x, y, recipe)
        where = params
        if recipe["awp"]:
            gradients, _ = loss_gradients(params, statistics, x, adversarial, y, recipe)
            where = {
                name: w + recipe["awp"] * w.norm() * gradients[name] / (gradients[name].norm() + TINY)
                if w.dim() > 1
                else w
                for name, w in params.items()
            }
        gradients, statistics = loss_gradients(where, statistics, x, adversarial, y, recipe)
        moved = {}
        for name, w in where.items():
            gradient = gradients[name]
            if recipe["decay_all"] or w.dim() > 1:
                gradient = gradient + recipe["weight_decay"] * w
            buffers[name] = 0.9 * buffers[name] + gradient
            direction = gradient + 0.9 * buffers[name] if recipe["nesterov"] else buffers[name]
            # The authors' way: step at the perturbed weights, then take the perturbation back.
            moved[name] = (w - recipe["learning_rate"] * direction) - (w - params[name])
        params = moved
        d = min(recipe["decay"], (1 + step) / (10 + step))
        average = {name: d * average[name] + (1 - d) * params[name] for name in params}
    arrays = params | {"mean": statistics[0], "var": statistics[1]}
    arrays |= {f"average_{name}": value for name, value in average.items()}
    return {name: value.numpy() for name, value in arrays.items()}


def forward(params, x, statistics, training):
    """Logits, and the running statistics after this batch; one convolution, BatchNorm, ReLU, dense."""
    kernel = params["kernel"].permute(3, 2, 0, 1)
    h = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)
    mean, var = statistics
    if training:
        mean, var = h.mean((0, 1, 2)), h.var((0, 1, 2), correction=0)
        pairs = zip(statistics, (mean, var), strict=True)
        statistics = [MOMENTUM * old + (1 - MOMENTUM) * new.detach() for old, new in pairs]
    h = (h - mean) / (var + 1e-5).sqrt() * params["scale"] + params["offset"]
    return h.relu().flatten(1) @ params["dense"] + params["bias"], statistics


def attack(params, statistics, start, x, y, recipe):
    """PGD with BatchNorm in evaluation mode, up the KL divergence for TRADES and the cross-entropy for the others."""
    p = forward(params, x, statistics, training=False)[0].softmax(1)
    for _ in range(recipe["num_steps"]):
        start = start.detach().requires_grad_()
        log_q = forward(params, start, statistics, training=False)[0].log_softmax(1)
        if recipe["objective"] == "trades":
            ascended = (p * (p.log() - log_q)).sum()
        else:
            ascended = -log_q[torch.arange(len(y)), y].sum()
        gradient = torch.autograd.grad(ascended, start)[0]
        start = start.detach() + recipe["step_size"] * gradient.sign()
        start = torch.minimum(torch.maximum(start, x - recipe["eps"]), x + recipe["eps"]).clamp(0, 1)
    return start.detach()


def loss_gradients(params, statistics, x, adversarial, y, recipe):
    """Gradients of the loss, and the running statistics after the clean and the adversarial batch."""
    params = {name: value.detach().requires_grad_() for name, value in params.items()}
    clean, after_clean = forward(params, x, statistics, training=True)
    counted = after_clean if recipe["clean_statistics"] else statistics
    logits, statistics = forward(params, adversarial, counted, training=True)
    rows = torch.arange(len(y))
    log_p, log_q = clean.log_softmax(1), logits.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()
    others = q.clone()
    others[rows, y] = -1
    others = others.max(1).values
    weight = (3 * torch.sigmoid(-recipe["gamma"] * (q[rows, y] - others + recipe["beta"]))).detach()
    kl = (p * (log_p - log_q)).sum(1)
    if recipe["objective"] == "trades":
        target = torch.nn.functional.one_hot(y, q.shape[1]) * (1 - recipe["smoothing"])
        target = target + recipe["smoothing"] / q.shape[1]
        losses = -(target * log_p).sum(1) + recipe["lam"] * weight * kl
    else:
        boosted = -log_q[rows, y] - (1.0001 - others + 1e-12).log()
        losses = weight * boosted + recipe["lam"] * kl * (1.0000001 - p[rows, y])
    gradients = torch.autograd.grad(losses.mean(), list(params.values()))
    return dict(zip(params, gradients, strict=True)), statistics


def five_steps(name):
    """Arrays after five steps from the parameters, batches and starts of the attack that jaxrw has."""
    _, experiment = recipes.create(name)
    order = epoch_order(experiment.order_key, 0, recipes.SIZE).reshape(recipes.STEPS, -1)
    dataset = experiment.dataset.train
    images, labels = np.asarray(to_pixels(dataset.images))[order], dataset.labels[order]
    # One step of size 0 returns the start itself.
    start = functools.partial(attacks.pgd, eps=recipes.ALL["eps"], step_size=0.0, num_steps=1)
    starts = [
        start(
            jax.random.split(jax.random.fold_in(experiment.step_key, number))[1],
            lambda x: x.reshape(len(x), -1)[:, :10],
            jnp.asarray(images[number]),
            jnp.asarray(labels[number]),
            index=jnp.asarray(order[number]),
        )
        for number in range(recipes.STEPS)
    ]
    first = recipes.flat(experiment.create_state().variables)
    first = {key: value for key, value in first.items() if key not in ("mean", "var")}
    return train(first, np.asarray(starts), images, labels, recipes.RECIPES[name] | recipes.ALL)


if __name__ == "__main__":
    golden = {f"{name}/{key}": value for name in recipes.RECIPES for key, value in five_steps(name).items()}
    np.savez_compressed(recipes.GOLDEN, **{key: value.astype(np.float32) for key, value in golden.items()})
