import numpy as np
import pytest

from vrl_jax.probes.feature_bank import FeatureBank
from vrl_jax.probes.leakage import measure_response, measure_responses, probe_parts, split_bank
from vrl_jax.probes.linear_probe import LinearProbe
from vrl_jax.probes.probe_suite import ProbeSuite

QUICK = ProbeSuite(ks=(1,), knn=1, linear=LinearProbe((0.1,), (0.001,), steps=50))
CLASSES = {"static": ("a", "b"), "dynamic": ("x", "y")}
WIDTHS = {"dynamic": 3, "static": 2}


@pytest.fixture
def bank(rng):
    """Parts that each hold their own label, and a unreadable video."""
    labels = {name: rng.integers(0, 2, 60) for name in CLASSES}
    parts = [rng.normal(size=(60, WIDTHS[name])) + 8 * labels[name][:, None] for name in WIDTHS]
    unreadable = np.arange(60) == 7
    return FeatureBank(np.concatenate(parts, 1).astype(np.float32), labels, unreadable)


def test_every_label_is_read_from_every_part(bank):
    parts = split_bank(bank, WIDTHS)
    assert [part.features.shape[1] for part in parts.values()] == [3, 2]
    results = probe_parts(parts, parts, CLASSES, QUICK, {"commit": "c"})
    values = {(r["name"], r["label"]): r["value"] for r in results}
    assert len(values) == 4 and all(r["commit"] == "c" for r in results)
    for part in WIDTHS:
        assert values[f"leakage/{part}", part] > 0.95
        other = next(name for name in WIDTHS if name != part)
        assert values[f"leakage/{part}", other] < 0.8


def test_the_response_is_none_for_what_stays_and_one_for_another_video(bank, rng):
    videos = split_bank(bank._replace(features=rng.normal(size=(60, 5))), WIDTHS)
    features = videos["dynamic"].features
    other = rng.permutation(features)
    twins = {**videos, "dynamic": videos["dynamic"]._replace(features=other)}
    results = {r["name"]: r for r in measure_responses(videos, {"motion": twins})}
    static, dynamic = results["response/static"], results["response/dynamic"]
    assert (static["value"], static["label"]) == (0, "motion")
    assert dynamic["value"] == pytest.approx(1, abs=0.2)
    for scale in (10, 0.1):  # of both, or of the change alone
        changed = features + 0.1 * (other - features) if scale < 1 else 10 * other
        part = features if scale < 1 else 10 * features
        response = measure_response(part, changed, ~bank.unreadable)
        assert response == pytest.approx(dynamic["value"] * min(scale, 1), rel=1e-5)
