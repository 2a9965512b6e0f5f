"""Self-supervised video representations that separate appearance from motion.

Packages load on first use: `import vrl_jax as vrl; vrl.losses.nt_xent(a, b)` imports JAX alone.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = (
    "augment", "config", "convert", "data", "detection", "encoders", "evaluation", "experiment",
    "factors", "frameworks", "losses", "methods", "pretrained", "pretraining", "probes",
    "profiling", "report", "train", "types",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a package on first use."""
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *_LAZY})
