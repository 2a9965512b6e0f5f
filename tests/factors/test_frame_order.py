import numpy as np
import pytest

from vrl_jax.factors import frame_order
from vrl_jax.factors.frame_order import ViewFeatures
from vrl_jax.probes.linear_probe import LinearProbe

QUICK = LinearProbe(learning_rates=(0.1,), weight_decays=(0.001,), steps=60)


@pytest.mark.parametrize("frames, count, seed", [(3, 4, 0), (4, 22, 1), (16, 3, 2)])
def test_permutations_differ_and_none_is_forward_or_backward(frames, count, seed):
    orders = frame_order.draw_permutations(frames, count, seed)
    assert orders.shape == (count, frames)
    distinct = {tuple(row) for row in orders.tolist()}
    assert len(distinct) == count and all(sorted(row) == list(range(frames)) for row in distinct)
    assert not distinct & {tuple(range(frames)), tuple(range(frames))[::-1]}
    np.testing.assert_array_equal(orders, frame_order.draw_permutations(frames, count, seed))
    assert frames < 5 or not np.array_equal(
        orders, frame_order.draw_permutations(frames, count, seed + 1)
    )


def test_more_shuffles_than_there_are_is_refused():
    with pytest.raises(ValueError, match="3 frames have fewer than 5 shuffled orders"):
        frame_order.draw_permutations(3, 5, 0)


@pytest.mark.parametrize("frames", [5, 8])
def test_orders_by_name(frames, rng):
    clip = rng.integers(0, 256, (1, frames, 2, 2, 3), np.uint8)
    orders = frame_order.frame_orders(frames, 2, 0)
    assert set(orders) == {"ordered", "reversed", "frozen", "held", "shuffled 0", "shuffled 1"}
    assert orders["ordered"].tolist() == list(range(frames))
    assert orders["reversed"].tolist() == list(range(frames))[::-1]
    assert orders["held"].tolist() == [0, 0, 2, 2, 4, 4, 6, 6][:frames]
    frozen = frame_order.freeze_clips(clip)
    np.testing.assert_array_equal(frozen, clip[:, orders["frozen"]])
    for number in range(frames):
        np.testing.assert_array_equal(frozen[0, number], clip[0, frames // 2])


def test_comparison_as_by_loops(rng):
    labels, classes = rng.integers(0, 3, 40), ("a", "b", "c", "absent")
    names = ("ordered", "reversed", "frozen", "held", "shuffled 0", "shuffled 1")
    correct = {name: rng.random(40) < 0.6 for name in names}
    by_name = {
        result["name"]: result for result in frame_order.compare_orders(correct, labels, classes)
    }
    assert set(by_name) == {f"order/{name.split()[0]}" for name in names}
    for name in ("reversed", "frozen", "held", "shuffled"):
        parts = [correct[part] for part in names if part.startswith(name)]
        result, ordered = by_name[f"order/{name}"], by_name["order/ordered"]
        hits = sum(sum(part[i] for part in parts) / len(parts) for i in range(40))
        assert result["value"] == pytest.approx(hits / 40)
        assert result["drop"] == pytest.approx(correct["ordered"].sum() / 40 - hits / 40)
        for number, letter in enumerate("abc"):
            own = [i for i in range(40) if labels[i] == number]
            share = np.mean([part[i] for part in parts for i in own])
            assert result["per_class"][letter] == pytest.approx(share)
            fell = ordered["per_class"][letter] - share
            assert result["drop_per_class"][letter] == pytest.approx(fell)
        assert "absent" not in result["per_class"]
        assert result["chance"] == max(np.mean(labels == c) for c in range(3))


def bank(rng, videos, groups=3):
    label = np.arange(videos) % 2
    views = {
        name: (turn * (2 * label - 1)[:, None] + 0.1 * rng.normal(size=(videos, 3))).astype("f4")
        for name, turn in (("order/ordered", 1), ("order/reversed", -1))
    }
    who = np.arange(videos) % groups
    return ViewFeatures(views, {"class": label, "who": who}, np.zeros(videos, bool))


def test_a_probe_of_one_view_is_asked_about_all(rng):
    train, test = bank(rng, 30), bank(rng, 21)
    test.unreadable[3] = train.unreadable[5] = True
    train.views["order/ordered"][5] = np.nan
    views = ("order/ordered", "order/reversed")
    options = {"train_view": "order/ordered", "group": "", "settings": QUICK}
    predictions = frame_order.predict_views(train, test, "class", 2, views, **options)
    readable, labels = np.arange(21) != 3, test.labels["class"]
    np.testing.assert_array_equal(predictions["order/ordered"][readable], labels[readable])
    np.testing.assert_array_equal(predictions["order/reversed"][readable], 1 - labels[readable])
    assert predictions["order/ordered"][3] == predictions["order/reversed"][3] == -1


def test_a_left_out_group_is_not_learned_from(rng):
    whole = bank(rng, 24)
    other = whole.labels["who"] == 1
    whole.views["order/ordered"][other] *= -1  # one group is the other way round
    options = {"train_view": "order/ordered", "group": "who", "settings": QUICK}
    predictions = frame_order.predict_views(whole, whole, "class", 2, ("order/ordered",), **options)
    right = predictions["order/ordered"] == whole.labels["class"]
    assert not right[other].any()
    for train_mask, rows in frame_order.probe_folds(whole, whole, "who"):
        assert not set(whole.labels["who"][train_mask]) & set(whole.labels["who"][rows])
    with pytest.raises(ValueError, match="train must be test"):
        next(frame_order.probe_folds(bank(rng, 24), whole, "who"))
    with pytest.raises(ValueError, match="number of whos must be at least 3, got 2"):
        next(frame_order.probe_folds(*[bank(rng, 24, groups=2)] * 2, "who"))


def test_both_clips_of_a_video_lie_on_one_side_when_settings_are_chosen(rng, monkeypatch):
    train_groups = []
    probe = frame_order.linear_probe.fit_probe

    def watch(*args, groups, mask, **options):
        train_groups.append(groups[mask])
        return probe(*args, groups=groups, mask=mask, **options)

    monkeypatch.setattr(frame_order.linear_probe, "fit_probe", watch)
    train, test = bank(rng, 20), bank(rng, 12)
    train.unreadable[4] = test.unreadable[2] = True
    right = frame_order.arrow_of_time(train, test, group="", settings=QUICK)
    videos = np.delete(np.arange(20), 4)
    np.testing.assert_array_equal(train_groups[0], np.concatenate([videos, videos]))
    assert right.shape == (2, 12) and not right[:, 2].any()
