"""Benchmark of formulations of convolution, for every convolution of an encoder.

`python benchmarks/conv.py --encoder=r2plus1d-18 --json=conv.json`

The convolutions are listed by tracing the encoder. Each is timed separately, forward and gradient,
in all formulations that can compute it, in interleaved rounds. A convolution of pixels needs no
gradient of its input. The summary tells whether `conv="auto"` selects the fastest of the
formulations of encoders on this backend, and what the fastest for each convolution would save.
"""

import argparse
import pathlib
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import rounds
from benchmarks.jax_step import ENCODERS
from vrl_jax.encoders.conv3d import conv3d_native
from vrl_jax.encoders.layers import FORMULATIONS, Conv3d, default_formulation
from vrl_jax.train import provenance
from vrl_jax.train.sharding import compiler_options, make_mesh

CPU = {"batch": 2, "frames": 8, "size": 56, "dtype": "float32"}
GPU = {"batch": 64, "frames": 16, "size": 112, "dtype": "bfloat16"}
Strides = tuple[int, int, int]


class Layer(NamedTuple):
    """A convolution: shapes of its input b t h w i and kernel kt kh kw i o, and its strides."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: Strides

    def __str__(self) -> str:
        """Return kernel, channels and strides, and the input's time, height and width."""
        *extent, i, o = self.kernel
        kernel, strides, x = (" x ".join(map(str, y)) for y in (extent, self.strides, self.x[1:4]))
        return f"{kernel}, {i} to {o}, /{strides} of {x}"


def list_layers(module: nn.Module, clips: tuple[int, ...]) -> Counter[Layer]:
    """Count the distinct convolutions of a network on clips of a shape, in order."""
    layers = Counter()

    def record(call, args, kwargs, context):
        conv = context.module
        if isinstance(conv, Conv3d) and context.method_name == "__call__":
            x = args[0].shape
            layers[Layer(x, (*conv.kernel, x[-1], conv.features), conv.strides)] += 1
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        spec, key = jax.ShapeDtypeStruct(clips, jnp.float32), jax.random.key(0)
        jax.eval_shape(lambda x: module.init_with_output(key, x, True), spec)
    return layers


