"""Settings that several papers share."""

from vrl_jax.augment.clip_views import Augment


def crop_and_flip(size: int, **settings) -> Augment:
    """Return an augmentation of a random crop and a mirror image, with further settings."""
    return Augment(**{"size": size, "jitter": 0.0, "gray": 0.0, "blur": 0.0, **settings})


def drop_at(total: float, *epochs: float) -> tuple[float, ...]:
    """Return the epochs of learning-rate drops as fractions of the run."""
    return tuple(epoch / total for epoch in epochs)


TORCH_SGD = {"warmup": 0.0, "decay_all": True, "nesterov": False}  # PyTorch's SGD, no schedule
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"  # of VideoMAE and of V-JEPA 2
