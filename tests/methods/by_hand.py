"""A method written from the protocols alone: its own tree of parameters, and its own operators."""

from dataclasses import dataclass

import jax

from vrl_jax.losses import nt_xent
from vrl_jax.losses.linear_solve import ridge_map
from vrl_jax.methods.base import Method, Operators, reject_framework
from vrl_jax.methods.micro_batches import embed_videos
from vrl_jax.types import View


@dataclass(frozen=True)
class ByHand:
    """Noisy projections of a video's two clips attract each other.

    Attributes:
      width: dimensions of the projection.
      noise: standard deviation of the noise on projections.
      disc: radius around 1 of static eigenvalues.
      damping: Tikhonov term of the operators.
    """

    width: int = 3
    noise: float = 0.1
    disc: float = 0.25
    damping: float = 0.1

    def build(self, encoder, framework, horizon):
        """Return the method's functions."""
        reject_framework("ByHand", framework)
        trunk = encoder.module()

        def init(key, clips, start=None):
            key_trunk, key_matrix = jax.random.split(key)
            variables = start or trunk.init(key_trunk, clips[:1, 0], False)
            matrix = jax.random.normal(key_matrix, (encoder.dim, self.width))
            moments = variables.get("batch_stats", {})
            return {"trunk": variables["params"], "matrix": matrix}, {"moments": moments}

        def loss(params, state, clips, key, step):
            def embed(moments, clips, context):
                variables = {"params": params["trunk"], "batch_stats": moments}
                flat = clips.reshape(-1, *clips.shape[2:])
                features, changed = trunk.apply(variables, flat, True, mutable=["batch_stats"])
                z = (features.clip @ params["matrix"]).reshape(len(clips), 2, -1)
                return changed.get("batch_stats", {}), z

            moments, z = embed_videos(embed, state["moments"], clips)
            z += self.noise * jax.random.normal(key, z.shape)
            value = nt_xent(z[:, 0], z[:, 1])
            return value, (moments, {"loss/pairs": value})

        def update(params, state, aux, step):
            return params, {"moments": aux}

        def select_encoder(params, state):
            return {"params": params["trunk"], "batch_stats": state["moments"]}

        def encode(params, state, clips):
            return trunk.apply(select_encoder(params, state), clips, False)

        def operators(params, state, clips):
            z = encode(params, state, clips).frames @ params["matrix"]
            past, future = z[:, :-1], z[:, 1:]
            return Operators(ridge_map(past, future, self.damping), self.disc)

        views = (View(0), View(1))
        return Method(views, init, loss, update, encode, select_encoder, operators)
