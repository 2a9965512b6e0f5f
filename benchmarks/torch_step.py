"""The PyTorch side of `benchmarks/step.py`: the same step in idiomatic PyTorch.

Its argument is the settings as JSON; its last line of output is the result as JSON. The encoders
are those of the weight conversion tests, without their classifiers.
"""

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.step import WARM, Settings
from benchmarks.torch_augment import make_views
from tests.convert.networks import Slow, VideoResNet
from vrl_jax.augment.clip_views import Augment

DIMS = {"r2plus1d-18": 512, "r3d-18": 512, "slowonly-50": 2048}
HIDDEN, DIM, TEMPERATURE, QUEUE, MOMENTUM = 2048, 128, 0.1, 65536, 0.994
RATE, DECAY = 1e-3, 1e-4


class Network(nn.Module):
    """The encoder with global average pooling and a projection head."""

    def __init__(self, encoder: str, norm: bool):
        super().__init__()
        self.encoder = Slow() if encoder == "slowonly-50" else VideoResNet(encoder == "r2plus1d-18")
        if encoder == "slowonly-50":
            del self.encoder.blocks[5]
        else:
            del self.encoder.fc
        layers, width = [], DIMS[encoder]
        for _ in range(2):
            layers += [nn.Linear(width, HIDDEN, bias=not norm)]
            layers += [nn.BatchNorm1d(HIDDEN)] if norm else []
            layers += [nn.ReLU()]
            width = HIDDEN
        self.head = nn.Sequential(*layers, nn.Linear(HIDDEN, DIM))

    def forward(self, views: Tensor) -> Tensor:
        """Embed views n 3 t s s."""
        return self.head(self.encoder(views).float().mean((2, 3, 4)))


def nt_xent(a: Tensor, b: Tensor) -> Tensor:
    """Return NT-Xent of two views, with the rest of the batch as negatives."""
    z = normalize(torch.cat([a, b]).float(), dim=-1)
    diagonal = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / TEMPERATURE).masked_fill(diagonal, -torch.inf)
    return cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(a)))


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, filled: Tensor) -> Tensor:
    """Return InfoNCE of queries and keys, with the filled rows of the queue as negatives."""
    queries = normalize(queries.float(), dim=-1)
    empty = torch.arange(len(queue), device=queue.device) >= filled
    negatives = (queries @ queue.T).masked_fill(empty, -torch.inf)
    positives = (queries * keys).sum(-1, keepdim=True)
    logits = torch.cat([positives, negatives], dim=-1) / TEMPERATURE
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=queue.device))


class Teacher:
    """The momentum encoder of MoCo, and its queue of keys."""

    def __init__(self, network: Network, device: torch.device):
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.queue = torch.zeros(QUEUE, DIM, device=device)
        self.filled = torch.zeros((), dtype=torch.long, device=device)

    @torch.no_grad()
    def update(self, network: Network, keys: Tensor) -> None:
        """Move towards the network, and replace the oldest keys of the queue."""
        averages, parameters = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(averages, parameters, 1 - MOMENTUM)
        rows = (self.filled + torch.arange(len(keys), device=keys.device)) % QUEUE
        self.queue.index_copy_(0, rows, keys)
        self.filled += len(keys)


def make_loss(
    network: Network, teacher: Teacher | None, augment: Augment, dtype: str, device: torch.device
) -> Callable[[Tensor], tuple[Tensor, Tensor | None]]:
    """Return the function from clips u8[b 2 t h w 3] to the loss and, with a teacher, its keys."""
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def loss(clips: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            views = make_views(clips.transpose(0, 1).flatten(0, 1), augment)
            views = views.contiguous(memory_format=torch.channels_last_3d)
        with autocast:
            a, b = network(views).chunk(2)
        if teacher is None:
            return nt_xent(a, b), None
        with torch.no_grad(), autocast:
            keys = teacher.network(views)
        keys = normalize(keys.float(), dim=-1)
        first, second = keys.chunk(2)
        filled = teacher.filled
        terms = (
            info_nce(a, second, teacher.queue, filled),
            info_nce(b, first, teacher.queue, filled),
        )
        return sum(terms) / 2, keys

    return loss


def make_optimizer(network: Network, optim: str) -> torch.optim.Optimizer:
    """Return the optimiser, which decays parameters with at least two axes."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if optim == "adamw":
        return torch.optim.AdamW(groups, RATE, fused=True)
    return torch.optim.SGD(groups, RATE, momentum=0.9, nesterov=True, fused=True)


def make_runner(
    settings: Settings, augment: Augment, device: torch.device
) -> tuple[Network, Callable[[int], None]]:
    """Return the network and a function that runs a number of steps and waits for the last."""
    torch.manual_seed(0)
    network = Network(settings.encoder, norm=settings.framework == "simclr")
    network = network.to(device, memory_format=torch.channels_last_3d).train()
    teacher = Teacher(network, device) if settings.framework == "moco" else None
    optimizer = make_optimizer(network, settings.optim)
    loss = make_loss(network, teacher, augment, settings.dtype, device)
    loss = torch.compile(loss) if settings.compile else loss
    shape = (settings.batch, 2, settings.frames, *settings.resize, 3)
    clips = torch.randint(256, shape, dtype=torch.uint8, device=device)

    def run(steps: int) -> None:
        for _ in range(steps):
            value, keys = loss(clips)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if teacher:
                teacher.update(network, keys)
        value.item()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return network, run


def measure_matmul_flops(device: torch.device, side: int = 8192, times: int = 20) -> float:
    """Return the FLOP per second of products of square bfloat16 matrices."""
    x = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    x @ x
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        x @ x
    torch.cuda.synchronize()
    return 2 * side**3 * times / (time.perf_counter() - began)


def measure(settings: Settings) -> dict[str, Any]:
    """Return the seconds per step, and properties that both sides must share."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    augment = Augment(size=settings.size)
    network, run = make_runner(settings, augment, device)
    run(WARM)
    began = time.perf_counter()
    run(settings.steps)
    seconds = (time.perf_counter() - began) / settings.steps
    gpu = device.type == "cuda"
    return {
        "seconds": seconds,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "augmentation": dataclasses.asdict(augment),
        "parameters": sum(p.numel() for p in network.parameters()),
        "matmul_flops": measure_matmul_flops(device) if gpu else None,
        "environment": {"torch": torch.__version__, "threads": torch.get_num_threads()},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Settings(**json.loads(sys.argv[1])))))
