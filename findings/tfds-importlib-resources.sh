#!/usr/bin/env bash
# tensorflow-datasets 4.9.10 with etils 1.15.0, Python 3.11
#
# A fresh `pip install tensorflow-datasets` cannot prepare any data set that is defined in a package,
# its own ones included: `builder.download_and_prepare` asks for `url_infos`, which needs `code_path`,
# which imports `importlib_resources`. The package declares it for Python below 3.9 only, and got it
# through `etils[epath]` before etils 1.15. A builder in a script of its own works, because
# `code_path` leaves out `__main__`. Reading a prepared data set works as well.
#
# Output:
#   importing the library: ok
#   mnist: No module named 'importlib_resources'
#   a builder in a script: ok
#   mnist with importlib_resources: ok
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 etils==1.15.0 array-record==0.8.6

cat > "$folder/try.py" <<'PYTHON'
import sys

import tensorflow_datasets as tfds

print("importing the library: ok")


class Own(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({}))

    def _split_generators(self, manager):
        return {}

    def _generate_examples(self):
        return ()


try:
    tfds.builder("mnist", data_dir=sys.argv[1]).url_infos
    print("mnist with importlib_resources: ok")
except ModuleNotFoundError as error:
    print(f"mnist: {error}")
Own(data_dir=sys.argv[1]).url_infos
print("a builder in a script: ok")
PYTHON
run() { "$folder/venv/bin/python" "$folder/try.py" "$folder/data" 2> "$folder/log" || { cat "$folder/log"; exit 1; }; }
run > "$folder/without"
"$folder/venv/bin/pip" install --quiet importlib_resources==7.1.0
run > "$folder/with"
cat "$folder/without"
grep mnist "$folder/with"
grep -q "mnist: No module named 'importlib_resources'" "$folder/without"
grep -q "mnist with importlib_resources: ok" "$folder/with"
