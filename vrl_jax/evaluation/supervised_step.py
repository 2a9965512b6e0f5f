"""A classifier on an encoder, and the compiled step that trains it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.train.sharding import replicated_sharding
from vrl_jax.train.train_step import Metrics, TrainState, compile_step, step_key
from vrl_jax.types import Features, View

Tree = Any
INITIAL_STD = 0.01


class LinearHead(nn.Module):
    """Linear classifier of pooled features.

    Attributes:
      classes: number of classes.
      dropout: probability of dropping a feature in training.
      normed: scale features to unit length and batch-normalise them first.
    """

    classes: int
    dropout: float = 0.0
    normed: bool = False

    @nn.compact
    def __call__(self, features: Float[Array, "b d"], train: bool) -> Float[Array, "b c"]:
        """Return the classes' logits."""
        if self.normed:
            length = jnp.linalg.norm(features, axis=-1, keepdims=True)
            features = features / jnp.maximum(length, 1e-12)
            features = nn.BatchNorm(not train, momentum=0.9, use_fast_variance=False)(features)
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, kernel_init=nn.initializers.normal(INITIAL_STD))(features)


class Classifier(NamedTuple):
    """An encoder and a head as pure functions of a train state.

    The state's `params` are trained: {"head"}, and {"encoder"} unless it is frozen. Its `state` is
    not: batch statistics, and a frozen encoder as a whole.

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
            features, changed = self.encoder.apply(variables, views, True, mutable=["batch_stats"])
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
) -> TrainState:
    """Return the state before the first step, on every device of the mesh."""

    def init(key, encoder):
        params, state = classifier.init(key, encoder, views)
        return TrainState(jnp.int32(0), params, state, optimizer.init(params))

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
) -> Callable[[TrainState, Mapping[str, Array]], tuple[TrainState, Metrics]]:
    """Return the compiled step: (state, {"clips" u8[b k t h w 3], "labels" i32[b]}) -> the same.

    The loss is the mean cross-entropy, over the k clips of a video unless the head joins them. The
    state is donated.

    Args:
      classifier: encoder and head.
      optimizer: updates its params.
      augment: how a clip becomes a view.
      seed: of augmentation and dropout.
      mesh: of the devices.
      encoder_rate: learning rate of the encoder, relative to the head's.
    """

    def step(train: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, Metrics]:
        key = step_key(seed, "augment", train.step)
        clips = tuple(View(number) for number in range(batch["clips"].shape[1]))
        views = make_views(key, batch["clips"], clips, augment)
        views = views.reshape(-1, *views.shape[2:])

        def loss(params):
            noise = step_key(seed, "dropout", train.step)
            logits, state = classifier.train(params, train.state, views, noise)
            labels = jnp.repeat(batch["labels"], len(logits) // len(batch["labels"]))
            each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return each.mean(), (state, (logits.argmax(-1) == labels).mean())

        (value, (state, accuracy)), grads = jax.value_and_grad(loss, has_aux=True)(train.params)
        updates, opt_state = optimizer.update(grads, train.opt_state, train.params)
        if "encoder" in updates:
            slower = jax.tree.map(lambda u: encoder_rate * u, updates["encoder"])
            updates = {**updates, "encoder": slower}
        params = optax.apply_updates(train.params, updates)
        metrics = {
            "loss": value,
            "accuracy": accuracy,
            "norm/gradient": optax.tree.norm(grads),
            "norm/update": optax.tree.norm(updates),
        }
        return TrainState(train.step + 1, params, state, opt_state), metrics

    return compile_step(step, mesh)
