"""Views of supervised training: the strong augmentation around that of `Augment`."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key, UInt8

from vrl_jax import check
from vrl_jax.augment.clip_views import Augment, make_views
from vrl_jax.augment.rand_augment import parse_policy, rand_augment
from vrl_jax.augment.random_erasing import erase_box
from vrl_jax.types import View


@dataclass(frozen=True)
class StrongAugment:
    """What published fine-tuning adds to crops and flips; nothing by default.

    Attributes:
      views: views of each decoded clip, augmented independently; more than one is "repeated
        augmentation" (arXiv 1901.09335), which reads no more videos.
      rand: RandAugment of the decoded frames, see `vrl_jax.augment.rand_augment.parse_policy`, such
        as "rand-m7-n4-mstd0.5-inc1"; "" for none.
      erase: probability of erasing a box of a normalised view.
    """

    views: int = 1
    rand: str = ""
    erase: float = 0.0

    def __post_init__(self):
        check.at_least(1, views=self.views)
        check.fraction(erase=self.erase)
        if self.rand:
            parse_policy(self.rand)


NO_STRONG = StrongAugment()


def make_training_views(
    key: Key[Array, ""],
    strong_key: Key[Array, ""],
    clips: UInt8[Array, "b k t h w 3"],
    augment: Augment,
    strong: StrongAugment,
    mesh: Mesh,
    rows: Int[Array, " b"],
) -> Float[Array, "b v t s s 3"]:
    """Return the views of every video: first one of each of its clips, then the next one of each.

    The random parameters of a view depend on the keys and on its row in the global batch alone.

    Args:
      key: of `make_views`.
      strong_key: of the strong augmentation.
      clips: the k clips decoded from each of b videos.
      augment: crop, flip, colours and normalisation.
      strong: RandAugment before that, random erasing after it.
      mesh: devices; the videos are split over them.
      rows: of the videos in the global batch.
    """
    clips = jnp.concatenate([clips] * strong.views, axis=1)
    count = clips.shape[1]

    def keys_of(row: Array) -> Array:
        return jax.random.split(jax.random.fold_in(strong_key, row), 2 * count).reshape(2, count)

    keys = jax.vmap(keys_of)(rows)
    if strong.rand:
        policy = parse_policy(strong.rand)

        def randomize(keys: Array, clips: Array) -> Array:
            """Augment one clip after the other, so that only the drawn operations are computed."""
            flat = keys.reshape(-1), clips.reshape(-1, *clips.shape[2:])
            augmented = jax.lax.map(lambda each: rand_augment(*each, policy), flat)
            return augmented.reshape(clips.shape)

        split = PartitionSpec(mesh.axis_names)
        clips = jax.shard_map(randomize, mesh=mesh, in_specs=split, out_specs=split)(
            keys[:, 0], clips
        )
    views = make_views(key, clips, tuple(View(number) for number in range(count)), augment, rows)
    if strong.erase:
        erase = jax.vmap(jax.vmap(lambda key, view: erase_box(key, view, strong.erase)))
        views = erase(keys[:, 1], views)
    return views
