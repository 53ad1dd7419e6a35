"""Prefix blocks as the store keeps them: few bytes, exactly restored.

A call's prompt mostly extends an earlier one of its execution, so only the blocks after the
longest common prefix are kept. Ids from files run in sequence and compress well as differences;
hashed ids do not, and cost 8 bytes each.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from scepsy.errors import InputError


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest prefix that both share, by bisection over slices."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def pack_blocks(blocks: Sequence[int]) -> bytes:
    """Compress ids; no ids give no bytes.

    Raises:
        InputError: an id does not fit 64 bits.
    """
    if not blocks:
        return b""
    try:
        ids = np.array(blocks, dtype="<i8")
    except OverflowError:
        raise InputError("a block id does not fit a signed 64-bit integer") from None
    return zlib.compress(np.diff(ids, prepend=np.int64(0)).tobytes())


def unpack_blocks(packed: bytes) -> tuple[int, ...]:
    """Restore what ``pack_blocks`` compressed."""
    if not packed:
        return ()
    differences = np.frombuffer(zlib.decompress(packed), dtype="<i8")
    return tuple(np.cumsum(differences, dtype="<i8").tolist())
