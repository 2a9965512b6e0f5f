import json
from pathlib import Path

import numpy as np
import pytest

from vrl_jax.report import result_files


@pytest.fixture
def workdir(tmp_path, rng) -> Path:
    """A folder as a finished run leaves it."""
    return fake_run(tmp_path / "tiny_bod", rng)


@pytest.fixture
def bare_workdir(workdir) -> Path:
    """The same run with nothing but its settings."""
    for path in [*workdir.glob("*.npz"), *workdir.glob("*.jsonl"), *workdir.glob("results/*")]:
        path.unlink()
    return workdir


@pytest.fixture
def other_workdir(tmp_path) -> Path:
    """Another run, longer and with another seed."""
    return fake_run(tmp_path / "tiny_dualvar", np.random.default_rng(1), "dualvar", 400)


def fake_run(folder: Path, rng: np.random.Generator, method="bod", steps=200) -> Path:
    (folder / "results").mkdir(parents=True)
    config = {
        "method": {"kind": f"vrl_jax.methods:{method}", "temperature": 0.1},
        "framework": {"kind": "vrl_jax.frameworks.simclr:SimCLR"},
        "optim": {"learning_rate": 0.001, "betas": [0.9, 0.999]},
        "seed": steps,
    }
    dump(folder / "config.json", config)
    dump(folder / "environment.json", {"jax": "0.10.2", "devices": 8, "platform": "cpu"})
    dump_lines(folder / "metrics.jsonl", [metrics(rng, step) for step in range(1, steps + 1)])
    dump_lines(
        folder / "probes.jsonl",
        [probe(rng, step / steps, step) for step in range(0, steps + 1, 50)],
    )
    for name, label, value in (
        ("linear", "static", 0.9713),
        ("linear", "dynamic", 0.6287),
        ("knn", "static", 0.9024),
        ("knn", "dynamic", 0.4451),
    ):
        dump(folder / "results" / f"{name}_{label}.json", result(name, label, value))
    recall = result("retrieval", "static", None) | {"values": {"1": 0.8712, "5": 0.9533}}
    del recall["value"], recall["metric"], recall["chance"]
    dump(folder / "results" / "retrieval_static.json", recall)
    for name in ("ordered", "shuffled"):
        content = result(f"order/{name}", "static", 0.7321 if name == "ordered" else 0.3217)
        dump(folder / "results" / f"order-{name}-static.json", content)
    np.savez(folder / "results" / "linear_static.npz", **predictions(rng))
    np.savez(folder / "spectrum.npz", **spectrum(rng))
    np.savez(folder / "neighbours.npz", **neighbours(rng))
    return folder


def made(content, run="", predictions=None) -> result_files.Result:
    """The content of a result's file, as read."""
    return result_files.parse_result(content, Path("results/made.json"), run, predictions)


def predictions(rng, n=200, names=("circle", "square", "star")):
    labels = np.random.default_rng(9).integers(0, len(names), n)  # the data are the same to all
    guesses = np.where(rng.random(n) < 0.6, labels, rng.integers(0, len(names), n))
    guesses[rng.random(n) < 0.05] = -1
    return {
        "ids": np.array([f"video{i}" for i in range(n)]),
        "labels": labels,
        "predictions": guesses,
        "classes": np.array(names),
    }


def dump(path: Path, content) -> None:
    path.write_text(json.dumps(content))


def dump_lines(path: Path, records) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def metrics(rng, step):
    static, dynamic = 2 + 3 * np.exp(-step / 60) + 0.1 * rng.normal(size=2)
    return {
        "step": step,
        "epoch": step / 25,
        "loss": static + dynamic,
        "learning_rate": 0.001 * min(step / 20, 1),
        "clips_per_second": 300 + 10 * rng.normal(),
        "loss/static": static,
        "loss/dynamic": dynamic,
        "koopman/static_rank": 1.2 + 0.05 * rng.normal(),
        "koopman/static_norm": 0.8 + 0.05 * rng.normal(),
        "koopman/dynamic_norm": 0.3 + 0.05 * rng.normal(),
        "teacher/momentum": 0.996,
        "wall_seconds": 0.5 * step,
    }


def probe(rng, progress, step):
    return {
        "step": step,
        "linear/static": 0.3 + 0.65 * progress + 0.02 * rng.normal(),
        "linear/dynamic": 0.2 + 0.4 * progress + 0.02 * rng.normal(),
        "knn/static": 0.25 + 0.6 * progress,
        "knn/dynamic": 0.18 + 0.25 * progress,
        "chance/static": 0.125,
        "chance/dynamic": 0.2,
        "collapse/feature_std": 0.9 - 0.1 * progress,
        "collapse/effective_rank": 8 + 12 * progress,
    }


def result(name, label, value):
    return {
        "name": name,
        "label": label,
        "value": value,
        "metric": "top-1 accuracy",
        "chance": 0.125,
        "protocol": {
            "split": "test",
            "views": {"clips": 10, "crops": 3},
            "frames": 16,
            "stride": 2,
            "resolution": 112,
            "pooling": "mean",
            "centring": True,
            "normalisation": "l2",
        },
        "model": {"encoder": "Tiny", "parameters": 12345, "weights": "0f3a" * 16},
        "data": {"fingerprint": "9bc1" * 16},
        "commit": "1a2b3c4d5e6f7a8b9c0d",
    }


def spectrum(rng, probes=5, clips=32, n=7):
    radius = 1 - 0.4 * rng.random((probes, clips, n))
    angle = rng.normal(size=(probes, clips, n)) * np.linspace(1.2, 0.5, probes)[:, None, None]
    eigenvalues = radius * np.exp(1j * angle)
    eigenvalues[:, :, 0] = 1 - 0.05 * rng.random((probes, clips))
    return {
        "steps": np.arange(probes) * 50,
        "eigenvalues": eigenvalues.astype(np.complex64),
        "radius": np.float32(0.1),
        "static_rank": rng.uniform(0.5, 2, (probes, clips)),
    }


def neighbours(rng, q=3, k=5, t=8, size=24):
    same = rng.random((q, k, 2)) < [0.7, 0.4]
    return {
        "queries": clips(rng, (q,), t, size),
        "query_labels": np.array([f"circle going left {i}" for i in range(q)]),
        "gallery": clips(rng, (q, k), t, size),
        "gallery_labels": np.array([[f"square going up {j}" for j in range(k)]] * q),
        "similarity": -np.sort(-rng.uniform(0.5, 1, (q, k))).astype(np.float32),
        "same": same,
        "label_names": np.array(["static", "dynamic"]),
    }


def clips(rng, many, t, size):
    """Gratings that drift, each in colours of its own."""
    color = rng.uniform(60, 255, (*many, 1, 1, 1, 3))
    speed = rng.uniform(-1, 1, (*many, 1, 1, 1, 1))
    phase = np.arange(size)[:, None] / 3 + speed * np.arange(t)[:, None, None, None]
    film = color * (0.6 + 0.4 * np.sin(phase))
    return np.broadcast_to(film, (*many, t, size, size, 3)).astype(np.uint8)
