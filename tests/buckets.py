"""An object store in memory, as `gs://`: of this process alone, and for what fsspec reads."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    protocol = ("gs", "gcs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://"))


def open_bucket():
    """Return an empty one, which `gs://` means from now on."""
    for scheme in Bucket.protocol:
        fsspec.register_implementation(scheme, Bucket, clobber=True)
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    return Bucket()
