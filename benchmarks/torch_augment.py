"""The views of `vrl_jax.augment.clip_views` in PyTorch: same operations, same parameters.

It serves only `benchmarks/step.py`. All operations are batched over clips, n 3 t h w in [0, 1], on
the device; the frames of a clip share the random parameters.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.photometric import LUMA
from vrl_jax.augment.spatial_crops import TRIES


def make_views(clips: Tensor, augment: Augment) -> Tensor:
    """Generate a view f32[n 3 t s s] of each clip u8[n t h w 3].

    Raises:
      ValueError: `augment` has an operation that is not implemented here.
    """
    a, n, device = augment, len(clips), clips.device
    if a.crop != "resized" or a.gray_kind != "luma" or a.reverse or a.subtract_background:
        raise ValueError(
            f"augment must have only resized crops and luma for the PyTorch step, got {a}"
        )

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, device=device)

    x = clips.permute(0, 4, 1, 2, 3).float() / 255
    x = resize_box(x, *draw_boxes(n, clips.shape[2:4], a.area, a.aspect, device), a.size)
    x = torch.where(_each(uniform() < a.flip), x.flip(-1), x)
    strength = torch.tensor([a.brightness, a.contrast, a.saturation], device=device)
    low = (1 - strength).clamp(min=0)
    factors = low + (1 + strength - low) * uniform(3)
    order, turns = uniform(4).argsort(-1), uniform(low=-a.hue, high=a.hue)
    x = color_jitter(x, uniform() < a.jitter, factors, order, turns)
    x = torch.where(_each(uniform() < a.gray), to_gray(x), x)
    x = gaussian_blur(x, uniform() < a.blur, uniform(low=a.sigma[0], high=a.sigma[1]))
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1, 1) for v in (a.mean, a.std))
    return (x - mean) / std


def draw_boxes(
    n: int, frame: tuple[int, int], area: tuple, aspect: tuple, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return n random boxes as in `draw_box`: corners and extents, f32[n 2] each."""
    frame_extent = torch.tensor(frame, dtype=torch.float32, device=device)
    areas = area[0] + (area[1] - area[0]) * torch.rand(n, TRIES, device=device)
    low, high = map(math.log, aspect)
    logs = low + (high - low) * torch.rand(n, TRIES, device=device)
    root = (areas * frame[0] * frame[1]).sqrt()
    extents = torch.stack([root * torch.exp(-logs / 2), root * torch.exp(logs / 2)], dim=-1)
    fits = (extents <= frame_extent).all(-1)
    sides = min(frame[0], frame[1] / aspect[0]), min(frame[1], frame[0] * aspect[1])
    largest = torch.tensor(sides, dtype=torch.float32, device=device)
    first = fits.int().argmax(-1)[:, None, None].expand(n, 1, 2)
    any_fits = fits.any(-1, keepdim=True)
    extent = torch.where(any_fits, extents.gather(1, first)[:, 0], largest)
    position = torch.where(any_fits, torch.rand(n, 2, device=device), torch.full_like(extent, 0.5))
    return position * (frame_extent - extent), extent


def resize_box(x: Tensor, corner: Tensor, extent: Tensor, size: int) -> Tensor:
    """Resample boxes to `size` x `size` by linear interpolation, antialiased where they shrink."""
    rows = _resampling_weights(x.shape[-2], corner[:, :1], extent[:, :1], size)
    columns = _resampling_weights(x.shape[-1], corner[:, 1:], extent[:, 1:], size)
    return rows[:, None, None] @ x @ columns[:, None, None].mT


def color_jitter(
    x: Tensor, applied: Tensor, factors: Tensor, order: Tensor, turns: Tensor
) -> Tensor:
    """Jitter brightness, contrast, saturation and hue in the given order of each clip.

    Blends are assigned to slots before and after the hue shift; an empty slot is the identity.
    """
    slot = torch.where(order[:, :3] < order[:, 3:], order[:, :3], order[:, :3] + 2)
    shares = one_hot(slot, 6) * (applied[:, None] * (1 - factors))[..., None]  # [n blend slot]

    def blend(x: Tensor, share: Tensor) -> Tensor:
        gray = to_gray(x)
        _, contrast, saturation = (_each(part) for part in share.unbind(1))
        added = contrast * gray.mean((1, 2, 3, 4), keepdim=True) + saturation * gray
        return ((1 - _each(share.sum(1))) * x + added).clamp(0, 1)

    for i in range(3):
        x = blend(x, shares[:, :, i])
    x = shift_hue(x, applied * turns)
    for i in range(3, 6):
        x = blend(x, shares[:, :, i])
    return x


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Shift the hue, with HSV saturation and value unchanged."""
    red, green, blue = x.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    between = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    others = torch.where(value == green, 2 + (blue - red) / between, 4 + (red - green) / between)
    sixths = torch.where(value == red, (green - blue) / between, others)
    sixths = sixths + 6 * turns.view(-1, 1, 1, 1)

    def channel(n: int) -> Tensor:
        k = (n + sixths).remainder(6)
        return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], dim=1)


def to_gray(x: Tensor) -> Tensor:
    """Return the luma, n 1 t h w."""
    red, green, blue = x.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def gaussian_blur(x: Tensor, applied: Tensor, std: Tensor) -> Tensor:
    """Blur each frame; at the border the kernel is truncated and renormalised."""

    def weights(n: int) -> Tensor:
        at = torch.arange(n, device=x.device)
        squares = (at[:, None] - at).square()
        kernel = (-squares / (2 * std.square().view(-1, 1, 1))).softmax(-1)
        return torch.where(applied.view(-1, 1, 1), kernel, torch.eye(n, device=x.device))

    height, width = x.shape[-2:]
    return weights(height)[:, None, None] @ x @ weights(width)[:, None, None].mT


def _resampling_weights(length: int, corner: Tensor, extent: Tensor, size: int) -> Tensor:
    """Return the weights of `length` pixels in `size` new ones, f32[n size length]."""
    step = extent / size
    centres = (torch.arange(size, device=extent.device) + 0.5) * step + corner - 0.5
    pixels = torch.arange(length, device=extent.device)
    distances = (centres[..., None] - pixels).abs() / step.clamp(min=1)[..., None]
    kernel = (1 - distances).clamp(min=0)
    return kernel / kernel.sum(-1, keepdim=True)


def _each(x: Tensor) -> Tensor:
    """Reshape one number per clip to broadcast over clips."""
    return x.view(-1, 1, 1, 1, 1)
