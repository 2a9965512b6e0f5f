#!/usr/bin/env bash
# jaxtyping 0.3.11, Python 3.11
#
# `install_import_hook("mypackage", ...)` instruments one package. One would guess that the rest of
# an environment is imported as always. While a module of that package is being executed, however,
# the name of every compiled file is another one ("….cpython-311-jaxtyping….pyc"), so all that is
# first imported from inside it (JAX, Orbax, matplotlib) is compiled from source: on the first run,
# after each update of jaxtyping, and on each run where no compiled files may be written
# (PYTHONDONTWRITEBYTECODE=1, as in many containers). In a test suite that imports the package
# first, these were 1,050 modules and 4 seconds in each test process. Importing the libraries before
# the hook is installed avoids it.
#
# Output:
#   imported under the hook: package compiled from source
#   imported before the hook: package read from its compiled files
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jaxtyping==0.3.11 beartype==0.23.1 jinja2==3.1.6
"$folder/venv/bin/python" -m compileall -q "$folder/venv/lib" > "$folder/log" || true

mkdir "$folder/mypackage"
echo "import jinja2" > "$folder/mypackage/__init__.py"
cat > "$folder/try.py" <<'PYTHON'
import importlib.machinery
import sys

import beartype  # imported anyway, so that it does not count
from jaxtyping import install_import_hook

compiled = []
to_code = importlib.machinery.SourceFileLoader.source_to_code


def record(loader, data, path, **options):
    compiled.append(str(path))
    return to_code(loader, data, path, **options)


importlib.machinery.SourceFileLoader.source_to_code = record
when = sys.argv[1]
if when == "before":
    import jinja2  # noqa: F401
with install_import_hook("mypackage", "beartype.beartype"):
    import mypackage  # noqa: F401
found = any("/jinja2/" in path for path in compiled)
source = "compiled from source" if found else "read from its compiled files"
print(f"imported {when} the hook: package {source}")
PYTHON
cd "$folder"
for when in under before; do
  PYTHONDONTWRITEBYTECODE=1 "$folder/venv/bin/python" try.py $when
done | tee "$folder/out"
grep -qx "imported under the hook: package compiled from source" "$folder/out"
grep -qx "imported before the hook: package read from its compiled files" "$folder/out"
