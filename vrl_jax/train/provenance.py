"""Provenance of a run: its settings, software and machine, and the hash of its weights."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np

import vrl_jax
from vrl_jax import atomic_files, config

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")


def write_provenance(workdir: pathlib.Path, experiment: Any) -> None:
    """Write `config.json` and `environment.json` to the folder of a run."""
    text = config.describe(experiment).to_json(indent=2)
    atomic_files.write_text(workdir / "config.json", text)
    environment = json.dumps(describe_environment(), indent=2)
    atomic_files.write_text(workdir / "environment.json", environment)


def describe_environment() -> dict[str, str]:
    """Return the versions of packages and the machine, on which results may depend."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "vrl_jax": vrl_jax.__version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        **packages,
        "system": platform.platform(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": str(jax.process_count()),
    }


def version_line() -> str:
    """Return versions and devices in one line, for logs."""
    versions = describe_environment()
    packages = ", ".join(f"{name} {versions[name]}" for name in ("jax", "flax", "python"))
    changed = "+" if versions["commit"].endswith("changes") else ""
    source = f" at {versions['commit'][:10]}{changed}" if versions["commit"] else ""
    return f"vrl_jax {versions['vrl_jax']}{source}, {packages}, {versions['devices']}"


def source_commit() -> str:
    """Return the commit of the source tree, marked if it has changes, or "" if it is unknown.

    A tree written by `git archive` has its commit in the file `COMMIT`.
    """
    folder = pathlib.Path(vrl_jax.__file__).parent
    archived = (folder / "COMMIT").read_text().strip()
    if not archived.startswith("$"):
        return archived
    git = ["git", "-C", str(folder)]
    try:
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True
        )
        if tracked.returncode:
            return ""
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True)
    except FileNotFoundError:
        return ""
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


def weight_hash(params: Any) -> str:
    """Return the SHA-256 of a parameter tree, over names, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
