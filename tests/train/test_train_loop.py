import itertools
import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_run_log import events
from vrl_jax.train import preemption, train_loop
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.preemption import PreemptionGuard
from vrl_jax.train.run_log import Log
from vrl_jax.train.train_loop import MetricsReader, Train
from vrl_jax.train.train_step import TrainState
from vrl_jax.types import TrainLength


def start_state():
    return TrainState(jnp.int32(0), {"w": jnp.zeros(3)}, {}, {})


def count(state, batch):
    """A step that adds its batch."""
    params = {"w": state.params["w"] + batch}
    return state._replace(step=state.step + 1, params=params), {"loss": params["w"].sum()}


def launch(
    folder,
    config,
    total,
    *,
    step=count,
    batches=None,
    state=None,
    probe=None,
    before_save=lambda: None,
):
    state = state or start_state()
    probed = []
    path, identity = folder / "checkpoints", {"a": 1}
    with Checkpoints(path, config.keep, identity, before_save=before_save) as checkpoints:
        if checkpoints.latest() is not None:
            state = checkpoints.restore(state)
        with Log(folder, int(state.step), total, quiet=True) as log:
            state = train_loop.run_loop(
                state,
                step,
                batches or itertools.repeat(1.0),
                config=config,
                total_steps=total,
                probe=probe or (lambda s: probed.append(int(s.step)) or {"score": float(s.step)}),
                meter=MetricsReader(
                    log, config, 10, lambda step: 0.1, lambda step: {"unreadable_videos": 5}
                ),
                checkpoints=checkpoints,
                log=log,
            )
        saved = checkpoints.latest()
    return state, probed, saved


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_is_behind_no_save(tmp_path):
    newest = []

    def before_save():
        steps = {event.step for event in events(tmp_path / "tensorboard") if event.summary.value}
        records = [record["step"] for record in lines(tmp_path / "metrics.jsonl")]
        newest.append((max(steps), max(records)))

    launch(tmp_path, Train(batch=2, log_every=1, save_every=2), 5, before_save=before_save)
    assert newest == [(2, 2), (4, 4), (5, 5)]


def test_probes_saves_and_logs_when_due(tmp_path):
    config = Train(batch=2, log_every=2, probe_every=3, save_every=4)
    state, probed, saved = launch(tmp_path, config, 7)
    assert probed == [0, 3, 6, 7] and saved == 7
    records = lines(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in records] == [1, 2, 4, 6]
    assert [record["loss"] for record in records] == [3.0, 6.0, 12.0, 18.0]
    assert records[2]["epoch"] == 4 * 2 / 10 and records[0]["learning_rate"] == 0.1
    assert records[0]["unreadable_videos"] == 5
    assert [record["step"] for record in lines(tmp_path / "probes.jsonl")] == probed


def test_continues_where_it_stopped_and_forgets_the_lost_future(tmp_path):
    config = Train(batch=2, log_every=1, save_every=2)
    launch(tmp_path, config, 4)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": -1.0}\n{"step": 6, "lo')  # what a killed process leaves
    state, probed, _ = launch(tmp_path, config, 6)
    np.testing.assert_array_equal(state.params["w"], 6.0)
    assert probed == [6]
    records = lines(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["loss"]) for r in records] == [(n, 3.0 * n) for n in range(1, 7)]


def test_what_died_before_its_first_checkpoint_begins_anew(tmp_path):
    (tmp_path / "probes.jsonl").write_text('{"step": 0, "score": 7.0}\n')
    launch(tmp_path, Train(batch=2, log_every=1, save_every=2), 2)
    assert [(r["step"], r["score"]) for r in lines(tmp_path / "probes.jsonl")] == [(0, 0), (2, 2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(tmp_path, number):
    def batches():
        for index in itertools.count(1):
            if index == 3:
                os.kill(os.getpid(), number)
            yield 1.0

    before = signal.getsignal(number)
    state, _, saved = launch(tmp_path, Train(save_every=100), 50, batches=batches())
    assert int(state.step) == saved == 3
    assert signal.getsignal(number) == before


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that tests set; before it, SIGTERM and Ctrl-C only count."""
    now, ended = [0.0], []
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: ended.append(number)) for number in numbers]
    yield now, ended
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_repeated_signals_do_not_end_a_run_that_is_saving(clock):
    now, ended = clock
    with PreemptionGuard() as guard:
        assert not guard.should_stop()
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGTERM):  # SLURM's preemption
            os.kill(os.getpid(), number)
            now[0] += 0.01
            assert guard.should_stop() and not ended
        now[0] = 300.0  # its time limit
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(2):  # a key pressed once that a launcher passes on as well
            os.kill(os.getpid(), signal.SIGINT)
        assert not ended
        now[0] = 301.5  # the key pressed again
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [signal.SIGINT]
        now[0] = 601.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [signal.SIGINT, signal.SIGTERM]


def test_a_signal_while_the_save_is_pending_does_not_end_the_run(tmp_path, monkeypatch, clock):
    def interrupted(checkpoints):
        os.kill(os.getpid(), signal.SIGTERM)
        wait(checkpoints)

    def batches():
        os.kill(os.getpid(), signal.SIGTERM)
        yield 1.0

    wait = Checkpoints.wait
    monkeypatch.setattr(Checkpoints, "wait", interrupted)
    _, _, saved = launch(tmp_path, Train(save_every=100), 50, batches=batches())
    assert saved == 1 and not clock[1]


def test_processes_agree_on_a_number_that_no_run_before_has_told(monkeypatch):
    numbers = []
    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)

    def reached(number):
        numbers.append(number)
        return False

    monkeypatch.setattr(preemption.multihost_utils, "reached_preemption_sync_point", reached)
    for _ in range(2):  # two runs of a process
        with PreemptionGuard() as guard:
            for _ in range(3):
                guard.should_stop()
    assert numbers == sorted(set(numbers)) and len(numbers) == 6


def test_nan_stops_with_step_and_quantity_and_keeps_the_last_good_state(tmp_path):
    def step(state, batch):
        state, metrics = count(state, batch)
        gradient = jnp.where(state.step == 5, jnp.nan, 1.0)
        return state, {**metrics, "norm/gradient": gradient}

    config = Train(save_every=2)
    with pytest.raises(FloatingPointError, match="step 5: norm/gradient not finite"):
        launch(tmp_path, config, 9, step=step)
    with Checkpoints(tmp_path / "checkpoints", 1, {"a": 1}) as checkpoints:
        assert checkpoints.latest() == 4
        np.testing.assert_array_equal(checkpoints.restore(start_state()).params["w"], 4.0)


def test_a_broken_state_is_never_saved(tmp_path):
    def step(state, batch):
        state, metrics = count(state, batch)
        return state, {"loss": jnp.where(state.step == 4, jnp.inf, 1.0)}

    with pytest.raises(FloatingPointError, match="step 4: loss"):
        launch(tmp_path, Train(save_every=2), 9, step=step)
    with Checkpoints(tmp_path / "checkpoints", 1, {"a": 1}) as checkpoints:
        assert checkpoints.latest() == 2


def test_length_of_a_run():
    assert Train(steps=7, epochs=3.0, batch=4).horizon(100) == TrainLength(7, 25)
    assert Train(epochs=2.0, batch=32).horizon(100) == TrainLength(7, 4)
    with pytest.raises(ValueError, match="epochs must be above 0"):
        Train(epochs=0.0)
