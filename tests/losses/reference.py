"""The Koopman split by a float64 eigendecomposition: what the solves must agree with."""

import numpy as np


def operator(frames: np.ndarray, ridge: float):
    """Return S, the frame matrices P and Q (columns), and the map from vectors to coordinates."""
    unit = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    past, future = unit[:-1].T, unit[1:].T
    to_coordinates = np.linalg.inv(past.T @ past + ridge * np.eye(past.shape[1])) @ past.T
    return to_coordinates @ future, past, future, to_coordinates


def split(frames: np.ndarray, radius=0.1, order=8, ridge=1e-3, pooling="mean"):
    """Return static and dynamic part and the trace of the filter."""
    frames = frames.astype(np.float64)
    matrix, _, future, to_coordinates = operator(frames, ridge)
    values, vectors = np.linalg.eig(matrix)
    keep = 1 / (1 + ((values - 1) / radius) ** order)
    filtered = (vectors @ np.diag(keep) @ np.linalg.inv(vectors)).real
    static, dynamic = [], []
    for frame in frames:
        coordinates = to_coordinates @ frame
        static.append(future @ filtered @ coordinates)
        dynamic.append(future @ coordinates - static[-1])
    dynamic = np.array(dynamic)
    pooled = dynamic.mean(0) if pooling == "mean" else np.sqrt((dynamic**2).mean(0))
    return np.mean(static, 0), pooled, keep.sum().real


def full_split(frames: np.ndarray, radius: float, order: int, ridge: float):
    """Return the parts by the d x d operator's own eigenvectors: no reduced form at all."""
    frames = frames.astype(np.float64)
    _, _, future, to_coordinates = operator(frames, ridge)
    values, vectors = np.linalg.eig(future @ to_coordinates)
    keep = values / (1 + ((values - 1) / radius) ** order)
    mean = frames.mean(0)
    static = (vectors @ np.diag(keep) @ np.linalg.pinv(vectors) @ mean).real
    return static, future @ to_coordinates @ mean - static


def clips(kind: str, count: int, t: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Return f32[count, t, d] frame vectors: random, smooth, constant or rank-deficient."""
    if kind == "random":
        frames = rng.normal(size=(count, t, d))
    elif kind == "smooth":
        time = np.arange(t) / t
        rate = 18 * rng.normal(size=(count, 4, 1))
        waves = np.cos(rate * time + rng.uniform(0, 2 * np.pi, (count, 4, 1)))
        frames = np.einsum("ckt,ckd->ctd", waves, rng.normal(size=(count, 4, d)))
        frames += 3 * rng.normal(size=(count, 1, d))
    elif kind == "constant":
        frames = np.repeat(rng.normal(size=(count, 1, d)), t, axis=1)
    elif kind == "deficient":
        frames = rng.normal(size=(count, t, 3)) @ rng.normal(size=(count, 3, d))
    return frames.astype(np.float32)
