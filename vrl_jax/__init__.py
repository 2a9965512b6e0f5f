"""Self-supervised video representations that keep appearance and motion apart.

Import what you need from its own module: `from vrl_jax.losses import nt_xent, koopman`.
"""

__version__ = "0.1.0"
