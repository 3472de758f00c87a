"""The ring of root secrets: which secret seals, which ones open, and what outlives them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest
from cryptography.exceptions import InvalidTag

from penstockd.auth.secret import RootSecret
from penstockd.keyring import (
    LASTING,
    LASTING_KEYS,
    WEBHOOKS,
    FixedKey,
    KeyRing,
    Seal,
    SecretMismatch,
    SecretTerm,
)

ONE, TWO, THREE = (RootSecret(secrets.token_urlsafe(40)) for _ in range(3))
SWITCH = 1000.0


class Known:
    """The secrets that can be read, and the time."""

    def __init__(self, *found: RootSecret) -> None:
        self.found: Sequence[RootSecret] = found
        self.now = SWITCH + 1

    def ring(self, *terms: SecretTerm, kept: dict[str, bytes] | None = None) -> KeyRing:
        ring = KeyRing(lambda: self.found, lambda: self.now)
        if terms:
            ring.use(terms, kept or {})
        return ring


def term(secret: RootSecret, time: float, *, retired: bool = False) -> SecretTerm:
    return SecretTerm(secret.secret_id, time, retired)


BOTH = (term(ONE, 0), term(TWO, SWITCH))


def test_the_next_secret_opens_before_it_seals() -> None:
    known = Known(TWO, ONE)
    ring, sealed = known.ring(*BOTH), Seal(KeyRing.of(TWO).keys(WEBHOOKS)).close(b"c", "to")
    known.now = SWITCH - 1
    assert ring.sealing is ONE
    assert Seal(ring.keys(WEBHOOKS)).open(sealed, "to") == b"c"
    known.now = SWITCH
    assert ring.sealing is TWO and list(ring.opening) == [TWO, ONE]


def test_a_retired_secret_opens_nothing() -> None:
    sealed = Seal(KeyRing.of(ONE).keys(WEBHOOKS)).close(b"c", "to")
    assert Seal(Known(ONE, TWO).ring(*BOTH).keys(WEBHOOKS)).open(sealed, "to") == b"c"
    ring = Known(ONE, TWO).ring(term(ONE, 0, retired=True), term(TWO, SWITCH))
    assert ring.find(ONE.secret_id) is None
    with pytest.raises(InvalidTag):
        Seal(ring.keys(WEBHOOKS)).open(sealed, "to")


def test_what_is_sealed_for_one_place_or_purpose_opens_for_no_other() -> None:
    ring = Known(ONE, TWO).ring(*BOTH)
    sealed = Seal(ring.keys(WEBHOOKS)).close(b"c", "to")
    for seal, bound in ((Seal(ring.keys(WEBHOOKS)), "other"), (Seal(ring.keys(LASTING)), "to")):
        with pytest.raises(InvalidTag):
            seal.open(sealed, bound)


def test_a_secret_that_comes_to_the_data_folder_later_is_found() -> None:
    known = Known(ONE)
    ring = known.ring(BOTH[0])
    sealed = Seal(KeyRing.of(TWO).keys(WEBHOOKS)).close(b"c", "to")
    with pytest.raises(InvalidTag):
        Seal(ring.keys(WEBHOOKS)).open(sealed, "to")
    known.found = (ONE, TWO)
    assert Seal(ring.keys(WEBHOOKS)).open_by(sealed, "to") == (TWO.secret_id, b"c")
    ring.use(BOTH, {})
    assert ring.sealing is TWO


@pytest.mark.parametrize("now", [SWITCH - 1, SWITCH + 1])
def test_a_secret_that_seals_or_is_to_must_be_known(now: float) -> None:
    known = Known(ONE)
    known.now = now
    with pytest.raises(SecretMismatch, match=TWO.secret_id):
        known.ring(*BOTH)
    # An earlier secret may be missing: the hub refuses what needs it, and nothing else.
    known.found = (TWO,)
    if now > SWITCH:
        assert known.ring(*BOTH).opening == [TWO]


@pytest.mark.parametrize("purpose", LASTING_KEYS)
def test_a_lasting_key_is_the_same_under_every_secret(purpose: str) -> None:
    first = KeyRing.of(ONE).lasting(purpose)
    assert first == ONE.derive(purpose) and first != TWO.derive(purpose)
    kept = {purpose: Seal(FixedKey(TWO.derive(LASTING))).close(first, purpose)}
    assert Known(ONE, TWO).ring(*BOTH, kept=kept).lasting(purpose) == first
    assert Known(TWO).ring(*BOTH, kept=kept).lasting(purpose) == first
    # Negative control: it is lost with the first secret unless it was kept.
    with pytest.raises(SecretMismatch):
        Known(TWO).ring(*BOTH).lasting(purpose)


def test_without_a_word_of_the_store_the_first_secret_seals() -> None:
    assert Known(ONE, TWO).ring().sealing is ONE
    assert ONE.secret_id not in repr(ONE) and len({s.secret_id for s in (ONE, TWO, THREE)}) == 3


def test_a_secret_in_force_stays_known_after_its_file_was_replaced() -> None:
    known = Known(ONE, TWO)
    ring = known.ring(term(ONE, 0, retired=True), term(TWO, SWITCH))
    known.found = (ONE, THREE)
    ring.look_again()
    assert ring.sealing is TWO and ONE not in ring.opening
    # Others are told what a restart would find.
    assert list(ring.known) == [ONE.secret_id, THREE.secret_id]
    # Negative control: nothing needs a retired one any more.
    retired = [term(each, 0, retired=True) for each in (ONE, TWO)]
    ring.use([*retired, term(THREE, SWITCH)], {})
    ring.look_again()
    assert list(ring.opening) == [THREE]


def test_a_retired_secret_never_seals_whatever_the_clock_says() -> None:
    known = Known(ONE, TWO)
    known.now = SWITCH - 1
    assert known.ring(term(ONE, 0, retired=True), term(TWO, SWITCH)).sealing is TWO
    with pytest.raises(SecretMismatch, match="every root secret"):
        known.ring(term(ONE, 0, retired=True), term(TWO, SWITCH, retired=True))


def test_the_first_secret_seals_before_its_time() -> None:
    known = Known(TWO, ONE)
    known.now = SWITCH - 1
    assert known.ring(term(ONE, SWITCH)).sealing is ONE
