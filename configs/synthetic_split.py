"""The arms of the experiment on the split, on rendered videos with a drift: `docs/split.md`.

python -m vrl_jax.main --config=configs/synthetic_split.py:split-lower-delay \
    --config.data.motion=standing --config.data.drift=2

`--config=configs/synthetic_split.py:ARM` chooses the arm; `ARM+forecast` adds the shared forecast
to an arm without a lower level. Takes minutes on two cores.
"""

from configs import synthetic_bod
from vrl_jax import config
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.methods.bod import BOD
from vrl_jax.methods.bod_released import ReleasedBOD
from vrl_jax.methods.instance import Instance
from vrl_jax.methods.mean_residual import MeanResidual
from vrl_jax.methods.shared_forecast import SharedForecast

SPLIT = {
    "dim": 64,
    "split_at": "backbone",
    "grid": 2,
    "radius": 0.3,
    "ridge": 1e-3,
    "pooling": "rms",
    "stop_filter": True,
    "inner_steps": 0,
}
JOINT = {"static_weight": 0.0, "dynamic_weight": 0.0, "joint_weight": 1.0}
LOWER = {**SPLIT, "inner_steps": 1, "forecast": "held_out"}
FORECAST = {"forecast": "shared", "forecast_weight": 3.0, "forecast_grid": 4}
ARMS = {
    "simclr": (Instance, {"dim": 64}),
    "mean": (MeanResidual, SPLIT),
    "mean-unit": (MeanResidual, {**SPLIT, "unit": True}),
    "detrend": (MeanResidual, {**SPLIT, "unit": True, "degree": 2}),
    "split": (BOD, SPLIT),
    "split-narrow": (BOD, {**SPLIT, "radius": 0.1}),
    "split-ridge": (BOD, {**SPLIT, "ridge": 3e-2}),
    "split-gradient": (BOD, {**SPLIT, "stop_filter": False}),
    "split-delay": (BOD, {**SPLIT, "delay": 2}),
    "split-lower": (BOD, LOWER),
    "split-lower-delay": (BOD, {**LOWER, "delay": 2}),
    "joint": (ReleasedBOD, {**SPLIT, **JOINT}),
    "forecast": (SharedForecast, {"dim": 64, "hidden": 128}),
}


def build_method(arm: str):
    """Return the method of an arm, such as "detrend" or "detrend+forecast"."""
    name, plus, extra = arm.partition("+")
    if name not in ARMS or (plus and extra != "forecast"):
        raise ValueError(f"the arm must be one of {', '.join(ARMS)}, or ARM+forecast, got {arm!r}")
    kind, settings = ARMS[name]
    if plus and (not issubclass(kind, BOD) or settings["inner_steps"]):
        raise ValueError(f"{name} takes no shared forecast, got {arm!r}")
    return kind(**settings, **(FORECAST if plus else {}))


def get_config(arg: str = ""):
    method = build_method(arg or "split")
    described = synthetic_bod.get_config()
    described.data = config.describe(Synthetic(motion="travelling", drift=2.0))
    described.method = config.describe(method)
    if isinstance(method, SharedForecast):
        described.framework = None
    described.train.update(steps=200, probe_every=0)
    described.evaluate.update(neighbours=0, parts=True, segments=4)
    return described
