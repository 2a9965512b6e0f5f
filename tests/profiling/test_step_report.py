"""The verdict both ways, with numbers that can be checked, and flags that help."""

import dataclasses

from vrl_jax.profiling.hlo_costs import Layouts
from vrl_jax.profiling.step_report import GIB, StepReport, format_report, format_verdict
from vrl_jax.profiling.xla_costs import Collective, Costs, Memory, Times

REPORT = StepReport(
    chips=8,
    kind="TPU v5 lite",
    batch=128,
    microbatch=0,
    dtype="bfloat16",
    remat=None,
    state=GIB,
    memory=Memory(arguments=2 * GIB, outputs=0, temporaries=7 * GIB - GIB // 2, code=GIB // 2),
    capacity=12.0 * GIB,
    seconds=12.3,
    costs=Costs(2e12, 3e9, (Collective("all-reduce", 4, 5e6, 8.75e6),)),
    times=Times(compute=0.010, memory=0.004, communication=0.002),
)


def verdict(**changes):
    return format_verdict(dataclasses.replace(REPORT, **changes))


def test_a_step_that_fits():
    # 8 GiB for 16 videos beside a state of 1 GiB: 11 GiB hold 22
    text = "Fits: 3.00 of 12.00 GiB are free. About 22 videos per chip would fit"
    assert verdict() == f"{text}, --config.train.batch=176."
    assert verdict(microbatch=32) == "Fits: 3.00 of 12.00 GiB are free."


def test_a_step_that_does_not_fit():
    text = verdict(capacity=5.0 * GIB)  # 4 GiB hold 8 of the 16
    assert text.startswith("Does not fit: exceeds the 5.00 GiB of a chip by 4.00 GiB.\nOptions: ")
    assert (
        "--config.train.batch=64 (about 8 videos per chip), or 16 chips for the same batch" in text
    )
    assert "encoder" not in text and "Options: --config.train.microbatch=64 (at" in text
    text = verdict(capacity=5.0 * GIB, microbatch=64)
    assert "Options: a smaller --config.train.microbatch, or a smaller --config.train.batch" in text
    assert "--config.encoder.dtype=bfloat16, or" in verdict(capacity=5.0 * GIB, dtype="float32")
    assert "Options: --config.encoder.remat=True, or" in verdict(capacity=5.0 * GIB, remat=False)
    assert "remat" not in verdict(capacity=5.0 * GIB, remat=True)
    assert "32 chips" in verdict(capacity=4.9 * GIB)  # 7 videos a chip are fewer than half
    assert "not one video fits" in verdict(capacity=0.5 * GIB)


def test_what_could_not_be_compiled_does_not_fit():
    text = verdict(costs=None, times=None, capacity=8.99 * GIB)
    assert text.startswith("Does not fit: exceeds the 8.99 GiB of a chip by 0.01 GiB.")
    text = verdict(costs=None, times=None, capacity=None, remat=False)
    assert text.startswith("Does not fit: the compiler ran out of device memory.\nOptions: ")
    assert "remat=True, or a smaller --config.train.batch, or more chips" in text


def test_without_a_capacity_there_is_no_verdict():
    text = verdict(capacity=None)
    assert text == "No verdict: the memory of TPU v5 lite is unknown."


def test_the_table_shows_every_figure():
    text = format_report(REPORT)
    assert text.startswith("8 x TPU v5 lite, 128 videos per step, 16 per chip; compiled in 12 s")
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    amounts = ["arguments", "outputs", "temporaries", "code", "total"]
    assert rows == [*amounts, "operations", "memory", "all-reduce"]
    assert "9,216.00 MiB" in text and "2,000.00 GFLOP" in text and "3,000.00 MB" in text
    assert "5.00 MB in, 8.75 MB sent, 4 operations" in text
    assert (
        "10.00 ms of computation, 4.00 ms of memory traffic, 2.00 ms of communication (16.7%"
        in text
    )
    assert text.endswith(verdict())
    layouts = Layouts({"3x3": 2, "3x1": 3}, {"3x7x7": 1}, 4, 6_000_000)
    costs = dataclasses.replace(REPORT.costs, layouts=layouts)
    text = format_report(dataclasses.replace(REPORT, kind="Tesla T4", costs=costs))
    assert "5 channels-last, 1 channels-first" in text
    assert "6.00 MB per step, 4 kernels" in text and "Tesla T4 has no bfloat16" in text
    bare = format_report(dataclasses.replace(REPORT, costs=None, times=None))
    assert "operations" not in bare and "all-reduce" not in bare
