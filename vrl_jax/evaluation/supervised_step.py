"""A classifier on an encoder, and the compiled step that trains it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vrl_jax.augment.clip_views import Augment
from vrl_jax.augment.mixing import NO_MIX, Mix, mix_views, smooth_labels
from vrl_jax.augment.training_views import NO_STRONG, StrongAugment, make_training_views
from vrl_jax.frameworks.base import ema_update
from vrl_jax.methods.micro_batches import strided_rows
from vrl_jax.train.sharding import batch_sharding, replicated_sharding
from vrl_jax.train.train_step import Metrics, TrainState, compile_step, step_key
from vrl_jax.types import Features

Tree = Any
AVERAGE = "average"  # key of the averaged weights in a train state's `state`


class Classifier(NamedTuple):
    """An encoder and a head as pure functions of a train state.

    The state's `params` are trained: {"head"}, and {"encoder"} unless it is frozen. Its `state` is
    not: batch statistics, a frozen encoder as a whole, and the moving average of both.

    Attributes:
      encoder: the network.
      head: (inputs, train) -> logits f32[b c].
      frozen: whether the encoder, statistics included, stays unchanged.
      inputs: the encoder's features to the head's inputs; it may join the clips of a video, which
        are consecutive.
    """

    encoder: nn.Module
    head: nn.Module
    frozen: bool
    inputs: Callable[[Features], Array] = lambda features: features.clip

    def init(
        self, key: jax.Array, encoder: Mapping[str, Tree], views: tuple[int, ...]
    ) -> tuple[Tree, Tree]:
        """Return params and state.

        Args:
          key: random key of the head's weights.
          encoder: {"params": ..., "batch_stats": ...}.
          views: shape of a batch of views, (b, t, h, w, 3).
        """
        inputs = jax.eval_shape(
            lambda views: self.inputs(self.encoder.apply(encoder, views, False)),
            jax.ShapeDtypeStruct(views, jnp.float32),
        )
        head = self.head.init(key, jnp.zeros(inputs.shape, inputs.dtype), False)
        stats = {"head": head.get("batch_stats", {})}
        if self.frozen:
            return {"head": head["params"]}, {**stats, "frozen": dict(encoder)}
        params = {"encoder": encoder["params"], "head": head["params"]}
        return params, {**stats, "encoder": encoder.get("batch_stats", {})}

    def encoder_variables(self, params: Tree, state: Tree) -> dict[str, Tree]:
        """Return the encoder's {"params": ..., "batch_stats": ...}."""
        if self.frozen:
            return state["frozen"]
        return {"params": params["encoder"], "batch_stats": state["encoder"]}

    def score(self, params: Tree, state: Tree, views: Float[Array, "b t h w 3"]) -> Array:
        """Return the logits f32[b c] with running statistics."""
        features = self.encoder.apply(self.encoder_variables(params, state), views, False)
        head = {"params": params["head"], "batch_stats": state["head"]}
        return self.head.apply(head, self.inputs(features), False)

    def train(
        self, params: Tree, state: Tree, views: Float[Array, "b t h w 3"], key: jax.Array
    ) -> tuple[Float[Array, "_ c"], Tree]:
        """Return the logits with batch statistics, and the updated state."""
        variables = self.encoder_variables(params, state)
        if self.frozen:
            features, stats = self.encoder.apply(variables, views, False), {}
        else:
            rngs = {"dropout": jax.random.fold_in(key, 1)}
            features, changed = self.encoder.apply(
                variables, views, True, rngs=rngs, mutable=["batch_stats"]
            )
            stats = {"encoder": changed.get("batch_stats", {})}
        head = {"params": params["head"], "batch_stats": state["head"]}
        logits, changed = self.head.apply(
            head, self.inputs(features), True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return logits, {**state, **stats, "head": changed.get("batch_stats", {})}


def init_classifier(
    classifier: Classifier,
    optimizer: optax.GradientTransformation,
    encoder: Mapping[str, Tree],
    views: tuple[int, ...],
    seed: int,
    mesh: Mesh,
    average: bool = False,
) -> TrainState:
    """Return the state before the first step, on every device of the mesh.

    Args:
      classifier: encoder and head.
      optimizer: of its params.
      encoder: variables that the encoder starts from.
      views: shape of a batch of views, (b, t, h, w, 3).
      seed: of the head's weights.
      mesh: devices.
      average: the state also has the moving average of weights and statistics.
    """

    def init(key, encoder):
        params, state = classifier.init(key, encoder, views)
        opt_state = optimizer.init(params)
        if average:
            state = {**state, AVERAGE: {"params": params, "state": state}}
        return TrainState(jnp.int32(0), params, state, opt_state)

    return jax.jit(init, out_shardings=replicated_sharding(mesh))(
        step_key(seed, "init", 0), encoder
    )


def make_supervised_step(
    classifier: Classifier,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    mesh: Mesh,
    encoder_rate: float = 1.0,
    microbatch: int = 0,
    *,
    layer_rates: Mapping[str, float] | None = None,
    strong: StrongAugment = NO_STRONG,
    mix: Mix = NO_MIX,
    smoothing: float = 0.0,
    average: float = 0.0,
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]:
    """Return the compiled step: (state, {"clips" u8[b k t h w 3], "labels" i32[b]}) -> the same.

    The loss is the mean cross-entropy, over the k clips of a video unless the head joins them. The
    accuracy is that of the class with the largest target. The state is donated.

    Args:
      classifier: encoder and head.
      optimizer: updates its params.
      augment: how a clip becomes a view.
      seed: of augmentation and dropout.
      mesh: of the devices.
      encoder_rate: learning rate of the encoder, relative to the head's.
      microbatch: videos whose gradient is computed at a time, over all devices; 0 for all.
      layer_rates: further factors of the learning rate, by the encoder's parameters; None for 1.
      strong: augmentation around `augment`.
      mix: how views and targets are mixed within a micro-batch; the head may not join clips.
      smoothing: of the targets.
      average: decay of the moving average of weights and statistics per step, which the state must
        have, see `init_classifier`; 0 for none.
    """

    rates = layer_rates or {}

    def key(purpose: str, step: Array) -> Array:
        return step_key(seed, purpose, step)

    def gradient(train, state, batch, rows, noise):
        clips, labels = batch["clips"], batch["labels"]
        keys = key("augment", train.step), key("strong", train.step)
        views = make_training_views(*keys, clips, augment, strong, mesh, rows)
        mixed = None
        if mix:
            views, *mixed = mix_views(key("mix", train.step), views, labels, mix, rows)
        views = views.reshape(-1, *views.shape[2:])

        def loss(params):
            logits, after = classifier.train(params, state, views, noise)
            repeated = jnp.repeat(labels, len(logits) // len(labels))
            value, target = _cross_entropy(logits, repeated, mixed, smoothing)
            return value, (after, (logits.argmax(-1) == target).mean())

        (value, (after, accuracy)), grads = jax.value_and_grad(loss, has_aux=True)(train.params)
        return (grads, {"loss": value, "accuracy": accuracy}), after

    def step(train: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        noise = key("dropout", train.step)
        state = {name: part for name, part in train.state.items() if name != AVERAGE}
        of_rows = partial(gradient, train)
        if microbatch:
            total = _mean_gradient(of_rows, train.params, state, batch, noise, microbatch, mesh)
        else:
            total = of_rows(state, batch, jnp.arange(len(batch["labels"])), noise)
        (grads, metrics), state = total
        updates, opt_state = optimizer.update(grads, train.opt_state, train.params)
        if "encoder" in updates:
            slower = {
                name: optax.tree.scale(encoder_rate * rates.get(name, 1.0), part)
                for name, part in updates["encoder"].items()
            }
            updates = {**updates, "encoder": slower}
        params = optax.apply_updates(train.params, updates)
        if average:
            both = {"params": params, "state": state}
            before = train.state[AVERAGE]
            state = {**state, AVERAGE: ema_update(before, both, jnp.float32(average))}
        metrics = {
            **metrics,
            "norm/gradient": optax.tree.norm(grads),
            "norm/update": optax.tree.norm(updates),
        }
        return TrainState(train.step + 1, params, state, opt_state), metrics

    return compile_step(step, mesh)


def _cross_entropy(logits, labels, mixed, smoothing):
    """Return the mean cross-entropy, and the class with the largest target of each row.

    Args:
      logits: f32[n c].
      labels: i32[n].
      mixed: share of the label and other label of each row; None where no views are mixed.
      smoothing: of the targets.
    """
    if mixed is None and not smoothing:
        each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), labels
    targets = smooth_labels(labels, logits.shape[1], smoothing)
    if mixed:
        share, others = (x.reshape(-1) for x in mixed)
        others = smooth_labels(others, logits.shape[1], smoothing)
        targets = share[:, None] * targets + (1 - share[:, None]) * others
    return optax.softmax_cross_entropy(logits, targets).mean(), targets.argmax(-1)


def _mean_gradient(gradient, params, state, batch, noise, size, mesh):
    """Return the mean gradient and metrics of micro-batches, and the state after the last one."""
    count = len(batch["labels"]) // size

    def add(carry, number):
        total, state = carry
        part = jax.tree.map(lambda x: strided_rows(x, number, count), batch)
        part = jax.lax.with_sharding_constraint(part, batch_sharding(mesh))
        rows = jnp.arange(size) * count + number
        result, state = gradient(state, part, rows, jax.random.fold_in(noise, number))
        return (jax.tree.map(lambda x, y: x + y / count, total, result), state), None

    metrics = dict.fromkeys(("loss", "accuracy"), jnp.float32(0))
    zero = jax.tree.map(jnp.zeros_like, params), metrics
    return jax.lax.scan(add, (zero, state), jnp.arange(count))[0]
