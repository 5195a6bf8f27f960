"""What the range's Python servers allocate for a path, whatever their framework.

In:  the number of bytes in the path. Out: blocks that add up to it, allocated
     in the pieces and freed at the time that each name says.
Deliberately not here: HTTP, and waiting; a server says itself what happens
between two pieces.

Blocks are `bytes` of zeros: one call of the allocator each, for the size asked
and 33 bytes more, and no page of them is ever touched.
"""

import queue
import threading

_kept = []
_for_the_next = {}
_elsewhere = queue.SimpleQueue()
_elsewhere_started = threading.Lock()
_started = False


def block(size_bytes):
    return bytes(size_bytes)


def parts(size_bytes, *shares):
    """The sizes of pieces in the given proportions, which add up exactly."""
    whole = sum(shares)
    sizes = [size_bytes * share // whole for share in shares]
    sizes[-1] += size_bytes - sum(sizes)
    return sizes


def at_once(size_bytes):
    """Four blocks, each freed before the next."""
    for part in parts(size_bytes, 1, 2, 3, 4):
        block(part)


def later(size_bytes):
    """A block that the next such request frees."""
    _for_the_next["block"] = block(size_bytes)


def kept(size_bytes):
    """A block that nobody frees."""
    _kept.append(block(size_bytes))


def elsewhere(size_bytes):
    """A block that another thread frees."""
    global _started
    with _elsewhere_started:
        if not _started:
            threading.Thread(target=_free_elsewhere, daemon=True).start()
            _started = True
    _elsewhere.put(block(size_bytes))


def _free_elsewhere():
    while True:
        _elsewhere.get()
