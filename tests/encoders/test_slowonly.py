import pytest

from tests.encoders.reference import count, shapes_of
from vrl_jax.encoders.slowonly import SlowOnly

CLIPS = (2, 8, 224, 224, 3)


def test_parameters_and_maps_of_slowonly_r50():
    features, variables = shapes_of(SlowOnly().module(), CLIPS)
    params = variables["params"]
    by_stage = [
        sum(count(part) for name, part in params.items() if name.startswith(prefix))
        for prefix in ("stem", "stage1", "stage2", "stage3", "stage4")
    ]
    assert by_stage == [9_536, 215_808, 1_219_584, 9_981_952, 20_207_616]
    assert count(params) == 31_634_496
    assert [stage.shape[1:] for stage in features.stages] == [
        (8, 56, 56, 64),
        (8, 56, 56, 256),
        (8, 28, 28, 512),
        (8, 14, 14, 1024),
        (8, 7, 7, 2048),
    ]
    assert features.clip.shape == (2, 2048) == (2, SlowOnly().dim)


def test_where_time_is_convolved_and_space_is_strided():
    params = shapes_of(SlowOnly().module(), CLIPS)[1]["params"]
    for stage, taps in enumerate((1, 1, 3, 3), start=1):
        block = params[f"stage{stage}_0"]
        assert block["first"]["conv"]["kernel"].shape[:3] == (taps, 1, 1)
        assert block["second"]["conv"]["kernel"].shape[:3] == (1, 3, 3)
        assert "shortcut" in block and "shortcut" not in params[f"stage{stage}_1"]


def test_bad_blocks_are_refused():
    with pytest.raises(ValueError, match="blocks must be 4 numbers of at least 1, got"):
        SlowOnly(blocks=(3, 4, 6))