def pad_channels(channels: int) -> Callable[..., jax.Array]:
    """Return the native convolution with inputs padded to `channels` by zeros."""

    def convolve(x: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
        padding = (0, channels - x.shape[-1])
        x = jnp.pad(x, [(0, 0)] * 4 + [padding])
        return conv3d_native(x, jnp.pad(kernel, [(0, 0)] * 3 + [padding, (0, 0)]), strides)

    return convolve


def space_to_depth(x: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    """Move blocks of `strides` pixels to channels and convolve without spatial stride."""
    (b, t, h, w, i), (kt, *extent, _, o), (st, *space) = x.shape, kernel.shape, strides
    sh, sw = space
    before, blocks, pads = [], [], [((kt - 1) // 2,) * 2]
    for k, s in zip(extent, space, strict=True):
        front = -((k - 1) // 2) % s  # the first tap starts a block
        back = -(k + front) % s
        before.append((front, back))
        blocks.append((front + k + back) // s)
        low = ((k - 1) // 2 + front) // s
        pads.append((low, blocks[-1] - 1 - low))
    x = x.reshape(b, t, h // sh, sh, w // sw, sw, i)
    x = x.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, h // sh, w // sw, -1)
    kernel = jnp.pad(kernel, [(0, 0), *before, (0, 0), (0, 0)])
    kernel = kernel.reshape(kt, blocks[0], sh, blocks[1], sw, i, o)
    kernel = kernel.transpose(0, 1, 3, 2, 4, 5, 6).reshape(kt, *blocks, -1, o)
    axes = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (st, 1, 1), pads, dimension_numbers=axes)


def list_formulations(layer: Layer) -> dict[str, Callable[..., jax.Array]]:
    """Return the functions that compute a layer, by name."""
    functions = dict(FORMULATIONS)
    inputs, (_, *strides) = layer.kernel[3], layer.strides
    if inputs == 3:
        functions |= {"3 to 4 channels": pad_channels(4), "3 to 8 channels": pad_channels(8)}
        divisible = not any(side % s for side, s in zip(layer.x[2:4], strides, strict=True))
        if divisible and max(strides) > 1:
            functions["space to depth"] = space_to_depth
    return functions


def compile_layer(
    convolve: Callable[..., jax.Array], layer: Layer, dtype: str
) -> Callable[[], Any]:
    """Return a function that computes the convolution and its gradient, compiled."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = (jax.random.normal(k, s, dtype) for k, s in zip(keys[:2], layer[:2], strict=True))
    y = jax.eval_shape(lambda: convolve(x, kernel, layer.strides))
    cotangent = jax.random.normal(keys[2], y.shape, dtype)

    def forward_backward(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        if layer.kernel[3] == 3:  # pixels need no gradient
            y, vjp = jax.vjp(lambda kernel: convolve(x, kernel, layer.strides), kernel)
        else:
            y, vjp = jax.vjp(lambda x, kernel: convolve(x, kernel, layer.strides), x, kernel)
        return y, vjp(cotangent)

    compiled = jax.jit(forward_backward, compiler_options=compiler_options(make_mesh()))
    return lambda: jax.block_until_ready(compiled(x, kernel, cotangent))


def measure(layers: Counter[Layer], dtype: str, count: int, times: int) -> list[dict[str, Any]]:
    """Return the seconds of every layer in every formulation, by round."""
    timings = []
    for layer, uses in layers.items():
        functions = {
            name: compile_layer(convolve, layer, dtype)
            for name, convolve in list_formulations(layer).items()
        }
        seconds = rounds.interleave(functions, count, times)
        timings.append({"layer": str(layer), "uses": uses, "seconds": seconds})
    return timings


def summarize(timings: list[dict[str, Any]], auto: str) -> dict[str, Any]:
    """Return the seconds of all convolutions by formulation, and whether "auto" is the fastest."""

    def total(pick: Callable[[dict[str, float]], float]) -> float:
        medians = [{k: statistics.median(v) for k, v in t["seconds"].items()} for t in timings]
        return sum(t["uses"] * pick(m) for t, m in zip(timings, medians, strict=True))

    totals = {name: total(lambda m, name=name: m[name]) for name in FORMULATIONS}
    fastest = min(totals.values())
    totals["fastest of each"] = total(lambda m: min(m.values()))
    return {"seconds": totals, "auto": auto, "auto_is_fastest": totals[auto] == fastest}


def tabulate(timings: list[dict[str, Any]], summary: dict[str, Any], title: str) -> str:
    """Return the report in Markdown."""
    names = list(dict.fromkeys(name for each in timings for name in each["seconds"]))
    rows = []
    for each in timings:
        medians = {name: statistics.median(s) for name, s in each["seconds"].items()}
        cells = [f"{1e3 * medians[n]:.2f}" if n in medians else "" for n in names]
        rows.append([each["layer"], str(each["uses"]), *cells, min(medians, key=medians.get)])
    totals = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in summary["seconds"].items())
    is_fastest = "is" if summary["auto_is_fastest"] else "is not"
    lines = [
        f"{title}; median ms, forward and gradient",
        "",
        rounds.markdown_table(["convolution", "uses", *names, "fastest"], rows),
        "",
        f'All: {totals}. conv="auto" selects {summary["auto"]} here, '
        f"which {is_fastest} the fastest.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Time all convolutions and print the table."""
    defaults = CPU if jax.default_backend() == "cpu" else GPU
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="r2plus1d-18")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=defaults["dtype"])
    parser.add_argument("--batch", type=int, default=defaults["batch"], help="clips")
    parser.add_argument("--frames", type=int, default=defaults["frames"])
    parser.add_argument("--size", type=int, default=defaults["size"])
    parser.add_argument("--times", type=int, default=3, help="calls per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers to this file")
    args = parser.parse_args()
    clips = (args.batch, args.frames, args.size, args.size, 3)
    layers = list_layers(ENCODERS[args.encoder]().module(), clips)
    timings = measure(layers, args.dtype, args.rounds, args.times)
    summary = summarize(timings, default_formulation(jax.default_backend(), args.dtype))
    shape = " x ".join(map(str, clips[:4]))
    title = f"{args.encoder} on {shape}, {args.dtype}, {jax.devices()[0].device_kind}"
    numbers = {"layers": timings, "verdict": summary}
    numbers["environment"] = provenance.describe_environment()
    rounds.publish(tabulate(timings, summary, title), numbers, args.json)


if __name__ == "__main__":
    main()
