"""Places in the log as tests read them: the hub's seals, opened with its secret."""

from __future__ import annotations

import threading
from functools import lru_cache

from harness import SECRET
from penstockd.auth.secret import RootSecret
from penstockd.keyring import KeyRing
from penstockd.store.places import CursorKey, Places

#: Opens and seals the places of hubs that have the harness's secret.
PLACES = Places(KeyRing.of(RootSecret(SECRET)), hours=24)
PLACES.use([CursorKey(1, 0.0, 0)])
#: The most changes of a transaction in which tests look for its last one.
_MOST = 100_000
#: A Sequences object belongs to one thread; the followers of some tests have their own.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=100_000)
def log_number(sequence: int) -> int:
    """The number in the log that has this sequence. Raises ValueError if there is none."""
    with _ONE_AT_A_TIME:
        return _find_number(sequence)


def _find_number(sequence: int) -> int:
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high) // 2
        if PLACES.sequences.sequence(middle) < sequence:
            low = middle + 1
        else:
            high = middle
    if PLACES.sequences.sequence(low) != sequence:
        raise ValueError(f"{sequence} is no sequence")
    return low


@lru_cache(maxsize=100_000)
def transaction_number(name: int, change: int) -> int:
    """The number of the last change of a transaction, given one of its changes. Raises ValueError
    if it is not found near there."""
    with _ONE_AT_A_TIME:
        for number in range(change, change + _MOST):
            if PLACES.sequences.transaction(number) == name:
                return number
    raise ValueError(f"{name} names no transaction")
