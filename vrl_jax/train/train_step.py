"""The training step: one compiled program for a run.

Augmentation, loss, gradient, optimiser and the update of the method are one `jit` over a mesh. The
loss sees the global batch, so it does not depend on the number of devices. Profiler traces name the
parts: augment, lower, loss, hypergradient, optimizer, update. Where one loop runs both levels, its
losses are all `loss`.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.methods.base import Inner, Method
from vrl_jax.methods.micro_batches import Clips, MicroBatches, strided_rows
from vrl_jax.train.sharding import (
    batch_sharding,
    compiler_options,
    gather,
    gather_params,
    replicated_sharding,
)

Tree = Any
Metrics = dict[str, Float[Array, ""]]
Level = Int[Array, ""] | int  # 0 is the upper one


class TrainState(NamedTuple):
    """The state of training, as in a checkpoint."""

    step: Int[Array, ""]
    params: Tree
    state: Tree
    opt_state: Tree


def step_key(seed: int, purpose: str, step: Int[Array, ""] | int) -> PRNGKeyArray:
    """Return the random key for a purpose at a step; a run has no other random state."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def view_keys(seed: int, step: Int[Array, ""] | int, levels: int) -> Key[Array, "levels"]:
    """Return the keys of the views of a step, one for each part of its batch, upper level first.

    Args:
      seed: of the run.
      step: of training.
      levels: number of parts, see `Method.levels`.
    """
    return jax.random.split(step_key(seed, "augment", step), levels)


def init_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    clips: jax.ShapeDtypeStruct,
    augment: Augment,
    seed: int,
    mesh: Mesh,
    encoder: dict[str, Any] | None = None,
    layout: TrainState | None = None,
) -> TrainState:
    """Return the state before the first step, on the mesh.

    Args:
      method: to train.
      optimizer: of the parameters.
      clips: shape of a global batch, u8[b k t h w 3].
      augment: determines the size of the views.
      seed: of the parameters.
      mesh: devices.
      encoder: variables that the encoder starts from; random by default.
      layout: shardings of the state; None replicates it.

    Raises:
      ValueError: `encoder` has other arrays than the encoder.
    """
    videos, _, frames = clips.shape[:3]
    shape = (videos, len(method.views), frames, augment.size, augment.size, 3)

    def init(key, *start):
        params, state = method.init(key, jnp.zeros(shape), *start)
        return TrainState(jnp.int32(0), params, state, optimizer.init(params))

    start = () if encoder is None else (encoder,)
    layout = layout or replicated_sharding(mesh)
    return jax.jit(init, out_shardings=layout)(step_key(seed, "init", 0), *start)


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    mesh: Mesh,
    microbatch: int = 0,
    layout: TrainState | None = None,
) -> jax.stages.Wrapped:
    """Return the jitted step: (state, clips u8[b k t h w 3]) -> (state, metrics).

    The state is donated. With a lower level the batch has `method.levels` videos for each video of
    the upper level. Row j of the i-th part is row `j * levels + i` of the batch, so that every part
    is spread over the devices as the batch is.

    Args:
      method: to train.
      optimizer: of the parameters.
      augment: how a clip becomes a view.
      seed: of augmentation and noise.
      mesh: devices.
      microbatch: videos that are augmented and embedded at a time, over all devices; 0 for all.
      layout: shardings of the state; None replicates it. With one, every device stores its shards
        alone: losses gather the state, the optimiser and the method's update work on shards.
    """
    one_loop = levels_in_one_loop(method, mesh.devices.flat[0].platform)
    if layout is not None:
        method = _gather_state(method, mesh, layout)

    def step(train: TrainState, clips: jax.Array) -> tuple[TrainState, Metrics]:
        keys = view_keys(seed, train.step, method.levels)
        parts = clips.reshape(-1, len(keys), *clips.shape[1:])
        noise = step_key(seed, "noise", train.step)

        def views(level):
            if microbatch:
                return _micro_batches(keys, clips, level, method, augment, mesh, microbatch)
            part = jax.lax.dynamic_index_in_dim(parts, level, axis=1, keepdims=False)
            with jax.named_scope("augment"):
                return make_views(keys[level], part, method.views, augment)

        descend = _descend_jointly if one_loop else _descend
        params, grads, (value, aux, metrics) = descend(method, train, views, noise)
        if method.inner and method.inner.hypergradient != "none":
            batch = views(method.inner.steps)
            grads = _hypergradient(method.inner, params, grads, train, batch, noise)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, train.opt_state, params)
            params = optax.apply_updates(params, updates)
        with jax.named_scope("update"):
            params, state = method.update(params, train.state, aux, train.step)
        metrics = {
            "loss": value,
            **metrics,
            "norm/gradient": optax.tree.norm(grads),
            "norm/update": optax.tree.norm(updates),
        }
        return TrainState(train.step + 1, params, state, opt_state), metrics

    return compile_step(step, mesh, layout)


def levels_in_one_loop(method: Method, platform: str) -> bool:
    """Return whether both levels are one loop, whose body is compiled once.

    They are where they embed views alike, except on CPU, where XLA computes gradients of
    convolutions in loops without its fast kernels (https://github.com/jax-ml/jax/issues/12868).
    """
    return bool(method.inner and method.inner.joint) and platform != "cpu"


