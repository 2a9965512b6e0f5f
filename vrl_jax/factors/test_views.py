"""Features of all views of a dataset's clips in one pass: reordered, restyled, on stripes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Shaped, UInt8

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.factors import frame_order, pixel_baselines, scuba, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.probes.feature_bank import extract_features

Clips = UInt8[np.ndarray, "m t h w 3"]
Batch = Mapping[str, Any]
ViewFunction = Callable[[Clips], dict[str, Float[np.ndarray, "_ _"]]]


@dataclass(frozen=True)
class ViewExtractor:
    """Extraction of the features of several views in one pass over a dataset.

    Attributes:
      encode: see `extract_features`.
      batches: this host's batches of a dataset, as from `eval_batches`.
      rows: global batch size in videos.
      hosts: number of hosts that share the videos.
      seed: of permutations, styles and backgrounds.
    """

    encode: Callable[[Clips], Float[np.ndarray, "_ d"]]
    batches: Callable[[VideoDataset], Iterable[Batch]]
    rows: int
    hosts: int
    seed: int

    def extract_ordered(self, dataset: VideoDataset) -> ViewFeatures:
        """Return the view "order/ordered" only."""
        return self._extract(dataset, lambda clips: {"order/ordered": self.encode(clips)})

    def extract_train(self, dataset: VideoDataset) -> ViewFeatures:
        """Return the views that probes are trained on: ordered, reversed and pixel baselines."""
        return self._extract(
            dataset,
            lambda clips: {
                "order/ordered": self.encode(clips),
                "order/reversed": self.encode(np.ascontiguousarray(clips[:, ::-1])),
                **self._pixel_baselines(clips),
            },
        )

    def extract_test(
        self,
        dataset: VideoDataset,
        permutations: int,
        masks: VideoDataset | None,
        callback: Callable[[Clips], None] | None,
    ) -> ViewFeatures:
        """Return all views of the test videos.

        These are "order/..." for the orders of `frame_order.frame_orders`, "style/restyled",
        "floor/appearance" and "floor/motion" (pixel baselines). With masks also "scuba/scuba" and
        "scuba/scufo" on stripes, "scuba-stills/scuba" and "scuba-stills/scufo" on stills of other
        videos, and "mask/share", the fraction of the clip that is foreground.

        Args:
          dataset: the test videos.
          permutations: number of shuffled orders.
          masks: masks of the videos, as videos.
          callback: called with the clips of each batch.
        """

        def make_views(clips):
            if masks is not None:
                clips, mask, stills = np.split(clips, 3, axis=1)
            if callback:
                callback(clips)
            orders = frame_order.frame_orders(clips.shape[1], permutations, self.seed)
            views = {f"order/{name}": self.encode(clips[:, at]) for name, at in orders.items()}
            restyled = _map_clips(units.restyle_clip, clips, seed=self.seed)
            views["style/restyled"] = self.encode(restyled)
            views |= self._pixel_baselines(clips)
            if masks is not None:
                views |= self._on_other_backgrounds(clips, mask, stills)
            return views

        if masks is None:
            return self._extract(dataset, make_views)
        return self._extract(
            dataset, make_views, masks, scuba.background_stills(dataset, self.seed)
        )

    def _on_other_backgrounds(self, clips: Clips, masks: Clips, stills: Clips):
        foreground = masks[..., 0] > 127
        on_stripes = _map_clips(scuba.paste_on_stripes, clips, foreground, seed=self.seed)
        on_stills = np.where(foreground[..., None], clips, stills)
        share = foreground.mean((1, 2, 3), dtype=np.float32)[:, None]
        return {
            "scuba/scuba": self.encode(on_stripes),
            "scuba/scufo": self.encode(frame_order.freeze_clips(on_stripes)),
            "scuba-stills/scuba": self.encode(on_stills),
            "scuba-stills/scufo": self.encode(frame_order.freeze_clips(on_stills)),
            "mask/share": self._gather(share),
        }

    def _pixel_baselines(self, clips: Clips):
        return {
            "floor/appearance": self._gather(pixel_baselines.appearance_pixels(clips)),
            "floor/motion": self._gather(pixel_baselines.motion_pixels(clips)),
        }

    def _extract(
        self, dataset: VideoDataset, make_views: ViewFunction, *others: VideoDataset
    ) -> ViewFeatures:
        """Encode a dataset; clips of the other datasets follow its clips along the time axis."""
        widths: dict[str, int] = {}

        def encode(clips):
            views = make_views(clips)
            widths.update((name, view.shape[1]) for name, view in views.items())
            return np.concatenate(list(views.values()), axis=1)

        streams = [self.batches(each) for each in (dataset, *others)]
        bank = extract_features(
            encode, _concatenate_clips(streams), dataset, rows=self.rows, hosts=self.hosts
        )
        parts = np.split(bank.features, np.cumsum(list(widths.values()))[:-1], axis=1)
        unreadable = bank.unreadable
        if self.hosts > 1:
            unreadable = multihost_utils.process_allgather(unreadable).any(0)
        return ViewFeatures(dict(zip(widths, parts, strict=True)), bank.labels, unreadable)

    def _gather(self, rows: Shaped[np.ndarray, "m d"]) -> Shaped[np.ndarray, "_ d"]:
        """Return the rows of all hosts, host after host, as `encode` does."""
        if self.hosts == 1:
            return rows
        return multihost_utils.process_allgather(rows, tiled=True)


def _concatenate_clips(streams: list[Iterable[Batch]]) -> Iterator[Batch]:
    """Join batches of the same videos along the time axis, with the failures of the first."""
    for batches in zip(*streams, strict=True):
        clips = np.concatenate([batch["clips"] for batch in batches], axis=2)
        yield {**batches[0], "clips": clips}


def _map_clips(change: Callable[..., np.ndarray], *arrays: np.ndarray, seed: int) -> Clips:
    """Apply a function of one clip to each clip."""
    return np.stack([change(*parts, seed) for parts in zip(*arrays, strict=True)])
