"""Networks in PyTorch with the names of public robust models, written from these names and their mathematics."""

import torch
from torch import nn


class Normalized(nn.Module):
    """Subtracts a mean and divides by a std, as a first layer."""

    def __init__(self, network, mean=(0.4914, 0.4822, 0.4465), std=(0.2471, 0.2435, 0.2616)):
        super().__init__()
        self.model = network
        self.register_buffer("mu", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("sigma", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return self.model((x - self.mu) / self.sigma)


def conv(channels, out, size, stride=1):
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=False)


class ResNetBlock(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, out, 3, stride), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv(out, out, 3), nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.shortcut = nn.Sequential(*() if same else (conv(channels, out, 1, stride), nn.BatchNorm2d(out)))

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


class ResNet(nn.Module):
    def __init__(self, num_classes=10, stages=(2, 2, 2, 2), width=64, channels=3):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, width, 3), nn.BatchNorm2d(width)
        before = width
        for stage, blocks in enumerate(stages):
            out, layers = width * 2**stage, []
            for block in range(blocks):
                layers.append(ResNetBlock(before, out, 2 if stage and not block else 1))
                before = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(before, num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out), conv(out, out, 3)
        self.convShortcut = None if channels == out else conv(channels, out, 1, stride)

    def forward(self, x):
        activated = self.bn1(x).relu()
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + self.conv2(self.bn2(self.conv1(activated)).relu())


class WideGroup(nn.Module):
    def __init__(self, blocks, channels, out, stride):
        super().__init__()
        layers = [WideBlock(channels, out, stride)] + [WideBlock(out, out, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(*layers)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, num_classes=10, blocks=5, width=10, sub_block1=False, channels=3):
        super().__init__()
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = conv(channels, 16, 3)
        self.block1 = WideGroup(blocks, widths[0], widths[1], 1)
        if sub_block1:
            self.sub_block1 = WideGroup(blocks, widths[0], widths[1], 1)  # in the file, never called
        self.block2 = WideGroup(blocks, widths[1], widths[2], 2)
        self.block3 = WideGroup(blocks, widths[2], widths[3], 2)
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], num_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.bn1(x).relu().mean((2, 3)))


def randomize(network, seed=0):
    """Draws all weights and statistics, none near its initial value; activations stay of order one."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
            nn.init.normal_(module.running_mean, 0, 0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2, generator=generator)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
    return network.eval()


def golden(directory):
    """Writes what test_torch_weights.py reads without torch: weights in half precision, images, logits.

    PYTHONPATH=tests python -c "from helpers import torch_networks; torch_networks.golden('tests/golden')"

    Write them again only if a network above changes.
    """
    import numpy as np
    from safetensors.torch import save_file

    networks = {
        "resnet": nn.DataParallel(Normalized(ResNet(stages=(1, 1, 1, 1), width=3))),
        "wide": WideResNet(blocks=1, width=1, sub_block1=True),
    }
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    pixels = torch.tensor(images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    for name, network in networks.items():
        randomize(network).half().float()  # so that the file, in half precision, holds exactly these weights
        state_dict = {
            key: value.half() if value.is_floating_point() else value
            for key, value in network.state_dict().items()
        }
        save_file(state_dict, f"{directory}/{name}.safetensors")
        with torch.no_grad():
            np.savez(f"{directory}/{name}.npz", images=images, logits=network(pixels).numpy())
