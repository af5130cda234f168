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


class Bottleneck(nn.Module):
    def __init__(self, channels, out, stride, shortcut="shortcut"):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, out, 1), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = conv(out, out, 3, stride), nn.BatchNorm2d(out)
        self.conv3, self.bn3 = conv(out, 4 * out, 1), nn.BatchNorm2d(4 * out)
        same = stride == 1 and channels == 4 * out
        layers = () if same else (conv(channels, 4 * out, 1, stride), nn.BatchNorm2d(4 * out))
        self.add_module(shortcut, nn.Sequential(*layers))
        self.name = shortcut

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return (self.bn3(self.conv3(y)) + getattr(self, self.name)(x)).relu()


def stages_of(network, block, names, stages, width, factor=1):
    """Adds the stages of a ResNet, whose channels double with each but the first; returns the last number of them."""
    before = width
    for stage, blocks in enumerate(stages):
        out, layers = width * 2**stage, []
        for index in range(blocks):
            layers.append(block(before, out, 2 if stage and not index else 1))
            before = factor * out
        network.add_module(names[stage], nn.Sequential(*layers))
    return before


LAYERS = ("layer1", "layer2", "layer3", "layer4")


class BottleneckResNet(nn.Module):
    def __init__(self, num_classes=10, stages=(3, 4, 6, 3), width=64):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 3), nn.BatchNorm2d(width)
        self.linear = nn.Linear(stages_of(self, Bottleneck, LAYERS, stages, width, 4), num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class ImageNetResNet(nn.Module):
    def __init__(self, num_classes=1000, stages=(3, 4, 6, 3), width=64):
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 7, 2), nn.BatchNorm2d(width)

        def block(channels, out, stride):
            return Bottleneck(channels, out, stride, "downsample")

        self.fc = nn.Linear(stages_of(self, block, LAYERS, stages, width, 4), num_classes)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class PreActBlock(nn.Module):
    def __init__(self, channels, out, stride, start):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), conv(channels, out, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out), conv(out, out, 3)
        self.start = start
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(conv(channels, out, 1, stride))

    def forward(self, x):
        activated = self.bn1(x).relu()
        shortcut = x
        if hasattr(self, "shortcut"):
            shortcut = self.shortcut(activated if self.start == "activated" else x)
        return self.conv2(self.bn2(self.conv1(activated)).relu()) + shortcut


class PreActResNet(nn.Module):
    def __init__(self, num_classes=10, stages=(2, 2, 2, 2), width=64, shortcut="activated", last_norm=True):
        super().__init__()
        self.conv1 = conv(3, width, 3)

        def block(channels, out, stride):
            return PreActBlock(channels, out, stride, shortcut)

        last = stages_of(self, block, LAYERS, stages, width)
        self.bn = nn.BatchNorm2d(last) if last_norm else None
        self.linear = nn.Linear(last, num_classes)

    def forward(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear((x if self.bn is None else self.bn(x).relu()).mean((2, 3)))


ACTIVATIONS = {"silu": lambda x: x * x.sigmoid(), "relu": torch.relu}


class DeepMindWideBlock(nn.Module):
    def __init__(self, channels, out, stride, activation):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv_0 = nn.Conv2d(channels, out, 3, stride, bias=False)
        self.conv_1 = conv(out, out, 3)
        self.shortcut = None if channels == out else conv(channels, out, 1, stride)
        self.stride, self.activation = stride, ACTIVATIONS[activation]

    def forward(self, x):
        activated = self.activation(self.batchnorm_0(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        # The published code has (0, 1) at stride 2, which does not fit its shortcut if the size is odd; "SAME" has 1.
        height, width = (1, 1) if self.stride == 1 else (x.shape[2] % 2, x.shape[3] % 2)
        y = self.conv_0(nn.functional.pad(activated, (width, 1, height, 1)))
        return self.conv_1(self.activation(self.batchnorm_1(y))) + shortcut


class DeepMindWideGroup(nn.Module):
    def __init__(self, blocks, channels, out, stride, activation):
        super().__init__()
        layers = [DeepMindWideBlock(channels, out, stride, activation)]
        layers += [DeepMindWideBlock(out, out, 1, activation) for _ in range(blocks - 1)]
        self.block = nn.Sequential(*layers)

    def forward(self, x):
        return self.block(x)


class DeepMindWideResNet(nn.Module):
    def __init__(self, num_classes=10, blocks=4, width=10, activation="silu"):
        super().__init__()
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.init_conv = conv(3, 16, 3)
        self.layer = nn.Sequential(
            *(DeepMindWideGroup(blocks, *widths[i : i + 2], 2 if i else 1, activation) for i in range(3))
        )
        self.batchnorm, self.logits = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], num_classes)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        x = self.layer(self.init_conv(x))
        return self.logits(self.activation(self.batchnorm(x)).mean((2, 3)))


class DeepMindPreActBlock(nn.Module):
    def __init__(self, channels, out, stride, activation):
        super().__init__()
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(channels), nn.BatchNorm2d(out)
        self.conv_2d_1 = nn.Conv2d(channels, out, 3, stride, bias=False)
        self.conv_2d_2 = conv(out, out, 3)
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 3, stride, bias=False)
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        def padded(y):
            return nn.functional.pad(y, self.padding)

        shortcut = self.shortcut(padded(x)) if hasattr(self, "shortcut") else x
        y = self.conv_2d_1(padded(self.activation(self.batchnorm_0(x))))
        return self.conv_2d_2(self.activation(self.batchnorm_1(y))) + shortcut


