"""The peer: adversarial training in PyTorch, written as the public implementations of this field write it.

ResNet of nn.Conv2d and nn.BatchNorm2d, the attack in evaluation mode by torch.autograd.grad of the input, the
parameter step by loss.backward() and torch.optim.SGD. `load` gives it the parameters of a Flax model, so that
both sides compute the same.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everybody writes it
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        """Features [B, C, H, W] of features."""
        out = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 for small images; `width` channels in its first stage."""

    def __init__(self, width, num_classes=10, stage_sizes=(2, 2, 2, 2)):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks, in_channels = [], width
        for stage, size in enumerate(stage_sizes):
            for block in range(size):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(in_channels, width * 2**stage, stride))
                in_channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_channels, num_classes)

    def forward(self, x):
        """Logits [B, K] of images [B, C, H, W] in [0, 1]."""
        x = self.blocks(F.relu(self.norm(self.conv(x))))
        return self.dense(x.mean((2, 3)))


def load(variables, width, *, channels_last):
    """ResNet-18 with the variables of the Flax model of the same width, in one of the two memory layouts."""
    params, statistics = variables["params"], variables["batch_stats"]
    model = ResNet(width, num_classes=params["dense"]["bias"].shape[0])
    _load_pair(params, statistics, "stem", model.conv, model.norm)
    for number, block in enumerate(model.blocks):
        name = f"stage{number // 2 + 1}_block{number % 2 + 1}"
        _load_pair(params[name], statistics[name], "1", block.conv1, block.norm1)
        _load_pair(params[name], statistics[name], "2", block.conv2, block.norm2)
        if len(block.shortcut):
            _load_pair(params[name], statistics[name], "shortcut", *block.shortcut)
    _copy(model.dense.weight, np.transpose(params["dense"]["kernel"]))
    _copy(model.dense.bias, params["dense"]["bias"])
    return model.to(memory_format=_memory_format(channels_last))


def to_torch(images, *, channels_last):
    """Images [B, H, W, C], a JAX or NumPy array, as PyTorch's [B, C, H, W] in one of the two memory layouts."""
    images = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=_memory_format(channels_last))


def pgd(model, images, labels, *, eps, step_size, num_steps, start=True):
    """PGD on the cross-entropy in evaluation mode, uniform start, last iterate."""
    model.eval()
    adversarial = images
    if start:
        adversarial = torch.clamp(images + torch.empty_like(images).uniform_(-eps, eps), 0.0, 1.0)
    for _ in range(num_steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = F.cross_entropy(model(adversarial), labels)
        gradient = torch.autograd.grad(loss, [adversarial])[0]
        adversarial = adversarial.detach() + step_size * torch.sign(gradient.detach())
        adversarial = torch.min(torch.max(adversarial, images - eps), images + eps)
        adversarial = torch.clamp(adversarial, 0.0, 1.0)
    return adversarial.detach()


def parameter_step(model, optimizer, images, labels):
    """Forward and backward in training mode, and SGD; returns the loss as a float."""
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def sgd(model):
    """SGD with the base config's settings."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=3.5e-3)


def _load_pair(params, statistics, name, conv, norm):
    """A convolution and the BatchNorm behind it."""
    conv_name, norm_name = (
        (f"conv_{name}", f"norm_{name}") if name.isalpha() else (f"conv{name}", f"norm{name}")
    )
    _copy(conv.weight, np.transpose(params[conv_name]["kernel"], (3, 2, 0, 1)))
    _copy(norm.weight, params[norm_name]["scale"])
    _copy(norm.bias, params[norm_name]["bias"])
    _copy(norm.running_mean, statistics[norm_name]["mean"])
    _copy(norm.running_var, statistics[norm_name]["var"])


def _copy(target, values):
    """Overwrite a tensor."""
    with torch.no_grad():
        target.copy_(torch.from_numpy(np.array(values)))


def _memory_format(channels_last):
    return torch.channels_last if channels_last else torch.contiguous_format
