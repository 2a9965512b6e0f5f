"""Operations, traffic and layouts: as the CPU compiler counts, and of programs counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from vrl_jax.profiling.hlo_costs import Layouts, count_flops, count_traffic, find_layouts
from vrl_jax.profiling.hlo_program import parse_program

STEPS = 5


@pytest.fixture(scope="module")
def compiled():
    """Gradients of a convolution with strides and padding, of a product, and of a loop."""

    def loss(x, kernel, weights, square):
        axes = ("NDHWC", "DHWIO", "NDHWC")
        y = lax.conv_general_dilated(x, kernel, (1, 2, 3), [(1, 1)] * 3, dimension_numbers=axes)
        z = y.reshape(len(y), -1)[:, :64] @ weights
        z = lax.scan(lambda z, _: (jnp.tanh(z @ square), None), z, None, length=STEPS)[0]
        return (z**2).sum()

    shapes = (2, 4, 12, 10, 3), (3, 3, 3, 3, 8), (64, 32), (32, 32)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(*shapes).compile()


def test_counts_are_those_of_the_cpu_compiler(compiled):
    program, analysis = parse_program(compiled.as_text()), compiled.cost_analysis()
    flops, traffic = count_flops(program, loops=False), count_traffic(program, loops=False)
    assert 0.98 < flops / analysis["flops"] < 1  # without the operations on single elements
    assert traffic == pytest.approx(analysis["bytes accessed"], rel=0.02)


def test_loops_count_as_often_as_they_run(compiled):
    program = parse_program(compiled.as_text())
    product = 2 * 2 * 32 * 32  # one forward, two backward
    more = count_flops(program) - count_flops(program, loops=False)
    assert more == (STEPS - 1) * 3 * product
    assert count_traffic(program) > count_traffic(program, loops=False)


WINDOW = "window={size=3x3 stride=2x2 pad=1_1x1_1}"
CALLS = {
    "Forward": "%y = (bf16[4,3,3,7]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k)",
    "BackwardInput": "%y = (bf16[4,6,5,2]{3,2,1,0}, u8[0]{0}) custom-call(%g, %k)",
    "BackwardFilter": "%y = (bf16[7,3,3,2]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g)",
}
OPERANDS = """
ENTRY %main (x: bf16[4,6,5,2]) -> bf16[4,3,3,7] {
  %x = bf16[4,6,5,2]{3,2,1,0} parameter(0)
  %k = bf16[7,3,3,2]{3,2,1,0} parameter(1)
  %g = bf16[4,3,3,7]{3,2,1,0} parameter(2)
"""


@pytest.mark.parametrize("kind", CALLS)
def test_convolutions_of_cudnn(kind):
    labels = "dim_labels=b01f_o01i->b01f"
    target = f'custom_call_target="__cudnn$conv{kind}"'
    program = parse_program(f"{OPERANDS}  {CALLS[kind]}, {WINDOW}, {labels}, {target}\n}}")
    rows = sum(0 <= 2 * at + tap - 1 < 6 for at in range(3) for tap in range(3))
    columns = sum(0 <= 2 * at + tap - 1 < 5 for at in range(3) for tap in range(3))
    assert count_flops(program) == 2 * 4 * 2 * 7 * rows * columns
    sizes = {"x": 4 * 6 * 5 * 2, "k": 7 * 9 * 2, "g": 4 * 9 * 7}
    assert count_traffic(program) == 2 * sum(sizes.values())
    assert find_layouts(program) == Layouts({"3x3": 1}, {}, 0, 0)


def test_the_layout_is_that_in_memory():
    target = 'custom_call_target="__cudnn$convForward"'
    text = f"{OPERANDS}  {CALLS['Forward']}, {WINDOW}, dim_labels=b01f_o01i->b01f, {target}\n}}"
    planes = text.replace("bf16[4,6,5,2]{3,2,1,0} p", "bf16[4,6,5,2]{2,1,3,0} p")
    assert find_layouts(parse_program(planes)) == Layouts({}, {"3x3": 1}, 0, 0)
    first = (
        text.replace("[4,6,5,2]", "[4,2,6,5]").replace("[4,3,3,7]", "[4,7,3,3]")
        .replace("[7,3,3,2]", "[7,2,3,3]").replace("b01f_o01i->b01f", "bf01_oi01->bf01")
    )  # fmt: skip
    assert find_layouts(parse_program(first)) == Layouts({}, {"3x3": 1}, 0, 0)
    assert count_flops(parse_program(first)) == count_flops(parse_program(text))


PRODUCTS = {
    "%y = f32[5,3]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}": 1,
    '%y = (f32[5,3]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", '
    'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}': 1,
    "%y = f32[5,3]{1,0} fusion(%a, %b), kind=kCustom, calls=%gemm": 1,
    "%y = (s32[], f32[5,3]{1,0}) while(%t), condition=%c, body=%gemm, "
    'backend_config={"known_trip_count":{"n":"6"}}': 6,
    "%y = (s32[], f32[5,3]{1,0}) while(%t), condition=%upto, body=%gemm": 4,
    "%y = (s32[], f32[5,3]{1,0}) while(%t), condition=%unknown, body=%gemm": 1,
}
COMPUTATIONS = """
%gemm (a.1: f32[5,8], b.1: f32[8,3]) -> f32[5,3] {
  %a.1 = f32[5,8]{1,0} parameter(0)
  %b.1 = f32[8,3]{1,0} parameter(1)
  ROOT %dot.1 = f32[5,3]{1,0} dot(%a.1, %b.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
%upto (i: s32[]) -> pred[] {
  %limit = s32[] constant(4)
  %i = s32[] parameter(0)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}
%unknown (j: pred[]) -> pred[] {
  ROOT %j = pred[] parameter(0)
}
ENTRY %main (a: f32[5,8], b: f32[8,3]) -> f32[5,3] {
  %a = f32[5,8]{1,0} parameter(0)
  %b = f32[8,3]{1,0} parameter(1)
"""


@pytest.mark.parametrize("line", PRODUCTS)
def test_products(line):
    program = parse_program(f"{COMPUTATIONS}  {line}\n}}")
    assert count_flops(program) == PRODUCTS[line] * 2 * 5 * 3 * 8


KERNELS = """
%slices (p: f32[9,4], q: f32[9,4]) -> f32[9,4] {
  %q = f32[9,4]{1,0} parameter(1)
  %p = f32[9,4]{1,0} parameter(0)
  %row = f32[1,4]{1,0} dynamic-slice(%p)
  ROOT %put = f32[9,4]{1,0} dynamic-update-slice(%q, %row)
}
%turn (r: f32[9,4]) -> f32[4,9] {
  %r = f32[9,4]{1,0} parameter(0)
  ROOT %t = f32[4,9]{1,0} transpose(%r), dimensions={1,0}
}
ENTRY %main (a: f32[9,4], b: f32[9,4]) -> f32[9,4] {
  %a = f32[9,4]{1,0} parameter(0)
  %b = f32[9,4]{1,0} parameter(1)
"""


@pytest.mark.parametrize(
    ("line", "traffic", "transposed"),
    [
        ("%y = f32[9,4]{1,0} fusion(%a, %b), kind=kLoop, calls=%slices", 2 * 4 * 4, 0),
        ("%y = f32[4,9]{1,0} fusion(%a), kind=kInput, calls=%turn", 2 * 36 * 4, 36 * 4),
        ("%y = f32[4,9]{1,0} fusion(%a), kind=kCustom, calls=%turn", 2 * 36 * 4, 0),
        ("%y = f32[9,4]{0,1} copy(%a)", 2 * 36 * 4, 36 * 4),
        ("%y = f32[4,9]{0,1} transpose(%a), dimensions={1,0}", 2 * 36 * 4, 0),  # as it lies
        ("%y = f32[9,4]{1,0:T(8,128)S(1)} copy(%a)", 36 * 4, 0),  # to a core's own memory
        ("%y = f32[36]{0} bitcast(%a)", 0, 0),
    ],
)
def test_traffic_of_kernels(line, traffic, transposed):
    program = parse_program(f"{KERNELS}  {line}\n}}")
    assert count_traffic(program) == traffic
    assert find_layouts(program) == Layouts({}, {}, int(transposed > 0), transposed)