class DeepMindPreActResNet(nn.Module):
    def __init__(self, num_classes=10, stages=(2, 2, 2, 2), width=64, activation="silu"):
        super().__init__()
        self.conv_2d = conv(3, width, 3)

        def block(channels, out, stride):
            return DeepMindPreActBlock(channels, out, stride, activation)

        names = ("layer_0", "layer_1", "layer_2", "layer_3")
        last = stages_of(self, block, names, stages, width)
        self.batchnorm, self.logits = nn.BatchNorm2d(last), nn.Linear(last, num_classes)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x):
        x = self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(x)))))
        return self.logits(self.activation(self.batchnorm(x)).mean((2, 3)))


def like(module, *, channels=3):
    """Returns the network of the same family and size as one of jaxrw's, for images of so many channels."""
    names = ("num_classes", "width", "blocks", "activation", "shortcut", "last_norm")
    fields = {name: getattr(module, name) for name in names if hasattr(module, name)}
    if hasattr(module, "stage_sizes"):
        fields["stages"] = module.stage_sizes
    fields |= {"channels": channels} if channels != 3 else {}
    return globals()[type(module).__name__](**fields)


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

    Write them again only if a network above changes. DeepMind's and the 224x224 one's files have no mean and std.
    """
    import numpy as np
    from safetensors.torch import save_file

    small = {"stages": (1, 1, 1, 1), "width": 3}
    networks = {
        "resnet": nn.DataParallel(Normalized(ResNet(**small))),
        "wide": WideResNet(blocks=1, width=1, sub_block1=True),
        "preact": nn.DataParallel(nn.Sequential(PreActResNet(**small, shortcut="raw", last_norm=False))),
        "preact_activated": Normalized(PreActResNet(**small)),
        "deepmind_wide": Normalized(DeepMindWideResNet(blocks=1, width=1)),
        "deepmind_preact": Normalized(DeepMindPreActResNet(**small)),
        "bottleneck": Normalized(BottleneckResNet(**small)),
        "imagenet": ImageNetResNet(num_classes=10, **small),
    }
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    pixels = torch.tensor(images / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    for name, network in networks.items():
        randomize(network).half().float()  # so that the file, in half precision, holds exactly these weights
        state_dict = {
            key: value.half() if value.is_floating_point() else value
            for key, value in network.state_dict().items()
            if not (name.startswith("deepmind") and key in ("mu", "sigma"))
        }
        save_file(state_dict, f"{directory}/{name}.safetensors")
        if name.startswith("deepmind"):  # their mean and std are not in the file, so not in half precision
            network = Normalized(network.model)
        with torch.no_grad():
            np.savez(f"{directory}/{name}.npz", images=images, logits=network(pixels).numpy())
