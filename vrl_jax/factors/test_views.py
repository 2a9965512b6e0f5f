"""Features of all views of a dataset's clips in one pass: reordered, restyled, on stripes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Shaped, UInt8

from vrl_jax.data.video_dataset import VideoDataset
from vrl_jax.factors import frame_order, pixel_baselines, scuba, units
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.probes.feature_bank import extract_features, split_columns

Clips = UInt8[np.ndarray, "m t h w 3"]
Batch = Mapping[str, Any]
ViewFunction = Callable[[Clips], dict[str, Float[np.ndarray, "_ _"]]]


@dataclass(frozen=True)
class ViewExtractor:
    """Extraction of the features of several views in one pass over a dataset.

    Attributes:
      encode: see `extract_features`; tokens, then frame features may follow the features.
      batches: this host's batches of a dataset, as from `eval_batches`.
      rows: global batch size in videos.
      hosts: number of hosts that share the videos.
      seed: of permutations, styles and backgrounds.
      segments: of the pixel baseline that keeps the order of motion; 0 for none.
      parts: like `encode`, but to the embeddings of the method side by side; None for none.
      widths: width of each embedding, by name.
      tokens: width of the tokens; 0 for none.
      frames: width of the frame features; 0 for none.
    """

    encode: Callable[[Clips], Float[np.ndarray, "_ d"]]
    batches: Callable[[VideoDataset], Iterable[Batch]]
    rows: int
    hosts: int
    seed: int
    segments: int = 0
    parts: Callable[[Clips], Float[np.ndarray, "_ d"]] | None = None
    widths: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    frames: int = 0

    def extract_ordered(self, dataset: VideoDataset) -> ViewFeatures:
        """Return the views "order/ordered", "tokens/ordered" and "part/..." only."""
        return self._extract(dataset, self._ordered)

    def extract_train(self, dataset: VideoDataset) -> ViewFeatures:
        """Return the views that probes are trained on: ordered, reversed and pixel baselines."""
        return self._extract(
            dataset,
            lambda clips: {
                **self._ordered(clips),
                "order/reversed": self._encode(np.ascontiguousarray(clips[:, ::-1])),
                **self._pixel_baselines(clips),
            },
        )

    def extract_test(
        self,
        dataset: VideoDataset,
        permutations: int,
        masks: VideoDataset | None,
        callback: Callable[[Float[np.ndarray, "_ _"]], None] | None,
        conflict: bool = False,
    ) -> ViewFeatures:
        """Return all views of the test videos.

        These are "order/..." for the orders of `frame_order.frame_orders`, "tokens/ordered" and
        "part/..." for the tokens and the parts of ordered clips, "style/restyled",
        "floor/appearance" and "floor/motion" (pixel baselines). With masks also "scuba/scuba" and
        "scuba/scufo" on stripes, "scuba-stills/scuba" and "scuba-stills/scufo" on stills of other
        videos, "conflict/moving" with a second foreground, and "mask/share", the fraction of the
        clip that is foreground.

        Args:
          dataset: the test videos.
          permutations: number of shuffled orders.
          masks: masks of the videos, as videos.
          callback: called with the frame features of each batch of ordered clips.
          conflict: also make the clips with a second, still foreground, that of another video.
        """
        others = []
        if masks is not None:
            others = [masks, scuba.background_stills(dataset, self.seed)]
            others += [scuba.background_stills(masks, self.seed)] * conflict

        def make_views(clips):
            clips, *pasted = np.split(clips, 1 + len(others), axis=1)
            orders = frame_order.frame_orders(clips.shape[1], permutations, self.seed)
            del orders["ordered"]
            views = self._ordered(clips, callback)
            views |= {f"order/{name}": self._encode(clips[:, at]) for name, at in orders.items()}
            restyled = _map_clips(units.restyle_clip, clips, seed=self.seed)
            views["style/restyled"] = self._encode(restyled)
            views |= self._pixel_baselines(clips)
            return views | self._on_other_backgrounds(clips, *pasted) if pasted else views

        return self._extract(dataset, make_views, *others)

    def _encode(self, clips: Clips) -> Float[np.ndarray, "_ d"]:
        """Return the features only."""
        return self.encode(clips)[:, : -(self.tokens + self.frames) or None]

    def _ordered(self, clips: Clips, callback: Callable[..., None] | None = None):
        """Return the features, the tokens and the parts of ordered clips."""
        encoded = self.encode(clips)
        stop = encoded.shape[1] - self.frames
        views = {"order/ordered": encoded[:, : stop - self.tokens]}
        if self.tokens:
            views["tokens/ordered"] = encoded[:, stop - self.tokens : stop]
        if callback:
            callback(encoded[:, stop:])
        if self.parts is None:
            return views
        parts = split_columns(self.parts(clips), self.widths)
        return views | {f"part/{name}": part for name, part in parts.items()}

    def _on_other_backgrounds(
        self, clips: Clips, masks: Clips, stills: Clips, still_masks: Clips | None = None
    ):
        foreground = masks[..., 0] > 127
        on_stripes = _map_clips(scuba.paste_on_stripes, clips, foreground, seed=self.seed)
        on_stills = np.where(foreground[..., None], clips, stills)
        share = foreground.mean((1, 2, 3), dtype=np.float32)[:, None]
        conflict = {}
        if still_masks is not None:
            second = ~foreground & (still_masks[..., 0] > 127)
            conflicting = np.where(second[..., None], stills, on_stripes)
            conflict = {"conflict/moving": self._encode(conflicting)}
        return {
            "scuba/scuba": self._encode(on_stripes),
            "scuba/scufo": self._encode(frame_order.freeze_clips(on_stripes)),
            "scuba-stills/scuba": self._encode(on_stills),
            "scuba-stills/scufo": self._encode(frame_order.freeze_clips(on_stills)),
            **conflict,
            "mask/share": self._gather(share),
        }

    def _pixel_baselines(self, clips: Clips):
        baselines = {
            "floor/appearance": pixel_baselines.appearance_pixels(clips),
            "floor/motion": pixel_baselines.motion_pixels(clips),
        }
        if self.segments:
            ordered = pixel_baselines.ordered_motion_pixels(clips, self.segments)
            baselines["floor/ordered motion"] = ordered
        return {name: self._gather(pixels) for name, pixels in baselines.items()}

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
        unreadable = bank.unreadable
        if self.hosts > 1:
            unreadable = multihost_utils.process_allgather(unreadable).any(0)
        return ViewFeatures(split_columns(bank.features, widths), bank.labels, unreadable)

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
