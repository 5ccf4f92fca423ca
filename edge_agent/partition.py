"""Which of several workers has an asset: a hash of its name, the same in every process and every life."""

from hashlib import blake2b

_DIGEST_BYTES = 8


def owner(asset: str, workers: int) -> int:
    """Return the worker, from 0, that has an asset; it depends on nothing but the name and the number of workers."""
    if workers == 1:
        return 0
    # Python's own hash is another one in each process.
    name = asset.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=_DIGEST_BYTES).digest(), "big") % workers
