"""Arrays of a file, read and closed."""

import numpy as np


def load_arrays(path):
    """Return the arrays of an npz file by name."""
    with np.load(path) as stored:
        return dict(stored)
