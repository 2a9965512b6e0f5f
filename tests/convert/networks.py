"""Networks in PyTorch whose weights have the names of the code bases that are converted.

They are written from the layers' definitions and promise nothing but names and results.
"""

import torch
from torch import nn


def conv(inputs, outputs, kernel, stride=1, bias=False):
    padding = tuple((k - 1) // 2 for k in kernel)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=bias)


def middle(inputs, outputs, kt=3, k=3):
    return kt * k * k * inputs * outputs // (k * k * inputs + kt * outputs)


class Trunk(nn.Module):
    """A network whose `forward` gives the last feature map, before the head."""

    def forward(self, x):
        for layer in self.trunk():
            x = layer(x)
        return x


# --- torchvision: R3D and R(2+1)D


class Basic(nn.Module):
    def __init__(self, inputs, outputs, stride, divided):
        super().__init__()
        mid = middle(inputs, outputs)

        def cube(i, s):
            if not divided:
                return conv(i, outputs, (3, 3, 3), s)
            first = conv(i, mid, (1, 3, 3), (1, s, s))
            return nn.Sequential(
                first, nn.BatchNorm3d(mid), nn.ReLU(), conv(mid, outputs, (3, 1, 1), (s, 1, 1))
            )

        self.conv1 = nn.Sequential(cube(inputs, stride), nn.BatchNorm3d(outputs), nn.ReLU())
        self.conv2 = nn.Sequential(cube(outputs, 1), nn.BatchNorm3d(outputs))
        self.downsample = None
        if stride > 1:
            point = conv(inputs, outputs, (1, 1, 1), stride)
            self.downsample = nn.Sequential(point, nn.BatchNorm3d(outputs))

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class VideoResNet(Trunk):
    def __init__(self, divided, blocks=(2, 2, 2, 2), classes=400):
        super().__init__()
        if divided:
            halves = conv(3, 45, (1, 7, 7), (1, 2, 2)), conv(45, 64, (3, 1, 1))
            layers = halves[0], nn.BatchNorm3d(45), nn.ReLU(), halves[1]
        else:
            layers = (conv(3, 64, (3, 7, 7), (1, 2, 2)),)
        self.stem = nn.Sequential(*layers, nn.BatchNorm3d(64), nn.ReLU())
        inputs = 64
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
            first = Basic(inputs, width, 2 if stage > 1 else 1, divided)
            rest = (Basic(width, width, 1, divided) for _ in range(count - 1))
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
            inputs = width
        self.fc = nn.Linear(512, classes)

    def trunk(self):
        return self.stem, self.layer1, self.layer2, self.layer3, self.layer4


# --- torchvision: S3D


def unit(inputs, outputs, kernel, stride=1):
    normed = nn.BatchNorm3d(outputs, eps=1e-3, momentum=1e-3)
    return nn.Sequential(conv(inputs, outputs, kernel, stride), normed, nn.ReLU())


def halves(inputs, outputs, k, stride=1):
    spatial = unit(inputs, outputs, (1, k, k), (1, stride, stride))
    return nn.Sequential(spatial, unit(outputs, outputs, (k, 1, 1), (stride, 1, 1)))


class Inception(nn.Module):
    def __init__(self, inputs, first, mid2, second, mid3, third, fourth):
        super().__init__()
        point = (1, 1, 1)
        self.branch0 = unit(inputs, first, point)
        self.branch1 = nn.Sequential(unit(inputs, mid2, point), halves(mid2, second, 3))
        self.branch2 = nn.Sequential(unit(inputs, mid3, point), halves(mid3, third, 3))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), unit(inputs, fourth, point))

    def forward(self, x):
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class S3D(Trunk):
    def __init__(self, classes=400):
        super().__init__()
        flat = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.features = nn.Sequential(
            halves(3, 64, 7, 2),
            flat,
            unit(64, 64, (1, 1, 1)),
            halves(64, 192, 3),
            flat,
            Inception(192, 64, 96, 128, 16, 32, 32),
            Inception(256, 128, 128, 192, 32, 96, 64),
            nn.MaxPool3d(3, 2, 1),
            Inception(480, 192, 96, 208, 16, 48, 64),
            Inception(512, 160, 112, 224, 24, 64, 64),
            Inception(512, 128, 128, 256, 24, 64, 64),
            Inception(512, 112, 144, 288, 32, 64, 64),
            Inception(528, 256, 160, 320, 32, 128, 128),
            nn.MaxPool3d(2, 2),
            Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Conv3d(1024, classes, 1))

    def trunk(self):
        return (self.features,)


# --- pytorchvideo: Slow-R50


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv(3, 64, (1, 7, 7), (1, 2, 2)), nn.BatchNorm3d(64)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x):
        return self.pool(torch.relu(self.norm(self.conv(x))))


class Branch2(nn.Module):
    def __init__(self, inputs, width, taps, stride):
        super().__init__()
        self.conv_a, self.norm_a = conv(inputs, width, (taps, 1, 1)), nn.BatchNorm3d(width)
        self.conv_b = conv(width, width, (1, 3, 3), (1, stride, stride))
        self.norm_b = nn.BatchNorm3d(width)
        self.conv_c, self.norm_c = conv(width, 4 * width, (1, 1, 1)), nn.BatchNorm3d(4 * width)

    def forward(self, x):
        x = torch.relu(self.norm_a(self.conv_a(x)))
        return self.norm_c(self.conv_c(torch.relu(self.norm_b(self.conv_b(x)))))


