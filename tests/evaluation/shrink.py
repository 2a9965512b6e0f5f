"""Published recipes at the size of a test."""

from dataclasses import replace


def shrink(protocol, size=16, frames=4, clips=2, **changes):
    """Return a protocol for small squares and few frames, with changes of its own fields."""
    test = protocol.test
    ratio = size / test.size
    sampling = replace(test.sampling, frames=frames, clips=clips)
    small = replace(test, sampling=sampling, size=size, resize=scale(test.resize, ratio))
    if rate := changes.pop("learning_rate", 0):
        changes["optim"] = replace(protocol.optim, learning_rate=rate)
    if hasattr(protocol, "train"):
        train = protocol.train
        changes["train"] = replace(
            train,
            sampling=replace(train.sampling, frames=frames),
            resize=scale(train.resize, ratio),
            augment=replace(train.augment, size=round(train.augment.size * ratio)),
        )
    return replace(protocol, test=small, **changes)


def scale(resize, ratio):
    return round(resize[0] * ratio), round(resize[1] * ratio)
