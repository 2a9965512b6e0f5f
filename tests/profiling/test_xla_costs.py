"""Costs read from compiled programs, against programs small enough to count by hand."""

import jax
import jax.numpy as jnp
import pytest

from vrl_jax.profiling.device_specs import Chip
from vrl_jax.profiling.hlo_program import parse_program
from vrl_jax.profiling.xla_costs import (
    Collective,
    Costs,
    Memory,
    compiled_costs,
    compiled_memory,
    estimate_times,
    list_collectives,
    memory_from_error,
)
from vrl_jax.train.sharding import batch_sharding, make_mesh, replicated_sharding

N = 8


def compiled(function, *inputs, out=replicated_sharding, **how):
    """Compile for eight devices; each input is a shape and where it is."""
    mesh = make_mesh()
    arguments = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where(mesh)) for shape, where in inputs
    ]
    return jax.jit(function, out_shardings=out(mesh), **how).lower(*arguments).compile()


def test_a_gradient_is_reduced_over_all_devices():
    def gradient(w, x):
        return jax.grad(lambda w: jnp.sum((x @ w) ** 2))(w)

    costs = compiled_costs(
        compiled(gradient, ((7, 3), replicated_sharding), ((16, 7), batch_sharding)), N
    )
    size = 7 * 3 * 4
    assert costs.collectives == (Collective("all-reduce", 1, size, 2 * 7 / 8 * size),)


def test_rows_are_gathered_on_all_devices():
    costs = compiled_costs(compiled(lambda x: x * 2, ((16, 7), batch_sharding)), N)
    own = 16 * 7 * 4 / N
    assert costs.collectives == (Collective("all-gather", 1, own, 7 * own),)


def test_one_device_exchanges_nothing_and_operations_are_each_devices_own():
    program = compiled(
        jnp.matmul, ((16, 64), batch_sharding), ((64, 32), replicated_sharding), out=batch_sharding
    )
    costs = compiled_costs(program, N)
    assert costs.flops == 2 * (16 // N) * 64 * 32 and not costs.collectives
    assert costs.traffic == 4 * (2 * 64 + 64 * 32 + 2 * 32)


def test_memory_is_that_of_one_device_and_donated_arguments_count_once():
    inputs = ((40, 25), replicated_sharding), ((16, 50), batch_sharding)
    plain = compiled_memory(compiled(lambda w, x: w + x.sum(), *inputs))
    donated = compiled_memory(compiled(lambda w, x: w + x.sum(), *inputs, donate_argnums=0))
    assert plain.arguments == donated.arguments == 4 * (40 * 25 + 2 * 50)
    assert plain.outputs == 4 * 40 * 25 and donated.outputs == 0
    assert plain.total - donated.total == 4 * 40 * 25 + plain.temporaries - donated.temporaries
    big = compiled_memory(compiled(lambda x: jnp.sort(x.T @ x), ((16, 500), batch_sharding)))
    assert big.temporaries >= 4 * 500 * 500


LINES = {
    "%a = f32[4]{0} all-reduce(%x), replica_groups={}, to_apply=%add": (
        ("all-reduce", 1, 16, 2 * 7 / 8 * 16),
    ),
    "%a = (f32[4]{0:T(128)}, bf16[2,3]{1,0}) all-reduce(%x, %y), replica_groups={{0,1},{2,3}}": (
        ("all-reduce", 1, 28, 28),
    ),
    "%a = f32[4]{0} all-reduce-start(%x), replica_groups=[2,4]<=[8]\n"
    "%b = f32[4]{0} all-reduce-done(%a)": (("all-reduce", 1, 16, 24),),
    "%a = (bf16[2]{0}, bf16[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[4,2]T(1,0)\n"
    "%b = bf16[8]{0} all-gather-done(%a)": (("all-gather", 1, 4, 12),),
    "ROOT %a = pred[8,2]{1,0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, foo={1}": (
        ("all-gather", 1, 4, 12),
    ),
    "%a = s8[8]{0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}": (
        ("all-gather", 1, 2, 6),
    ),
    "%a = f32[2]{0} reduce-scatter(%x), replica_groups=[1,8]<=[8], dimensions={0}": (
        ("reduce-scatter", 1, 64, 56),
    ),
    "%a = (f32[8]{0}, f32[8]{0}) all-to-all(%x, %y), replica_groups={{0,1}}": (
        ("all-to-all", 1, 64, 32),
    ),
    "%a = (s32[6]{0}, s32[6]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), "
    "channel_id=1, source_target_pairs={{0,1},{1,2}}\n"
    "%b = s32[6]{0} collective-permute-done(%a)": (("collective-permute", 1, 24, 24),),
    # parts of one exchange, each in a computation of its own, and another exchange
    "%a.1 = f32[8]{0} all-gather(%x), channel_id=4, replica_groups=[1,8]<=[8]\n"
    "%a.2 = f32[8]{0} all-gather(%x), channel_id=4, replica_groups=[1,8]<=[8]\n"
    "%a.3 = f32[16]{0} all-gather(%x), channel_id=5, replica_groups=[1,8]<=[8]": (
        ("all-gather", 2, 12, 84),
    ),
    "%fusion.1 = f32[4]{0} fusion(%all-reduce.1), calls=%all-reduce.clone": (),
}


@pytest.mark.parametrize("text", LINES)
def test_exchanges_as_compilers_write_them(text):
    assert list_collectives(parse_program(text), N) == tuple(
        Collective(*each) for each in LINES[text]
    )


def test_kinds_are_told_apart_and_summed():
    text = "\n".join(line for line in LINES if "channel_id=4" not in line)
    by_kind = {each.kind: each for each in list_collectives(parse_program(text), N)}
    assert list(by_kind) == [
        "all-reduce",
        "all-gather",
        "reduce-scatter",
        "all-to-all",
        "collective-permute",
    ]
    assert (by_kind["all-reduce"].count, by_kind["all-reduce"].operands) == (3, 16 + 28 + 16)


def test_times_are_figures_over_peaks():
    chip = Chip(memory=1e9, flops=50.0, bandwidth=20.0, links=4.0)
    times = estimate_times(
        Costs(100.0, 10.0, (Collective("a", 1, 9, 3.0), Collective("b", 2, 9, 5.0))), chip
    )
    assert (times.compute, times.memory, times.communication) == (2.0, 0.5, 2.0)
    assert times.share == 0.5


@pytest.mark.parametrize(
    "message, temporaries",
    [
        ("required for HLO temporaries (521.70G) exceeds available HBM (15.75G).", 521.7 * 2**30),
        ("Ran out of memory in memory space hbm. Used 24.50M of 15.75G hbm.", 24.5 * 2**20 - 100),
    ],
)
def test_what_a_compiler_lacks(message, temporaries):
    error = jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}")
    assert memory_from_error(error, 100) == Memory(100, 0, round(temporaries), 0)


def test_other_errors_stay_errors():
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNIMPLEMENTED: eig"):
        memory_from_error(jax.errors.JaxRuntimeError("UNIMPLEMENTED: eig"), 100)
