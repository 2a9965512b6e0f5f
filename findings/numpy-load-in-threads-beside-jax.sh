#!/usr/bin/env bash
# NumPy 2.4.6 and JAX 0.10.2 in Python 3.11.7
#
# numpy.load reads the header of an array with ast.literal_eval. One would guess that threads can read
# files of their own at the same time, as loaders do. In Python 3.11 the parser keeps its depth in one
# place for all threads of the interpreter, and counts wrongly where another thread runs in the middle
# of building a tree. That does not happen by itself. It does once JAX is imported: JAX registers a
# function with Python's garbage collector, which runs Python code, and so gives other threads a turn,
# wherever a collection begins. Then numpy.load of a good file raises SystemError now and then.
# Python 3.13.0 has no such error. Short intervals make it frequent here; it was first seen without.
#
# Output (numbers of errors vary):
#   NumPy alone: no errors in 40,960 loads
#   beside JAX: SystemError: AST constructor recursion depth mismatch (before=33, after=29)
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 jax==0.10.2 jaxlib==0.10.2

cat > "$folder/try.py" <<'PYTHON'
import gc
import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

file = io.BytesIO()
np.save(file, np.zeros((3, 10, 2), np.uint8))


def load(_):
    try:
        return "" if np.load(io.BytesIO(file.getvalue())).shape == (3, 10, 2) else "wrong shape"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def first_error():
    for _ in range(10):
        with ThreadPoolExecutor(16) as pool:
            errors = [text for text in pool.map(load, range(4096)) if text]
        if errors:
            return errors[0]
    return "no errors in 40,960 loads"


gc.set_threshold(20, 5, 5)
sys.setswitchinterval(1e-6)
print("NumPy alone:", first_error())
import jax  # noqa: E402, F401

print("beside JAX:", first_error())
PYTHON
"$folder/venv/bin/python" "$folder/try.py" | tee "$folder/out"
grep -qx "NumPy alone: no errors in 40,960 loads" "$folder/out"
grep -q "^beside JAX: SystemError: AST constructor recursion depth mismatch" "$folder/out"
