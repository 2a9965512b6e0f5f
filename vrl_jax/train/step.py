"""One training step: the only compiled program of a run.

Augmentation, loss, gradient, optimiser and the method's own update are one `jit` over a mesh; the
loss sees the global batch, so it means the same on one device and on many. Its parts have names in
a profiler's trace: augment, lower, loss, hypergradient, optimizer, update.
"""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from vrl_jax.augment.views import Augment, make_views
from vrl_jax.methods.base import Inner, Method
from vrl_jax.train.sharding import batch_sharding, compiler_options, replicated_sharding

Tree = Any
Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
    """Everything the next step reads, and what a checkpoint holds."""

    step: Int[Array, ""]
    params: Tree
    state: Tree
    opt_state: Tree


def key_for(seed: int, purpose: str, step: Int[Array, ""] | int) -> PRNGKeyArray:
    """Return the random key of one purpose at one step: no other state of randomness exists."""
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(purpose.encode()))
    return jax.random.fold_in(key, step)


def view_keys(seed: int, step: Int[Array, ""] | int, levels: int) -> Key[Array, "levels"]:
    """Return the keys of a step's views, one for each part of its batch, the upper level's first.

    Args:
      seed: of the run.
      step: of training.
      levels: how many parts there are, see `Method.levels`.
    """
    return jax.random.split(key_for(seed, "augment", step), levels)


def init_state(
    method: Method,
    optimizer: optax.GradientTransformation,
    clips: jax.ShapeDtypeStruct,
    augment: Augment,
    seed: int,
    mesh: Mesh,
) -> TrainState:
    """Return the state before the first step, on every device of the mesh.

    Args:
      method: what is trained.
      optimizer: how.
      clips: shape of a global batch, u8[b k t h w 3].
      augment: decides the size of the views.
      seed: of the parameters.
      mesh: where to put them.
    """
    videos, _, frames = clips.shape[:3]
    shape = (videos, len(method.views), frames, augment.size, augment.size, 3)

    def init(key):
        params, state = method.init(key, jnp.zeros(shape))
        return TrainState(jnp.int32(0), params, state, optimizer.init(params))

    return jax.jit(init, out_shardings=replicated_sharding(mesh))(key_for(seed, "init", 0))


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    seed: int,
    mesh: Mesh,
) -> jax.stages.Wrapped:
    """Return the jitted step: (state, clips u8[b k t h w 3]) -> (state, metrics).

    The state is donated. With a lower level the batch holds `method.levels` videos for each one
    that the upper level sees: row j of its i-th part is row `j * levels + i`, so that the parts lie
    on the devices as the whole does.
    """

    def step(train: TrainState, clips: jax.Array) -> tuple[TrainState, Metrics]:
        keys = view_keys(seed, train.step, method.levels)
        parts = clips.reshape(-1, len(keys), *clips.shape[1:])
        with jax.named_scope("augment"):
            batches = [
                make_views(key, parts[:, i], method.views, augment) for i, key in enumerate(keys)
            ]
        noise = key_for(seed, "noise", train.step)

        @jax.named_scope("loss")
        def loss(params):
            return method.loss(params, train.state, batches[0], noise, train.step)

        params, metrics = train.params, {}
        if method.inner:
            params, metrics = _descend(method.inner, params, train, batches[1:], noise)
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
    """Jit (state, batch) -> (state, metrics): the batch is split, the state donated."""
    everywhere = replicated_sharding(mesh)
    return jax.jit(
        step,
        in_shardings=(everywhere, batch_sharding(mesh)),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
        compiler_options=compiler_options(mesh),
    )


@jax.named_scope("lower")
def _descend(
    inner: Inner, params: Tree, train: TrainState, batches: list[jax.Array], noise: PRNGKeyArray
) -> tuple[Tree, Metrics]:
    """Take the lower level's steps, each on its own batch."""
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
    """Return `(I - scale * H) grads`, H the lower level's Hessian on its last batch.

    The product is the derivative of the lower level's gradient along `grads`: no matrix is formed.
    """
    scale = inner.learning_rate(train.step) if inner.hypergradient == "maml1" else 1.0
    slope = jax.grad(lambda p: inner.loss(p, train.state, clips, noise, train.step))
    _, product = jax.jvp(slope, (params,), (grads,))
    return jax.tree.map(lambda g, h: g - scale * h, grads, product)
