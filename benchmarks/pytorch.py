"""The peer: adversarial training in PyTorch, written as the public implementations of this field write it.

The attack runs in evaluation mode with torch.autograd.grad of the images, the parameter step with loss.backward() and
torch.optim.SGD. The networks are those that tests/ compares jaxrw's with.
"""

import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everybody writes it
from ml_collections import ConfigDict
from torch import Tensor, nn

from benchmarks.problem import Problem, create_experiment
from jaxrw import networks
from jaxrw.attacks.pgd import pgd as jaxrw_pgd
from jaxrw.networks import torch_weights

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests"))
torch_networks = importlib.import_module("helpers.torch_networks")

LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


class Peer(NamedTuple):
    """A network in PyTorch with jaxrw's weights, and the same batch."""

    network: nn.Module
    images: Tensor
    labels: Tensor


def create_peers(problem: Problem) -> dict[str, Peer]:
    """Returns the peer in each memory layout.

    Raises:
      AssertionError: its logits, or an attack of two steps, differ from jaxrw's.
    """
    model, variables = problem.experiment.model, jax.device_get(problem.variables)
    weights = torch_weights.to_state_dict(variables, model=model)
    peers = {}
    for name, layout in LAYOUTS.items():
        network = create_network(model, {key: torch.tensor(array) for key, array in weights.items()})
        pixels = to_torch(np.array(problem.images)).contiguous(memory_format=layout)
        target = torch.from_numpy(np.array(problem.labels)).long()
        peers[name] = Peer(network.to(memory_format=layout), pixels, target)
        _check_same(peers[name], problem)
    return peers


def create_network(model: networks.Network, weights: Mapping[str, Tensor]) -> nn.Module:
    """Returns the network in PyTorch that a Flax module describes, in evaluation mode."""
    channels = min(
        weight.shape[1] for weight in weights.values() if weight.ndim == 4
    )  # those of the first layer
    network = torch_networks.like(model, channels=channels)
    network.load_state_dict(weights)
    return network.eval()


def to_torch(images: np.ndarray) -> Tensor:
    """Returns images [B, H, W, C] as [B, C, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def pgd(peer: Peer, *, eps: float, step_size: float, num_steps: int, start: str, norm: str) -> Tensor:
    """Runs PGD on the cross-entropy in evaluation mode and in L-infinity; returns its last iterate."""
    assert norm == "linf", norm
    network, images, labels = peer
    network.eval()
    adversarial = images
    if start == "uniform":
        adversarial = torch.clamp(images + torch.empty_like(images).uniform_(-eps, eps), 0.0, 1.0)
    for _ in range(num_steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = F.cross_entropy(network(adversarial), labels)
        gradient = torch.autograd.grad(loss, [adversarial])[0]
        adversarial = adversarial.detach() + step_size * torch.sign(gradient.detach())
        adversarial = torch.min(torch.max(adversarial, images - eps), images + eps)
        adversarial = torch.clamp(adversarial, 0.0, 1.0)
    return adversarial.detach()


def training_parts(peer: Peer, **attack: Any) -> dict[str, Callable[[], object]]:
    """Returns the parts of a training step as functions; `attack`: keywords of `pgd`."""
    optimizer = torch.optim.SGD(peer.network.parameters(), lr=0.01, momentum=0.9, weight_decay=3.5e-3)

    def update(images: Tensor) -> float:
        peer.network.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(peer.network(images), peer.labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return {
        "whole": lambda: update(pgd(peer, **attack)),
        "attack": lambda: pgd(peer, **attack),
        "parameters": lambda: update(peer.images),
    }


def accelerated_step(config: ConfigDict) -> Callable[[], object] | None:
    """Returns a training step on a GPU as PyTorch is fastest there, or None where there is no GPU.

    Channels last, TF32, autocast to the config's dtype, torch.compile of the network.
    """
    if not torch.cuda.is_available():
        return None
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    batch, experiment = config.optim.batch_size, create_experiment(config, size=config.optim.batch_size)
    network = torch_networks.like(experiment.model).cuda().to(memory_format=torch.channels_last)
    images = to_torch(np.random.RandomState(0).rand(batch, 32, 32, 3).astype(np.float32)).cuda()
    labels = torch.from_numpy(experiment.dataset.train.labels[:batch]).long().cuda()
    peer = Peer(torch.compile(network), images.contiguous(memory_format=torch.channels_last), labels)
    whole = training_parts(peer, **config.attack)["whole"]

    def take_step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=config.model.dtype == "bfloat16"):
            whole()
        torch.cuda.synchronize()

    return take_step


def is_correct(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Returns whether each image is classified correctly, [B] bool."""
    with torch.no_grad():
        return network(images).argmax(1) == labels


def count_robust(peer: Peer, **attack: Any) -> int:
    """Counts the images that are classified correctly under PGD; `attack`: keywords of `pgd`."""
    return int(is_correct(peer.network, pgd(peer, **attack), peer.labels).sum())


def _check_same(peer: Peer, problem: Problem) -> None:
    logits = jax.jit(lambda logits_fn, images: logits_fn(images))(problem.logits_fn, problem.images)
    np.testing.assert_allclose(peer.network(peer.images).detach().numpy(), logits, atol=1e-4)
    attack = dict(problem.config.attack, num_steps=2, start="none")
    theirs = pgd(peer, **attack).permute(0, 2, 3, 1).numpy()
    ours = jaxrw_pgd(jax.random.key(0), problem.logits_fn, problem.images, problem.labels, **attack)
    differing = (np.abs(theirs - np.asarray(ours)) > 1e-6).mean()
    # The sign of a gradient near 0 is decided by rounding.
    assert differing < 0.01, f"the attacks differ in {differing:.1%} of the pixels"
