"""Argument checks that raise `ValueError` with the name and the value of the argument."""

from typing import Any


def positive(**values: float) -> None:
    """Raise `ValueError` unless every named value is a number above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value!r}")


def at_least(least: float, **values: float) -> None:
    """Raise `ValueError` unless every named value is at least `least`."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value!r}")


def multiple_of(factor: str, number: int, **values: int) -> None:
    """Raise `ValueError` unless every value is a multiple of the named factor; 0 accepts all."""
    for name, value in values.items():
        if number and value % number:
            raise ValueError(f"{name} must be a multiple of {factor}={number}, got {value!r}")


def fraction(**values: float) -> None:
    """Raise `ValueError` unless every named value lies in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def one_of(options: tuple[Any, ...], **values: Any) -> None:
    """Raise `ValueError` unless every named value is among `options`."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}"
            )


def rank(axes: int, **arrays: Any) -> None:
    """Raise `ValueError` unless every named array has `axes` axes."""
    for name, array in arrays.items():
        if array.ndim != axes:
            raise ValueError(f"{name} must have {axes} axes, got shape {tuple(array.shape)}")


def same_shape(**arrays: Any) -> None:
    """Raise `ValueError` unless all named arrays have the same shape."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{', '.join(arrays)} must have the same shape, got {shapes}")
