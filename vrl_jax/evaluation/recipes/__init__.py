"""Published evaluation recipes: functions that return a protocol, a file per paper.

`--config=configs/eval_ucf101_linear.py:severe` chooses the paper, `--config.protocol.epochs=2`
changes a setting, and every result lists what differs from the paper. Settings that a paper leaves
open are those of its released code; frames are scaled to cover a box of 4:3 and cropped to it.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator

from vrl_jax.evaluation.eval_protocol import EvalProtocol


def list_recipes() -> Iterator[tuple[str, Callable[[str], EvalProtocol]]]:
    """Yield (paper, recipe) of every file in this folder."""
    for module in pkgutil.iter_modules(__path__):
        functions = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        yield from ((module.name, each) for each in functions if hasattr(each, "benchmarks"))


def published_recipe(paper: str, task: str) -> Callable[[str], EvalProtocol]:
    """Return a paper's recipe for a task: a function `(benchmark="") -> protocol`.

    Args:
      paper: file name in this folder, such as "coclr".
      task: "linear", "finetune", "retrieval", or that of another protocol.

    Raises:
      ValueError: there is no such paper, or it does not use that protocol.
    """
    tasks = {}
    for name, function in list_recipes():
        tasks.setdefault(name, {})[function.__name__.removeprefix(f"{name}_")] = function
    papers = [name for name, functions in tasks.items() if task in functions]
    if paper not in tasks:
        raise ValueError(f"paper must be one of {', '.join(papers)} for {task!r}, got {paper!r}")
    if task not in tasks[paper]:
        raise ValueError(
            f"{paper} has no recipe for {task!r}, only for {', '.join(tasks[paper])}; {task!r} is "
            f"in {', '.join(papers) or 'no paper'}"
        )
    return tasks[paper][task]
