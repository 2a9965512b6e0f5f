"""The steps that are asked for are traced, also where the run ends before the last of them."""

import gzip
import json

import jax.numpy as jnp
import pytest

from vrl_jax.profiling.step_trace import StepTrace, parse_steps
from vrl_jax.train.train_step import TrainState


def read_steps(folder):
    """Return the numbers of the steps in the one trace of a folder."""
    (path,) = folder.rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return {event["args"]["step_num"] for event in events if event.get("name") == "train"}


@pytest.mark.parametrize("steps", ["10", "0:3", "4:3", "a:b", "1:2:3"])
def test_steps_to_trace_are_a_range(steps):
    with pytest.raises(ValueError, match=f"profile must be FIRST:LAST, .* got '{steps}'"):
        parse_steps(steps)


@pytest.mark.parametrize("start, traced", [(0, {"2", "3"}), (2, {"3"}), (1, {"2"}), (3, set())])
def test_steps_are_traced(tmp_path, start, traced):
    def step(state, batch):
        return state._replace(step=state.step + 1), {}

    state, lines = TrainState(jnp.int32(start), {}, {}, {}), []
    with StepTrace(parse_steps("2:3"), tmp_path) as trace:
        run = trace.wrap(step, lines.append)
        for _ in range(1 if start == 1 else 4):
            state, _ = run(state, None)
    assert bool(lines) == (start in (0, 2))
    assert not traced or read_steps(tmp_path) == traced
    assert tmp_path.exists() and bool(list(tmp_path.iterdir())) == bool(traced)


def test_without_steps_the_step_is_itself(tmp_path):
    with StepTrace(parse_steps(""), tmp_path) as trace:
        assert trace.wrap(print, print) is print
