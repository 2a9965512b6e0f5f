"""The order in which a run reads the videos of a mixture.

Nothing here imports JAX.
"""

import sys

import grain
import numpy as np

from vrl_jax.data.datasets.mixture import VideoMixture


class MixtureOrder:
    """The indices of the videos of a mixture in a run, a pure function of seed and position.

    The data sets alternate in the proportion of their weights, so that every batch has its share of
    each. Each has all of its videos in a new order before any of them comes again.

    Args:
      mixture: the videos.
      seed: of the orders of the data sets.
    """

    def __init__(self, mixture: VideoMixture, seed: int) -> None:
        self._mixture = mixture
        self._starts = mixture.bounds()[:-1]
        self._orders = [
            grain.MapDataset.range(len(part)).shuffle(_mix_seed(seed, number)).repeat(None)
            for number, part in enumerate(mixture.parts)
        ]

    def __len__(self) -> int:
        """Return the number of positions: the order has no end."""
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        """Return the index of the video at a position."""
        number, turn = self._mixture.find_turn(int(position))
        return self._starts[number] + int(self._orders[number][turn])

    def __repr__(self) -> str:
        """Return a short, stable name: grain prints it in its errors."""
        return f"MixtureOrder({self._mixture})"


def _mix_seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