class ResBlock(nn.Module):
    def __init__(self, inputs, width, taps, stride):
        super().__init__()
        self.branch1_conv = self.branch1_norm = None
        if inputs != 4 * width:
            self.branch1_conv = conv(inputs, 4 * width, (1, 1, 1), (1, stride, stride))
            self.branch1_norm = nn.BatchNorm3d(4 * width)
        self.branch2 = Branch2(inputs, width, taps, stride)

    def forward(self, x):
        y = self.branch2(x)
        return torch.relu(y + (self.branch1_norm(self.branch1_conv(x)) if self.branch1_conv else x))


class Stage(nn.Module):
    def __init__(self, inputs, width, taps, stride, count):
        super().__init__()
        first = ResBlock(inputs, width, taps, stride)
        rest = (ResBlock(4 * width, width, taps, 1) for _ in range(count - 1))
        self.res_blocks = nn.ModuleList([first, *rest])

    def forward(self, x):
        for block in self.res_blocks:
            x = block(x)
        return x


class Head(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.proj = nn.Linear(2048, classes)


class Slow(Trunk):
    def __init__(self, blocks=(3, 4, 6, 3), classes=400):
        super().__init__()
        stages, inputs = [], 64
        for i, (count, taps) in enumerate(zip(blocks, (1, 1, 3, 3), strict=True)):
            width = 64 * 2**i
            stages.append(Stage(inputs, width, taps, 2 if i else 1, count))
            inputs = 4 * width
        self.blocks = nn.ModuleList([Stem(), *stages, Head(classes)])

    def trunk(self):
        return self.blocks[:5]


# --- DualVar: R(2+1)D, R3D and C3D


class Halves(nn.Module):
    def __init__(self, inputs, outputs, kt, k, st, s):
        super().__init__()
        mid = middle(inputs, outputs, kt, k)
        self.spatial_conv = conv(inputs, mid, (1, k, k), (1, s, s))
        self.bn = nn.BatchNorm3d(mid)
        self.temporal_conv = conv(mid, outputs, (kt, 1, 1), (st, 1, 1))

    def forward(self, x):
        return self.temporal_conv(torch.relu(self.bn(self.spatial_conv(x))))


class Whole(nn.Module):
    def __init__(self, inputs, outputs, kt, k, st, s):
        super().__init__()
        self.temporal_spatial_conv = conv(inputs, outputs, (kt, k, k), (st, s, s))

    def forward(self, x):
        return self.temporal_spatial_conv(x)


class DualVarBlock(nn.Module):
    def __init__(self, kind, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = kind(inputs, outputs, 3, 3, stride, stride), nn.BatchNorm3d(outputs)
        self.conv2, self.bn2 = kind(outputs, outputs, 3, 3, 1, 1), nn.BatchNorm3d(outputs)
        if stride > 1:
            self.downsampleconv = kind(inputs, outputs, 1, 1, stride, stride)
            self.downsamplebn = nn.BatchNorm3d(outputs)

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "downsamplebn"):
            x = self.downsamplebn(self.downsampleconv(x))
        return torch.relu(x + y)


class DualVarStage(nn.Module):
    def __init__(self, kind, inputs, outputs, stride, count):
        super().__init__()
        self.block1 = DualVarBlock(kind, inputs, outputs, stride)
        rest = [DualVarBlock(kind, outputs, outputs, 1) for _ in range(count - 1)]
        self.blocks = nn.ModuleList(rest)

    def forward(self, x):
        for block in (self.block1, *self.blocks):
            x = block(x)
        return x


class DualVarResNet(Trunk):
    def __init__(self, kind, blocks=(1, 1, 1, 1)):
        super().__init__()
        self.conv1, self.bn1 = kind(3, 64, 3, 7, 1, 2), nn.BatchNorm3d(64)
        inputs = 64
        for i, count in enumerate(blocks):
            stage = DualVarStage(kind, inputs, 64 * 2**i, 2 if i else 1, count)
            setattr(self, f"conv{i + 2}", stage)
            inputs = 64 * 2**i

    def trunk(self):
        stages = self.conv2, self.conv3, self.conv4, self.conv5
        return self.conv1, self.bn1, torch.relu, *stages


class DualVarC3D(nn.Module):
    def __init__(self):
        super().__init__()
        inputs, self.order = 3, ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b")
        for name, width in zip(self.order, (64, 128, 256, 256, 512, 512, 512, 512), strict=True):
            setattr(self, f"conv{name}", conv(inputs, width, (3, 3, 3), bias=True))
            setattr(self, f"bn{name}", nn.BatchNorm3d(width))
            inputs = width

    def forward(self, x):
        for name in self.order:
            x = torch.relu(getattr(self, f"bn{name}")(getattr(self, f"conv{name}")(x)))
            if name in ("1", "2", "3b", "4b"):
                window = (1 if name == "1" else 2, 2, 2)
                x = nn.functional.max_pool3d(x, window, window)
        return x


# --- what surrounds an encoder in a checkpoint


def fill(network, seed=0):
    """Draw generic weights and running statistics, and set the network to evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            x.fill_(7)
        elif x.ndim > 1:
            x.normal_(0, (2 / x[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "weight")):
            x.uniform_(0.5, 1.5, generator=generator)
        else:
            x.normal_(0, 0.3, generator=generator)
    return network.eval()


def encode(network, clips):
    """Return the features of clips b t h w c, averaged over the last map."""
    with torch.no_grad():
        x = torch.from_numpy(clips).permute(0, 4, 1, 2, 3)
        return network(x).mean((2, 3, 4)).numpy()
