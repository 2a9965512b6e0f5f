"""The training step: one compiled program for a run.

Augmentation, loss, gradient, optimiser and the update of the method are one `jit` over a mesh. The
loss sees the global batch, so it does not depend on the number of devices. Profiler traces name the
parts: augment, lower, loss, hypergradient, optimizer, update.
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
from vrl_jax.train.sharding import batch_sharding, compiler_options, replicated_sharding

Tree = Any
Metrics = dict[str, Float[Array, ""]]


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
) -> TrainState:
    """Return the state before the first step, replicated on the mesh.

    Args:
      method: to train.
      optimizer: of the parameters.
      clips: shape of a global batch, u8[b k t h w 3].
      augment: determines the size of the views.
      seed: of the parameters.
      mesh: devices.
    """
    videos, _, frames = clips.shape[:3]
    shape = (videos, len(method.views), frames, augment.size, augment.size, 3)

    def init(key):
        params, state = method.init(key, jnp.zeros(shape))
        return TrainState(jnp.int32(0), params, state, optimizer.init(params))

    return jax.jit(init, out_shardings=replicated_sharding(mesh))(step_key(seed, "init", 0))


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """Return the jitted step: (state, clips u8[b k t h w 3]) -> (state, metrics).

    The state is donated. With a lower level the batch has `method.levels` videos for each video of
    the upper level. Row j of the i-th part is row `j * levels + i` of the batch, so that every part
    is spread over the devices as the batch is.
    """

    def step(train: TrainState, clips: jax.Array) -> tuple[TrainState, Metrics]:
        keys = view_keys(seed, train.step, method.levels)
        parts = clips.reshape(-1, len(keys), *clips.shape[1:])
        with jax.named_scope("augment"):
            batches = [
                make_views(key, parts[:, i], method.views, augment) for i, key in enumerate(keys)
            ]
        noise = step_key(seed, "noise", train.step)

        @jax.named_scope("loss")
        def loss(params):
            return method.loss(params, train.state, batches[0], noise, train.step)

        params, metrics = train.params, {}
        if method.inner:
            params, metrics = _take_lower_steps(method.inner, params, train, batches[1:], noise)
        (value, (aux, terms)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        if method.inner and method.inner.hypergradient != "none":
            grads = _hypergradient(method.inner, params, grads, train, batches[-1], noise)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, train.opt_state, params)
            params = optax.apply_updates(params, updates)
        with jax.named_scope("update"):
            params, state = method.update(params, train.state, aux, train.step)
        metrics = {
            "loss": value,
            **metrics,
            **terms,
            "norm/gradient": optax.tree.norm(grads),
            "norm/update": optax.tree.norm(updates),
        }
        return TrainState(train.step + 1, params, state, opt_state), metrics

    return compile_step(step, mesh)


def compile_step(step: Callable[..., Any], mesh: Mesh) -> jax.stages.Wrapped:
    """Jit (state, batch) -> (state, metrics), with the batch split and the state donated."""
    replicated = replicated_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(replicated, batch_sharding(mesh)),
        out_shardings=(replicated, replicated),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


@jax.named_scope("lower")
def _take_lower_steps(
    inner: Inner, params: Tree, train: TrainState, batches: list[jax.Array], noise: PRNGKeyArray
) -> tuple[Tree, Metrics]:
    """Take the gradient steps of the lower level, each on its own batch."""
    rate = inner.learning_rate(train.step)
    for clips in batches:
        value, grads = jax.value_and_grad(inner.loss)(params, train.state, clips, noise, train.step)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return params, {"inner/forecast": value}


@jax.named_scope("hypergradient")
def _hypergradient(
    inner: Inner,
    params: Tree,
    grads: Tree,
    train: TrainState,
    clips: jax.Array,
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
