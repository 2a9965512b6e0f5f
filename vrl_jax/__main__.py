"""The command `vrl`, also `python -m vrl_jax`: every program of the library by one name."""

import os
import runpy
import sys

import vrl_jax

# verb: module, arguments that the verb adds, and what it does
VERBS = {
    "train": ("main", ["--task=train"], "pretrain an encoder by a config"),
    "evaluate": ("main", ["--task=evaluate"], "evaluate an encoder by a config"),
    "compare": ("compare", [], "run several configs and seeds, and tabulate them"),
    "scan": ("scan", [], "scan every layer for appearance and motion"),
    "report": ("report", [], "write the pages of runs, and compare them"),
    "embed": ("embed", [], "write the features of videos to a file"),
    "detect": ("detection", [], "evaluate spatio-temporal action detection"),
    "convert": ("convert", [], "convert weights from and to PyTorch"),
    "export": ("export", [], "write a folder to give an encoder away"),
    "browse": ("browse", [], "draw the augmented clips of a config"),
    "preflight": ("preflight", [], "compile a step and print its memory and cost"),
    "replay": ("replay", [], "repeat the step at which a run became non-finite"),
    "doctor": ("doctor", [], "find the bottleneck of the input pipeline"),
    "index": ("data.index", [], "check every video of a data set, write a manifest"),
    "prepare": ("data.prepare", [], "transcode indexed videos into shards"),
}
USAGE = "\n".join(
    [
        "usage: vrl VERB [ARGUMENTS]    (the same: python -m vrl_jax VERB)",
        "",
        *(f"  {verb:10} {text}" for verb, (_, _, text) in VERBS.items()),
        "",
        "vrl train --config=configs/synthetic_detrend.py  the quick start",
        "vrl VERB --help                                  the arguments of a verb",
        "vrl train --config=FILE --config.help            all settings of a config",
        "vrl --version",
    ]
)


def main(argv: list[str] | None = None) -> None:
    """Run the program of a verb with the remaining arguments."""
    verb, *args = argv or sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(USAGE)
    elif verb == "--version":
        print(f"vrl_jax {vrl_jax.__version__}")
    elif verb in VERBS:
        module, added, _ = VERBS[verb]
        sys.path.append(os.getcwd())  # where functions of the user are, as for `python -m`
        sys.argv[1:] = added + args
        runpy.run_module(f"vrl_jax.{module}", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: no verb {verb!r}: it must be one of {', '.join(VERBS)}")


if __name__ == "__main__":
    main()
