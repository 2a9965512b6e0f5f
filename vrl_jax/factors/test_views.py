"""One pass over a source encodes every view of its clips: shuffled, restyled, on stripes ..."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Shaped, UInt8

from vrl_jax.data.dataset import VideoDataset
from vrl_jax.factors import frame_order, pixel_baselines, scuba, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.probes.features import extract_features

Clips = UInt8[np.ndarray, "m t h w 3"]
Batch = Mapping[str, Any]
ClipView = Callable[[Clips], dict[str, Float[np.ndarray, "_ _"]]]


@dataclass(frozen=True)
class ViewExtractor:
    """Reads and encodes a source once.

    Attributes:
      encode: see `extract`.
      batches: a source's batches as `eval_batches` makes them, each host its own.
      rows: videos that all hosts encode at a time.
      hosts: that share the videos.
      seed: of shuffles, styles and backgrounds.
    """

    encode: Callable[[Clips], Float[np.ndarray, "_ d"]]
    batches: Callable[[VideoDataset], Iterable[Batch]]
    rows: int
    hosts: int
    seed: int

    def plain(self, source: VideoDataset) -> ViewFeatures:
        """Return the view "order/ordered" alone."""
        return self._read(source, lambda clips: {"order/ordered": self.encode(clips)})

    def train(self, source: VideoDataset) -> ViewFeatures:
        """Return the views that probes learn from: ordered, reversed and the floors."""
        return self._read(
            source,
            lambda clips: {
                "order/ordered": self.encode(clips),
                "order/reversed": self.encode(np.ascontiguousarray(clips[:, ::-1])),
                **self._floors(clips),
            },
        )

    def test(
        self,
        source: VideoDataset,
        permutations: int,
        masks: VideoDataset | None,
        watch: Callable[[Clips], None] | None,
    ) -> ViewFeatures:
        """Return all views of what is asked about.

        These are "order/..." as `order.orders` names them, "style/restyled", "floor/appearance" and
        "floor/motion"; with masks also "scuba/scuba" and "scuba/scufo" on stripes, both likewise on
        frames of other videos, "scuba-stills/...", and "mask/share", the masks' share of the clip.

        Args:
          source: the videos.
          permutations: shuffles.
          masks: masks of the videos, as videos.
          watch: is called with the clips of each batch.
        """

        def look(clips):
            if masks is not None:
                clips, mask, stills = np.split(clips, 3, axis=1)
            if watch:
                watch(clips)
            shown = frame_order.frame_orders(clips.shape[1], permutations, self.seed)
            views = {f"order/{name}": self.encode(clips[:, at]) for name, at in shown.items()}
            views["style/restyled"] = self.encode(_each(units.restyle_clip, clips, seed=self.seed))
            views |= self._floors(clips)
            if masks is not None:
                views |= self._on_other_backgrounds(clips, mask, stills)
            return views

        beside = () if masks is None else (masks, scuba.background_stills(source, self.seed))
        return self._read(source, look, *beside)

    def _on_other_backgrounds(self, clips: Clips, masks: Clips, stills: Clips):
        mask = masks[..., 0] > 127
        striped = _each(scuba.paste_on_stripes, clips, mask, seed=self.seed)
        moved = np.where(mask[..., None], clips, stills)
        return {
            "scuba/scuba": self.encode(striped),
            "scuba/scufo": self.encode(frame_order.freeze_clips(striped)),
            "scuba-stills/scuba": self.encode(moved),
            "scuba-stills/scufo": self.encode(frame_order.freeze_clips(moved)),
            "mask/share": self._of_all_hosts(mask.mean((1, 2, 3), dtype=np.float32)[:, None]),
        }

    def _floors(self, clips: Clips):
        return {
            "floor/appearance": self._of_all_hosts(pixel_baselines.appearance_pixels(clips)),
            "floor/motion": self._of_all_hosts(pixel_baselines.motion_pixels(clips)),
        }

    def _read(self, source: VideoDataset, look: ClipView, *beside: VideoDataset) -> ViewFeatures:
        """Encode a source; what is beside it is read too, and follows its clips in time."""
        widths: dict[str, int] = {}

        def encode(clips):
            views = look(clips)
            widths.update((name, view.shape[1]) for name, view in views.items())
            return np.concatenate(list(views.values()), axis=1)

        streams = [self.batches(each) for each in (source, *beside)]
        bank = extract_features(
            encode, _side_by_side(streams), source, rows=self.rows, hosts=self.hosts
        )
        parts = np.split(bank.features, np.cumsum(list(widths.values()))[:-1], axis=1)
        unreadable = bank.unreadable
        if self.hosts > 1:
            unreadable = multihost_utils.process_allgather(unreadable).any(0)
        return ViewFeatures(dict(zip(widths, parts, strict=True)), bank.labels, unreadable)

    def _of_all_hosts(self, rows: Shaped[np.ndarray, "m d"]) -> Shaped[np.ndarray, "_ d"]:
        """Return the hosts' rows, host after host, as `encode` does."""
        if self.hosts == 1:
            return rows
        return multihost_utils.process_allgather(rows, tiled=True)


def _side_by_side(streams: list[Iterable[Batch]]) -> Iterator[Batch]:
    """Join batches of the same videos along the clips' time; failures are those of the first."""
    for batches in zip(*streams, strict=True):
        clips = np.concatenate([batch["clips"] for batch in batches], axis=2)
        yield {**batches[0], "clips": clips}


def _each(change: Callable[..., np.ndarray], *arrays: np.ndarray, seed: int) -> Clips:
    """Change each clip by itself."""
    return np.stack([change(*parts, seed) for parts in zip(*arrays, strict=True)])
