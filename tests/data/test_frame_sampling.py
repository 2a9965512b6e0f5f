from dataclasses import replace

import numpy as np
import pytest

from vrl_jax.data.frame_sampling import Sampling, random_clips, uniform_clips, window_starts


def expected_clip(start, num_frames, step, frames):
    clip = []
    for j in range(frames):
        clip.append(min(start + int(np.floor(j * step + 0.5)), num_frames - 1))
    return clip


@pytest.mark.parametrize(
    ("num_frames", "fps", "sampling", "step"),
    [
        (300, 30.0, Sampling(frames=16, stride=4, clips=3), 4),
        (61, 30.0, Sampling(frames=16, stride=4, clips=2), 4),
        (40, 25.0, Sampling(frames=8, stride=1, clips=5), 1),
        (90, 15.0, Sampling(frames=8, stride=4, clips=4, fps=30.0), 2.0),
        (200, 50.0, Sampling(frames=7, stride=2, clips=2, fps=12.0), 2 * 50 / 12),
        (30, 6.0, Sampling(frames=9, stride=1, clips=2, fps=24.0), 0.25),
    ],
)
def test_clips_step_by_the_stride_from_starts_where_they_fit(rng, num_frames, fps, sampling, step):
    span = int(np.floor((sampling.frames - 1) * step + 0.5)) + 1
    last = num_frames - span
    clips = random_clips(rng, num_frames, fps, sampling)
    assert clips.dtype == np.int32 and clips.shape == (sampling.clips, sampling.frames)
    for clip in clips:
        assert 0 <= clip[0] <= last
        assert clip.tolist() == expected_clip(clip[0], num_frames, step, sampling.frames)
    spaced = uniform_clips(num_frames, fps, sampling)
    assert spaced.dtype == np.int32 and spaced.shape == clips.shape
    assert spaced[0, 0] == 0 and spaced[-1, 0] == last and spaced[-1, -1] == num_frames - 1
    gaps = np.diff(spaced[:, 0])
    assert gaps.max() - gaps.min() <= 1
    for clip in spaced:
        assert clip.tolist() == expected_clip(clip[0], num_frames, step, sampling.frames)


def test_random_starts_are_uniform_and_independent(rng):
    sampling = Sampling(frames=4, stride=2, clips=2)
    starts = np.stack([random_clips(rng, 11, 25.0, sampling)[:, 0] for _ in range(5000)])
    counts = np.zeros((5, 5))
    for first, second in starts:
        counts[first, second] += 1
    assert counts.sum() == 5000  # starts are 0 to 4
    assert np.abs(counts / 5000 - 1 / 25).max() < 0.012  # four standard deviations


def test_one_uniform_clip_is_central():
    clip = uniform_clips(100, 25.0, Sampling(frames=11, stride=2, clips=1))
    assert clip[0, 0] == 39 + 0 and 99 - clip[0, -1] in (39, 40)


@pytest.mark.parametrize("num_frames", [1, 5, 60])
def test_a_short_video_repeats_its_last_frame(rng, num_frames):
    sampling = Sampling(frames=16, stride=4, clips=3)
    expected = [expected_clip(0, num_frames, 4, 16)] * 3
    assert random_clips(rng, num_frames, 30.0, sampling).tolist() == expected
    assert uniform_clips(num_frames, 30.0, sampling).tolist() == expected


@pytest.mark.parametrize(
    ("num_frames", "frames", "stride"), [(146, 16, 1), (90, 8, 3), (15, 16, 1)]
)
def test_windows_are_all_that_fit_and_never_overlap(num_frames, frames, stride):
    used, expected, at = set(), [], 0
    while at + (frames - 1) * stride < num_frames:
        expected.append(at)
        at += frames * stride
    starts = window_starts(num_frames, frames, stride)
    assert list(starts) == expected
    for start in starts:
        window = {start + j * stride for j in range(frames)}
        assert not window & used and max(window) < num_frames
        used |= window


def test_what_cannot_be_sampled_is_refused(rng):
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        Sampling(stride=0)
    with pytest.raises(ValueError, match="fps must be at least 0"):
        Sampling(fps=-1.0)
    with pytest.raises(ValueError, match="the video's fps must be above 0"):
        random_clips(rng, 10, 0.0, Sampling(fps=25.0))
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        uniform_clips(0, 25.0, Sampling())


