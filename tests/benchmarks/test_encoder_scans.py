from benchmarks import encoder_scans
from vrl_jax.report.scan_card import LayerResult, ScanCard


def make_card(name, motion):
    values = dict.fromkeys(encoder_scans.COLUMNS.values(), 0.25) | {encoder_scans.MOTION: motion}
    results = [LayerResult("last", *key, False, value, "top1") for key, value in values.items()]
    results += [LayerResult("first", *key, False, 1.0, "top1") for key in values]
    return ScanCard(name, {}, {}, {}, {}, ["first", "last"], {}, results)


def test_the_table_has_the_last_layer_of_each_encoder_the_best_on_motion_first():
    table = encoder_scans.make_table([make_card("a", 0.5), make_card("b", 0.75)])
    assert table.splitlines()[2:] == [
        "| b | 0.250 | 0.750 | 0.250 | 0.250 | 0.250 | 0.250 |",
        "| a | 0.250 | 0.500 | 0.250 | 0.250 | 0.250 | 0.250 |",
    ]


def test_encoders_have_names_of_their_own():
    names = [type(encoder).__name__ for encoder in encoder_scans.ENCODERS]
    assert len(set(names)) == len(names) == 14
