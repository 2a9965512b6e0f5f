"""Weighted mixtures of data sets."""

import collections
import dataclasses
import math

import numpy as np
import pytest

from configs import synthetic_bod
from tests.data.datasets.test_record_shards import write_tar
from tests.data.video.test_video_decoder import read_numbers, write_clip
from vrl_jax import config, config_help
from vrl_jax.data.data_loader import Loader, failed_videos, train_batches
from vrl_jax.data.datasets import dataset_lookup
from vrl_jax.data.datasets.mixture import Mixture, Share, VideoMixture
from vrl_jax.data.datasets.synthetic import Synthetic
from vrl_jax.data.datasets.tar_shards import WebDataset
from vrl_jax.data.datasets.video_folders import ClassFolders, ListFile
from vrl_jax.data.frame_sampling import Sampling
from vrl_jax.data.loading.mixture_order import MixtureOrder
from vrl_jax.data.video.video_decoder import VideoFile
from vrl_jax.data.video_dataset import Splits, Video, VideoList, fingerprint

SAMPLING, SIZE, BATCH = Sampling(frames=3, stride=4, clips=1), (16, 32), 5


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Folders, a tar and a list of 3, 2 and 4 videos that tell their number, from 0 to 8."""
    root = tmp_path_factory.mktemp("sets")
    for folder in ("folders/train/run", "list", "tar"):
        (root / folder).mkdir(parents=True)
    paths = [root / f"folders/train/run/{n}.mp4" for n in range(3)]
    paths += [root / f"tar/{n}.mp4" for n in (3, 4)] + [root / f"list/{n}.mp4" for n in range(5, 9)]
    for number, path in enumerate(paths):
        write_clip(path, frames=20, video=number)
    write_tar(root / "x.tar", **{f"{n}.mp4": paths[n].read_bytes() for n in (3, 4)})
    (root / "list.txt").write_text("".join(f"{n}.mp4\n" for n in range(5, 9)))
    return Mixture(
        (
            Share(ClassFolders(str(root / "folders")), 0.5, stride=1),
            Share(WebDataset(str(root / "x.tar")), 0.2, name="tars", stride=2, layout="centred"),
            Share(ListFile(str(root / "list"), str(root / "list.txt")), 0.3),
        )
    )


def take(source, count, **options):
    rows = train_batches(source, SAMPLING, SIZE, batch=BATCH, seed=3, **options)
    try:
        return [next(rows) for _ in range(count)]
    finally:
        rows.close()


def test_it_is_a_data_set_without_labels(mixture):
    assert isinstance(mixture, Splits)
    source = mixture.pretrain()
    assert len(source) == 9 and source.classes == {} and source.mirror_safe
    ids = [source[number].id for number in range(9)]
    assert ids[0] == "ClassFolders/run/0.mp4" and ids[3] == "tars/x.tar/3"
    assert [source.find_part(number)[0] for number in range(9)] == [0] * 3 + [1] * 2 + [2] * 4
    assert source.find_part(4) == (1, 3, 5) and source[8].labels == {}
    for index in (9, -1):
        with pytest.raises(IndexError):
            source[index]
    assert mixture.train().classes == {"class": ("run",)}  # of the first
    assert fingerprint(source) != fingerprint(Mixture(mixture.shares[:2]).pretrain())


def test_draws_follow_the_weights_and_every_part_has_its_epochs(mixture):
    source = mixture.pretrain()
    order, draws = MixtureOrder(source, 7), 40
    videos = [order[position] for position in range(draws)]
    parts = [source.find_part(video)[0] for video in videos]
    for count in (0, 1, 37, draws):
        drawn = collections.Counter(parts[:count])
        assert [*source.count_draws(count).values()] == [drawn[number] for number in range(3)]
        assert (
            np.abs(np.array([drawn[n] for n in range(3)]) - count * np.array([0.5, 0.2, 0.3])).max()
            < 2
        )
    for number, size in enumerate((3, 2, 4)):
        own = [video for video, part in zip(videos, parts, strict=True) if part == number]
        epochs = [tuple(own[at : at + size]) for at in range(0, len(own) - size + 1, size)]
        assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(sorted(epochs[0]))}
        assert len(epochs[0]) == size == len(set(epochs[0])) and len(set(epochs)) > 1
    other = MixtureOrder(source, 8)
    assert (
        any(videos[p] != other[p] for p in range(20)) and MixtureOrder(source, 7)[39] == videos[39]
    )


def test_batches_are_a_function_of_seed_and_step(mixture):
    source = mixture.pretrain()
    whole = take(source, 4)
    for batch in whole:
        frames, videos = read_numbers(batch["clips"])
        assert (videos == batch["index"][:, None, None]).all()
        strides = np.array([1, 2, 4])[[source.find_part(n)[0] for n in batch["index"].tolist()]]
        inside = (frames > 0) & (frames < 19)  # "centred" repeats the edges
        steps = np.diff(frames)[:, 0]
        assert (steps == strides[:, None])[inside[:, 0, 1:] & inside[:, 0, :-1]].all()
    resumed = take(source, 2, start=2, loader=Loader(workers=1))
    hosts = [take(source, 2, host=host, hosts=BATCH) for host in range(BATCH)]
    for key in ("clips", "index"):
        for batch, again in zip(whole[2:], resumed, strict=True):
            np.testing.assert_array_equal(batch[key], again[key])
        for batch, *rows in zip(whole[:2], *hosts, strict=True):
            np.testing.assert_array_equal(batch[key], np.concatenate([row[key] for row in rows]))


def test_an_unreadable_video_is_replaced_from_its_own_set(mixture, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    source = mixture.pretrain()
    bad = Video("bad", VideoFile(str(tmp_path / "bad.mp4")), {})
    parts = (source.parts[0], VideoList((source.parts[1][0], bad), {}), source.parts[2])
    damaged = VideoMixture(source.shares, parts)
    failures = 0
    for batch, whole in zip(take(damaged, 6), take(source, 6), strict=True):
        moved = whole["index"] == 4
        failures += len(failed_videos(batch))
        assert (batch["index"][moved] == 3).all()
        np.testing.assert_array_equal(batch["clips"][~moved], whole["clips"][~moved])
    assert failures > 1


def test_it_is_part_of_a_config(mixture):
    described = synthetic_bod.get_config()
    described.data = config.describe(mixture)
    described.data.shares["1"].weight = 0.4
    described.data.shares["1"].data.train_shards = "/data/x.tar"
    experiment = config.build(described)
    assert experiment.data.shares[1] == dataclasses.replace(
        mixture.shares[1], weight=0.4, data=WebDataset("/data/x.tar")
    )
    assert config.build(
        config.run_identity(experiment) | {"loader": config.describe(Loader()).to_dict()}
    )
    text = config_help.explain_config(experiment)
    assert "config.data.shares.1.weight" in text and "config.data.shares.2.data.root" in text
    del described.data.shares["0"]
    with pytest.raises(ValueError, match=r"config.data.shares must be numbered 0 to 1, got 1, 2"):
        config.build(described)


def test_what_would_be_lost_or_endless_is_refused():
    parts = (VideoList((), {}), VideoList((), {}, reverse_safe=False))
    assert not VideoMixture((), parts).reverse_safe and VideoMixture((), parts[:1]).reverse_safe
    with pytest.raises(ValueError, match="weight must be finite"):
        Share(Synthetic(), math.inf)
    for text, message in (
        ("Mixture Synthetic", "must not be a mixture: list its data sets"),
        ("", "a data set must be 'NAME key=value ...', got ''"),
        ("Synthetic 'name", "is not a data set: No closing quotation"),
        ("NoiseMotion data=", "a data set must be 'NAME key=value ...', got ''"),
    ):
        with pytest.raises(ValueError, match=message):
            dataset_lookup.build_dataset("Mixture", [text])


def test_it_is_built_on_the_command_line():
    data = dataset_lookup.build_dataset(
        "Mixture",
        ["Synthetic pretrain_videos=9 weight=2", "ClassFolders root='/a b' name=own fps=8"],
    )
    assert data == Mixture(
        (Share(Synthetic(pretrain_videos=9), 2.0), Share(ClassFolders("/a b"), name="own", fps=8.0))
    )
    with pytest.raises(ValueError, match="weight='x' has the wrong type: the fields of Share"):
        dataset_lookup.build_dataset("Mixture", ["Synthetic weight=x"])
    with pytest.raises(ValueError, match="Synthetic has no field 'colour'"):
        dataset_lookup.build_dataset("Mixture", ["Synthetic colour=1"])
    with pytest.raises(ValueError, match="a mixture needs data sets"):
        dataset_lookup.build_dataset("Mixture", []).pretrain()
    with pytest.raises(ValueError, match="need distinct names, got Synthetic, Synthetic"):
        Mixture((Share(Synthetic()), Share(Synthetic()))).pretrain()
    with pytest.raises(ValueError, match="weight must be above 0"):
        Share(Synthetic(), 0.0)
