"""What the Python test servers do for a path, whatever their framework.

In:  the number in the path. Out: blocks of a known size.
Deliberately not here: HTTP.
"""

kept = []


def big(size_bytes):
    """Allocates one block of that size and gives it back; its length."""
    return len(bytearray(size_bytes))


def keep(size_bytes):
    """Allocates one block of that size and never gives it back; how many so far."""
    kept.append(bytearray(size_bytes))
    return len(kept)