def _micro_batches(
    keys: Key[Array, " levels"],
    clips: jax.Array,
    level: Level,
    method: Method,
    augment: Augment,
    mesh: Mesh,
    size: int,
) -> MicroBatches:
    """Return the views of a part of a batch, generated when their micro-batch is embedded."""
    levels = len(keys)
    count = len(clips) // (levels * size)

    def views(number):
        part = strided_rows(clips, number * levels + level, count * levels)
        part = jax.lax.with_sharding_constraint(part, batch_sharding(mesh))
        rows = jnp.arange(size) * count + number
        with jax.named_scope("augment"):
            return make_views(keys[level], part, method.views, augment, rows)

    return MicroBatches(views, count, size)


def compile_step(
    step: Callable[..., Any], mesh: Mesh, layout: TrainState | None = None
) -> jax.stages.Wrapped:
    """Jit (state, batch) -> (state, metrics), with the batch split and the state donated.

    Args:
      step: the function.
      mesh: devices.
      layout: shardings of the state; None replicates it.
    """
    replicated = replicated_sharding(mesh)
    layout = layout or replicated
    return jax.jit(
        step,
        in_shardings=(layout, batch_sharding(mesh)),
        out_shardings=(layout, replicated),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


def _gather_state(method: Method, mesh: Mesh, layout: TrainState) -> Method:
    """Return the method with losses that gather a state which is split by `layout`."""
    whole = gather_params(mesh, layout.params)

    def gathered(loss: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, state, *rest: loss(whole(params), gather(state, mesh), *rest)

    inner = method.inner
    if inner:
        joint = inner.joint and gathered(inner.joint)
        inner = inner._replace(loss=gathered(inner.loss), joint=joint)
    return method._replace(loss=gathered(method.loss), inner=inner)


def _descend(
    method: Method, train: TrainState, views: Callable[[Level], Clips], noise: PRNGKeyArray
) -> tuple[Tree, Tree, tuple[Float[Array, ""], Tree, Metrics]]:
    """Take the steps of the lower level and return (params, gradient, (loss, aux, metrics)).

    The latter are of the upper level, at the parameters where the lower steps end.
    """
    params, metrics = train.params, {}
    if method.inner:
        params, metrics = _take_lower_steps(method.inner, train, views, noise)
    clips = views(0)

    @jax.named_scope("loss")
    def loss(params):
        return method.loss(params, train.state, clips, noise, train.step)

    (value, (aux, terms)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return params, grads, (value, aux, {**metrics, **terms})


@jax.named_scope("lower")
def _take_lower_steps(
    inner: Inner, train: TrainState, views: Callable[[Level], Clips], noise: PRNGKeyArray
) -> tuple[Tree, Metrics]:
    """Take the gradient steps of the lower level, each on its own batch."""
    params, rate = train.params, inner.learning_rate(train.step)
    for level in range(1, inner.steps + 1):
        clips = views(level)
        value, grads = jax.value_and_grad(inner.loss)(params, train.state, clips, noise, train.step)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return params, {"inner/forecast": value}


def _descend_jointly(
    method: Method, train: TrainState, views: Callable[[Level], Clips], noise: PRNGKeyArray
) -> tuple[Tree, Tree, tuple[Float[Array, ""], Tree, Metrics]]:
    """Do the work of `_descend` in one loop over the levels, the upper one last."""
    rate = method.inner.learning_rate(train.step)

    @jax.named_scope("loss")
    def loss(params, clips, is_lower):
        return method.inner.joint(params, train.state, clips, noise, train.step, is_lower)

    def take(carry, level):
        params, is_lower = carry[0], level > 0
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(
            params, views(level), is_lower
        )
        scale = jnp.where(is_lower, rate, 0.0)
        params = jax.tree.map(lambda p, g: p - scale * g, params, grads)
        return (params, grads, rest), value

    upper = jnp.int32(0)
    rest = jax.eval_shape(lambda: loss(train.params, views(upper), upper > 0)[1])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (train.params, rest))
    levels = jnp.array([*range(1, method.levels), 0])
    (params, grads, (aux, metrics)), values = jax.lax.scan(take, (train.params, *zeros), levels)
    return params, grads, (values[-1], aux, {"inner/forecast": values[-2], **metrics})


@jax.named_scope("hypergradient")
def _hypergradient(
    inner: Inner,
    params: Tree,
    grads: Tree,
    train: TrainState,
    clips: Clips,
    noise: PRNGKeyArray,
) -> Tree:
    """Return `(I - scale * H) grads`, with H the Hessian of the lower level on its last batch.

    The Hessian-vector product is the derivative of the lower gradient along `grads`; no matrix is
    formed.
    """
    scale = inner.learning_rate(train.step) if inner.hypergradient == "maml1" else 1.0
    lower_grad = jax.grad(lambda p: inner.loss(p, train.state, clips, noise, train.step))
    _, product = jax.jvp(lower_grad, (params,), (grads,))
    return jax.tree.map(lambda g, h: g - scale * h, grads, product)