def test_centred_clips_repeat_the_edges():
    class Centre(np.random.Generator):
        def integers(self, low, high, size):
            assert (low, high) == (0, 100)
            return np.array([3, 99])

    clips = random_clips(
        Centre(np.random.PCG64()), 100, 30.0, Sampling(frames=16, stride=4, layout="centred")
    )
    assert clips[0].tolist() == [0] * 8 + [3, 7, 11, 15, 19, 23, 27, 31]
    assert clips[1].tolist() == [67, 71, 75, 79, 83, 87, 91, 95] + [99] * 8


def test_ten_clips_of_a_short_video_all_start_at_its_beginning():
    clips = uniform_clips(20, 30.0, Sampling(frames=16, stride=2, clips=10))
    assert clips.shape == (10, 16) and (clips[:, 0] == 0).all() and clips.max() == 19


@pytest.mark.parametrize("num_frames, greatest", [(400, 3.0), (48, 1.5), (20, 1.0)])
def test_adjacent_clips_follow_each_other_at_one_drawn_rate(rng, num_frames, greatest):
    sampling = Sampling(frames=16, stride=1, clips=2, layout="adjacent", max_stride=3.0)
    rates = []
    for _ in range(200):
        first, second = random_clips(rng, num_frames, 25.0, sampling)
        whole = np.concatenate([first, second])
        assert whole.dtype == np.int32 and 0 <= whole.min() and whole.max() <= num_frames - 1
        if num_frames >= 32:
            steps = np.diff(whole)
            rates.append((whole[-1] - whole[0]) / 31)
            assert steps.max() - steps.min() <= 1  # one rate throughout, across the seam as well
    if rates:
        assert 1.0 <= min(rates) < 1.0 + 0.2 * (greatest - 1) + 0.05
        assert greatest - 0.2 * (greatest - 1) - 0.05 < max(rates) <= greatest + 0.05


def test_unknown_layouts_are_refused():
    with pytest.raises(ValueError, match="layout must be one of 'independent', 'centred'"):
        Sampling(layout="dense")
    with pytest.raises(ValueError, match="max_stride needs layout=.adjacent., got .independent."):
        Sampling(max_stride=2.0)


@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 100])
def test_segments_give_one_frame_each(rng, num_frames):
    sampling = Sampling(frames=8, stride=99, clips=3, layout="segments")
    frames_of = [set() for _ in range(8)]
    for _ in range(400):
        for clip in random_clips(rng, num_frames, 25.0, sampling):
            for segment, frame in enumerate(clip):
                frames_of[segment].add(int(frame))
    for segment in range(8):
        first = int(np.floor(segment * num_frames / 8))
        past = int(np.ceil((segment + 1) * num_frames / 8))
        assert frames_of[segment] == set(range(first, past))
    middle = uniform_clips(num_frames, 25.0, Sampling(8, 99, 1, layout="segments"))[0]
    assert middle.tolist() == [int((segment + 0.5) * num_frames / 8) for segment in range(8)]
    first, _, last = uniform_clips(num_frames, 25.0, sampling)
    assert first.tolist() == [segment * num_frames // 8 for segment in range(8)]
    assert last.tolist() == [-(-(segment + 1) * num_frames // 8) - 1 for segment in range(8)]
    early = replace(sampling, clips=2, reach_end=False)  # as VideoMAE: start and middle
    start, half = uniform_clips(num_frames, 25.0, early)
    assert start.tolist() == first.tolist() and half.tolist() == middle.tolist()


def test_centred_clips_are_judged_where_dualvar_does():
    sampling = Sampling(frames=16, stride=2, clips=10, layout="centred")
    starts = uniform_clips(100, 25.0, sampling)[:, 0]
    assert starts.tolist() == [0, 7, 15, 22, 30, 37, 45, 52, 60, 68]
    short = uniform_clips(20, 25.0, sampling)
    assert (short == np.minimum(np.arange(16) * 2, 19)).all()


def test_test_clips_of_the_large_scale_study_do_not_reach_the_end():
    sampling = Sampling(frames=8, stride=9, clips=10, fps=30.0, reach_end=False)
    clips = uniform_clips(300, 30.0, sampling)
    assert clips[:, 0].tolist() == [0, 23, 47, 70, 94, 118, 141, 165, 188, 212]
    assert (clips[:, -1] - clips[:, 0] == 63).all()
    assert uniform_clips(300, 30.0, replace(sampling, reach_end=True))[-1, -1] == 299
    assert not uniform_clips(300, 30.0, replace(sampling, clips=1))[0, 0]
