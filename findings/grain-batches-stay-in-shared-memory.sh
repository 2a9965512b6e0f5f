#!/usr/bin/env bash
# grain 0.2.18, Python 3.11, Linux
#
# `mp_prefetch` passes batches through /dev/shm. One would guess that it is free again once the
# iterator has ended, is closed and deleted. The end of each worker is kept as an exception, whose
# frames refer to the worker's last batch and are part of a reference cycle: one batch per worker
# stays until Python's collector of cycles runs, which may be after many more iterators in a process
# that evaluates often, and at exit Python warns of leaked shared memory. In a container with 64 MB
# of it the next iterator then fails. `gc.collect()` after the end frees them.
#
# Output:
#   after the end: 2 batches in shared memory
#   after gc.collect(): 0
#
# Exits with 0 as long as it behaves like this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet grain==0.2.18 numpy

cat > "$folder/try.py" <<'PYTHON'
import gc

import grain
import numpy as np
from absl import flags


def make(number):
    return {"clip": np.full((64, 64, 64), number, np.uint8)}


def mapped():
    """Return the blocks of `multiprocessing.shared_memory` that this process has mapped."""
    with open("/proc/self/maps", encoding="ascii") as file:
        return {line.split()[5] for line in file if "/dev/shm/psm_" in line}


if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    before = mapped()
    dataset = grain.MapDataset.range(12).map(make).batch(2).to_iter_dataset()
    options = grain.MultiprocessingOptions(num_workers=2, per_worker_buffer_size=1)
    iterator = iter(dataset.mp_prefetch(options))
    assert sum(1 for _ in iterator) == 6
    iterator.close()
    del iterator
    print(f"after the end: {len(mapped() - before)} batches in shared memory")
    gc.collect()
    print(f"after gc.collect(): {len(mapped() - before)}")
PYTHON
"$folder/venv/bin/python" "$folder/try.py" 2> "$folder/log" | tee "$folder/out"
grep -qx "after the end: 2 batches in shared memory" "$folder/out"
grep -qx "after gc.collect(): 0" "$folder/out"
