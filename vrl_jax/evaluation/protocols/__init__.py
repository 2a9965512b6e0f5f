"""Evaluation protocols: one frozen dataclass each, see `vrl_jax.evaluation.base.EvalProtocol`."""
