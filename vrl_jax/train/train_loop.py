"""The training loop: batch, step, log; probe and save when due."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from vrl_jax import check
from vrl_jax.train.checkpoint import Checkpoints
from vrl_jax.train.preemption import PreemptionGuard
from vrl_jax.train.run_log import Log
from vrl_jax.train.train_step import TrainState
from vrl_jax.types import TrainLength

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Train:
    """Length of training, and how often to log, probe and save.

    Attributes:
      batch: videos per step, over all devices; with two levels, those of the upper level: each step
        of the lower level reads as many more.
      microbatch: videos, over all devices, that are augmented and embedded at a time, so that a
        large batch fits on few devices; it divides `batch`. The loss is still that of the whole
        batch, but batch normalisation uses the statistics of a micro-batch, and its running
        statistics move once for each. 0 embeds all videos together.
      steps: length of the run; 0 takes `epochs`.
      epochs: passes over the pretraining videos; used where `steps` is 0.
      seed: of parameters, augmentation and data order.
      log_every: steps between records of the metrics.
      probe_every: steps between probes of the representation; 0 probes at the ends only.
      save_every: steps between checkpoints.
      keep: number of latest checkpoints to keep, besides the best.
      shard_state: split parameters, teacher and optimiser state over the devices, for encoders
        whose state fills a device. The arrays are gathered where the loss needs them. Numbers
        change by rounding alone, so a run may be resumed with another value.
    """

    batch: int = 64
    microbatch: int = 0
    steps: int = 0
    epochs: float = 100.0
    seed: int = 0
    log_every: int = 10
    probe_every: int = 0
    save_every: int = 1000
    keep: int = 2
    shard_state: bool = False

    def __post_init__(self):
        check.at_least(1, batch=self.batch, log_every=self.log_every, keep=self.keep)
        check.at_least(1, save_every=self.save_every)
        check.at_least(0, steps=self.steps, probe_every=self.probe_every)
        check.at_least(0, microbatch=self.microbatch)
        check.multiple_of("microbatch", self.microbatch, batch=self.batch)
        if not self.steps:
            check.positive(epochs=self.epochs)

    def horizon(self, videos: int) -> TrainLength:
        """Return the length of the run, given the number of pretraining videos."""
        steps = self.steps or max(1, math.ceil(self.epochs * videos / self.batch))
        return TrainLength(steps, max(1, math.ceil(videos / self.batch)))


class MetricsReader:
    """Reads the metrics of each step, raises if one is not finite, and logs them when due.

    Args:
      log: receives the metrics.
      config: cadence, and videos per step.
      videos: videos per epoch.
      learning_rate: step -> learning rate.
      counts: step -> numbers to log, such as that of unreadable videos so far.
    """

    def __init__(
        self,
        log: Log,
        config: Train,
        videos: int,
        learning_rate: Callable[[int], float],
        counts: Callable[[int], Mapping[str, int]],
    ):
        self._log, self._config, self._counts = log, config, counts
        self._videos, self._learning_rate = videos, learning_rate
        self._began = time.perf_counter() - log.elapsed  # earlier sessions count
        self._seconds, self._steps, self._since, self._idle = 0.0, 0, None, 0.0

    def idle(self, seconds: float) -> None:
        """Add time for which the devices may have waited for data."""
        if self._since is not None:
            self._idle += seconds

    def read(self, number: int, metrics: Metrics) -> None:
        """Wait for the metrics of step `number`, check and log them.

        Raises:
          FloatingPointError: naming the step and the quantity that is not finite.
        """
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        if self._since is not None:
            self._seconds, self._steps = self._seconds + now - self._since, self._steps + 1
        self._since = now
        nonfinite = [name for name, value in values.items() if not math.isfinite(value)]
        if nonfinite:
            raise FloatingPointError(
                f"step {number}: {', '.join(nonfinite)} not finite. The last good checkpoint is "
                "kept; try a lower learning_rate, or clip_norm=1 of the optimiser"
            )
        speed = self._config.batch * self._steps / self._seconds if self._seconds else 0.0
        self._log.advance(number, values["loss"], speed)
        if number % self._config.log_every == 0 or number == 1:
            record = {
                "epoch": number * self._config.batch / self._videos,
                "learning_rate": float(self._learning_rate(number - 1)),
                "videos_per_second": speed,
                "waiting_for_data": self._idle / self._seconds if self._seconds else 0.0,
                "wall_seconds": now - self._began,
                **self._counts(number),
                **values,
            }
            self._log.metrics(number, record)
            self._seconds, self._steps, self._idle = 0.0, 0, 0.0

    def pause(self) -> None:
        """Exclude the time until the next reading from the speed."""
        self._since = None


def run_loop(
    train: TrainState,
    step: Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]],
    batches: Iterator[jax.Array],
    *,
    config: Train,
    total_steps: int,
    probe: Callable[[TrainState], dict[str, float]] | None,
    meter: MetricsReader,
    checkpoints: Checkpoints,
    log: Log,
) -> TrainState:
    """Train from the state's own step on; return the last state, which is saved.

    Devices wait for data if a step ends before the next batch arrives. The time that the loop then
    waited for that batch is counted, an upper bound.

    Metrics are read one step late, so that the device never waits for the host, and before a state
    is probed or saved, so that a non-finite state never is.

    Args:
      train: the first state.
      step: the compiled step.
      batches: device-placed batches, from the state's own step on.
      config: cadences of logging, probing and saving.
      total_steps: last step, unless SIGTERM or Ctrl-C ends the run before.
      probe: evaluates a state; the best checkpoint is the one of the highest `score`. Without a
        probe it is the newest.
      meter: reads the metrics.
      checkpoints: receive the states.
      log: receives the results of the probes.

    Raises:
      FloatingPointError: a metric is not finite.
    """
    start, score, unread = int(train.step), -math.inf, None
    if start == 0:
        score = _probe(probe, train, log, 0)
    with PreemptionGuard() as guard:
        for number in range(start + 1, total_steps + 1):
            waiting_since = time.perf_counter()
            batch = next(batches)
            if unread and unread[1]["loss"].is_ready():
                meter.idle(time.perf_counter() - waiting_since)
            train, metrics = step(train, batch)
            if unread:
                meter.read(*unread)
            unread = number, metrics
            leaving = guard.should_stop()
            last = number == total_steps or leaving
            probing = config.probe_every and number % config.probe_every == 0
            saving = last or number % config.save_every == 0
            if probing or saving:
                meter.read(*unread)
                unread = None
                if probing or number == total_steps:
                    score = _probe(probe, train, log, number)
                if saving:
                    log.flush()
                    checkpoints.save(train, score)
                if last:
                    checkpoints.wait()  # while signals are still handled
                meter.pause()
            if leaving:
                log.info(f"interrupted: saved at step {number}; the same command continues")
                break
    return train


def _probe(probe, train, log, number):
    """Probe a state, log the results and return its score."""
    if probe is None:
        return float(number)
    values = probe(train)
    log.probes(number, values)
    return values["score"]
