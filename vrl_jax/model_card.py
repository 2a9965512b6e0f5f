"""The model card of an exported encoder, with the front matter of model hubs."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jinja2

from vrl_jax.pretrained import EXPORTED, Pretrained
from vrl_jax.report import markdown_tables, result_table
from vrl_jax.report.result_files import Result

DTYPES = ("uint8", "float32")
RECIPE = ("data", "method", "framework", "encoder", "optim", "sampling", "augment", "train", "init")

TEMPLATE = """\
---
license: other
license_name: not-chosen
library_name: vrl_jax
pipeline_tag: feature-extraction
tags: [jax, video, self-supervised-learning]
---

# {{ name }}

> **Licence: not chosen.** Set `license` at the top of this file, drop `license_name`, and replace
> this paragraph.

{{ encoder }} with {{ parameters }} parameters, pretrained without labels. It maps clips of
{{ frames }} frames to features of {{ dim }} dimensions.

Method: {{ method }}

## Use

```python
import jax
import numpy as np
from jax import export
from safetensors.flax import load_file

weights = load_file("{{ weights }}")
with open("{{ programs.uint8 }}", "rb") as file:
    encode = jax.jit(export.deserialize(bytearray(file.read())).call)
clips = np.zeros({{ shape }}, np.uint8)
features = encode(weights, clips)
features["clip"]  # f32[{{ rows }}, {{ dim }}]
features["frames"]  # f32[{{ rows }}, time, {{ dim }}]
```

This needs `jax` ({{ jax }} or newer) and `safetensors`, on CPU, CUDA or TPU. {{ batch }}
Clips are RGB, of values 0 to 255: {{ frames }} frames with a stride of {{ stride }}, resized to
{{ size[0] }} x {{ size[1] }} (height, width). The program cuts the central square, resizes it to
{{ side }} x {{ side }} and normalises it. `{{ programs.float32 }}` is the same for clips of dtype
`float32` with these values.

With vrl_jax:

```bash
python -m vrl_jax.embed {{ name }} /path/to/videos --out=features.npz
python -m vrl_jax.main --config=configs/eval_ucf101_linear.py --config.init={{ name }}
```

## Training

| setting | value |
|---|---|
{% for key, value in settings.items() -%}
| `{{ key }}` | {{ value }} |
{% endfor %}
`config.json` has every setting. The weights have the hash `{{ hash }}`.

## Results

{{ results }}"""


def program_name(dtype: str) -> str:
    """Return the file name of the program for clips of a dtype."""
    return f"encoder.{dtype}.jax_export"


def format_card(
    name: str,
    model: Pretrained,
    described: Mapping[str, Any],
    environment: Mapping[str, str],
    results: Sequence[Result],
    batch: int | None,
) -> str:
    """Return the card of an encoder as Markdown.

    Args:
      name: of the model.
      model: the encoder of a run.
      described: config of the run, as JSON.
      environment: software of the run.
      results: of these weights.
      batch: clips per call of the programs; None for any number.
    """
    clips, size, rows = model.sampling, model.experiment.resize, batch or 2
    rate = f"at {clips.fps:g} fps" if clips.fps else "at the video's own rate"
    return jinja2.Template(TEMPLATE, keep_trailing_newline=True).render(
        name=name,
        encoder=type(model.encoder).__name__,
        parameters=f"{model.count_parameters():,}",
        frames=clips.frames,
        dim=model.encoder.dim,
        method=describe_method(model.experiment.method),
        weights=EXPORTED,
        programs={dtype: program_name(dtype) for dtype in DTYPES},
        rows=rows,
        shape=(rows, clips.frames, *size, 3),
        jax=jax.__version__,
        batch=f"A call takes {batch} clips." if batch else "A call takes any number of clips.",
        stride=f"{clips.stride} {rate}",
        size=size,
        side=model.augment.size,
        settings=_settings(model, described, environment),
        hash=model.weight_hash(),
        results=markdown_tables.format_results(list(results)) or "None of these weights.\n",
    )


def describe_method(method: Any) -> str:
    """Return the first paragraph about a method: that of its module, or else of its class."""
    text = sys.modules[type(method).__module__].__doc__ or type(method).__doc__ or ""
    return " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())


def _settings(
    model: Pretrained, described: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the recipe as text by dotted key, then its length and the software."""
    recipe = {key: described[key] for key in RECIPE if described.get(key)}
    flat = result_table.flatten_dict(recipe)
    software = ("vrl_jax", "commit", "python", "jax", "flax", "devices")
    versions = {key: environment[key] for key in software if environment.get(key)}
    kinds = {
        key.removesuffix(".kind"): value.rpartition(":")[2] if key.endswith(".kind") else value
        for key, value in flat.items()
    }
    return {**kinds, "step": f"{model.step:,}", **versions}
