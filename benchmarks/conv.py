"""Which way to convolve is the quickest here, for the convolutions that an encoder has.

`python benchmarks/conv.py --encoder=r2plus1d-18 --json=conv.json`

Every convolution of the encoder is found by tracing it, and timed alone, forward and gradient, in
each formulation that computes it, in interleaved rounds. A convolution of pixels needs no gradient
of its input. The verdict is on `conv="auto"`: whether what it takes on this backend is the quicker
of the two formulations that encoders offer, and what the quickest for each would save.
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
from vrl_jax.encoders.conv3d import conv3d_folded
from vrl_jax.encoders.layers import Conv3d, conv3d_native
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
        by = [" x ".join(map(str, each)) for each in (extent, self.strides, self.x[1:4])]
        return f"{by[0]}, {i} to {o}, /{by[1]} of {by[2]}"


def layers_of(module: nn.Module, clips: tuple[int, ...]) -> Counter[Layer]:
    """Count the distinct convolutions of a network on clips of a shape, in order."""
    found = Counter()

    def watch(call, arguments, given, context):
        conv = context.module
        if isinstance(conv, Conv3d) and context.method_name == "__call__":
            x = arguments[0].shape
            found[Layer(x, (*conv.kernel, x[-1], conv.features), conv.strides)] += 1
        return call(*arguments, **given)

    with nn.intercept_methods(watch):
        spec, key = jax.ShapeDtypeStruct(clips, jnp.float32), jax.random.key(0)
        jax.eval_shape(lambda x: module.init_with_output(key, x, True), spec)
    return found


def padded(channels: int) -> Callable[..., jax.Array]:
    """Return the native convolution of as many input channels, those that are added being zero."""

    def convolve(x: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
        more = (0, channels - x.shape[-1])
        x = jnp.pad(x, [(0, 0)] * 4 + [more])
        return conv3d_native(x, jnp.pad(kernel, [(0, 0)] * 3 + [more, (0, 0)]), strides)

    return convolve


def space_to_depth(x: jax.Array, kernel: jax.Array, strides: Strides) -> jax.Array:
    """Convolve blocks of `strides` pixels, laid into channels, without a stride in space."""
    (b, t, h, w, i), (kt, *extent, _, o), (st, *space) = x.shape, kernel.shape, strides
    sh, sw = space
    before, blocks, pads = [], [], [((kt - 1) // 2,) * 2]
    for k, s in zip(extent, space, strict=True):
        front = -((k - 1) // 2) % s  # so that the first tap begins a block
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


def formulations(layer: Layer) -> dict[str, Callable[..., jax.Array]]:
    """Return what computes a layer, by name."""
    ways = {"native": conv3d_native, "folded": conv3d_folded}
    inputs, (_, *strides) = layer.kernel[3], layer.strides
    if inputs == 3:
        ways |= {"3 to 4 channels": padded(4), "3 to 8 channels": padded(8)}
        divided = not any(side % s for side, s in zip(layer.x[2:4], strides, strict=True))
        if divided and max(strides) > 1:
            ways["space to depth"] = space_to_depth
    return ways


def work(convolve: Callable[..., jax.Array], layer: Layer, dtype: str) -> Callable[[], Any]:
    """Return a call of the compiled convolution and its gradient."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = (jax.random.normal(k, s, dtype) for k, s in zip(keys[:2], layer[:2], strict=True))
    y = jax.eval_shape(lambda: convolve(x, kernel, layer.strides))
    slope = jax.random.normal(keys[2], y.shape, dtype)

    def both(x: jax.Array, kernel: jax.Array, slope: jax.Array) -> Any:
        if layer.kernel[3] == 3:  # pixels need no gradient
            y, back = jax.vjp(lambda kernel: convolve(x, kernel, layer.strides), kernel)
        else:
            y, back = jax.vjp(lambda *given: convolve(*given, layer.strides), x, kernel)
        return y, back(slope)

    compiled = jax.jit(both, compiler_options=compiler_options(make_mesh()))
    return lambda: jax.block_until_ready(compiled(x, kernel, slope))


def measure(layers: Counter[Layer], dtype: str, count: int, times: int) -> list[dict[str, Any]]:
    """Return the seconds of every layer in every formulation, by round."""
    found = []
    for layer, uses in layers.items():
        ways = {name: work(way, layer, dtype) for name, way in formulations(layer).items()}
        taken = rounds.interleave(ways, count, times)
        found.append({"layer": str(layer), "uses": uses, "seconds": taken})
    return found


def verdict(found: list[dict[str, Any]], backend: str) -> dict[str, Any]:
    """Return the seconds of all convolutions by formulation, and whether "auto" is the quicker."""

    def total(pick: Callable[[dict[str, float]], float]) -> float:
        medians = [{k: statistics.median(v) for k, v in f["seconds"].items()} for f in found]
        return sum(f["uses"] * pick(m) for f, m in zip(found, medians, strict=True))

    totals = {name: total(lambda m, name=name: m[name]) for name in ("native", "folded")}
    totals["quickest of each"] = total(lambda m: min(m.values()))
    auto = "folded" if backend == "cpu" else "native"
    return {
        "seconds": totals,
        "auto": auto,
        "auto_is_quicker": totals[auto] == min(totals["native"], totals["folded"]),
    }


def tabulate(found: list[dict[str, Any]], told: dict[str, Any], title: str) -> str:
    """Return the Markdown that tells a run."""
    names = list(dict.fromkeys(name for each in found for name in each["seconds"]))
    rows = []
    for each in found:
        medians = {name: statistics.median(s) for name, s in each["seconds"].items()}
        cells = [f"{1e3 * medians[n]:.2f}" if n in medians else "" for n in names]
        rows.append([each["layer"], str(each["uses"]), *cells, min(medians, key=medians.get)])
    totals = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in told["seconds"].items())
    is_quicker = "is" if told["auto_is_quicker"] else "is not"
    lines = [
        f"{title}; median ms, forward and gradient",
        "",
        rounds.table(["convolution", "uses", *names, "quickest"], rows),
        "",
        f'All: {totals}. conv="auto" takes {told["auto"]} here, which {is_quicker} the quicker.',
    ]
    return "\n".join(lines)


def main() -> None:
    """Find the convolutions, time them, print the table."""
    defaults = CPU if jax.default_backend() == "cpu" else GPU
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="r2plus1d-18")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=defaults["dtype"])
    parser.add_argument("--batch", type=int, default=defaults["batch"], help="clips")
    parser.add_argument("--frames", type=int, default=defaults["frames"])
    parser.add_argument("--size", type=int, default=defaults["size"])
    parser.add_argument("--times", type=int, default=3, help="calls in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="also write the numbers here")
    given = parser.parse_args()
    clips = (given.batch, given.frames, given.size, given.size, 3)
    layers = layers_of(ENCODERS[given.encoder]().module(), clips)
    found = measure(layers, given.dtype, given.rounds, given.times)
    told = verdict(found, jax.default_backend())
    shape = " x ".join(map(str, clips[:4]))
    title = f"{given.encoder} on {shape}, {given.dtype}, {jax.devices()[0].device_kind}"
    numbers = {"layers": found, "verdict": told, "environment": provenance.describe_environment()}
    rounds.publish(tabulate(found, told, title), numbers, given.json)


if __name__ == "__main__":
    main()
