"""Evaluation protocols: one frozen dataclass each, an `EvalProtocol`."""
