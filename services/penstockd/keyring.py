"""The root secrets: which one seals, and which ones still open. Two overlap during a rotation.

A process knows one or two root secrets. The store states since when each of them seals, so all
nodes change over at the same moment: see ``store.root_secrets`` for what it keeps, and ``rotation``
for the change itself. Sealed content names no secret: opening tries the one that seals first, and
then every other one that is known and not retired.

Keys that must outlive every secret are *lasting*: at a rotation the store keeps them, sealed under
the secret that seals from then on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: The purposes of the keys derived from a secret.
SIGNING, WEBHOOKS, LASTING = "signing-key", "webhooks", "lasting-keys"
#: Names consumers in headers, by hashes that tell nothing.
PARTITIONS = "partitions"
CREDENTIALS, PAGE_TOKENS, CURSORS = "credentials", "page-tokens", "cursors"
CHECKPOINTS, STREAM_TICKETS = "audit-checkpoint", "stream-tickets"
#: The lasting keys: sequences must keep their order, and consumers join records by masked hashes.
SEQUENCES, MASKS = "sequences", "mask"
LASTING_KEYS = (SEQUENCES, MASKS)
_NONCE = 12


class SecretMismatch(Exception):
    """The database was set up under another root secret; the message names the setting."""


class Derives(Protocol):
    """A root secret."""

    @property
    def secret_id(self) -> str:
        """An id of the secret, which reveals nothing of it."""
        ...

    def derive(self, purpose: str) -> bytes:
        """The key for a purpose."""
        ...


@dataclass(frozen=True, slots=True)
class SecretTerm:
    """The store's record of a root secret: since when it seals, in Unix seconds, and whether it is
    retired."""

    secret_id: str
    seal_time: float
    retired: bool = False


@dataclass(frozen=True, slots=True)
class DerivedKey:
    """The key that a secret derives for some purpose."""

    secret_id: str
    key: bytes


class Keys(Protocol):
    """The keys of one purpose."""

    def sealing(self) -> DerivedKey:
        """The key that seals now."""
        ...

    def opening(self) -> Sequence[DerivedKey]:
        """The keys that open, the sealing one first."""
        ...

    def look_again(self) -> bool:
        """Read the known secrets again; returns whether there are others than before."""
        ...


class KeyRing:
    """The root secrets that a process knows, and the store's records of them."""

    def __init__(
        self, load: Callable[[], Sequence[Derives]], clock: Callable[[], float] = time.time
    ) -> None:
        """``load`` reads the known secrets, the first of which seals as long as the store names
        none. Raises what ``load`` raises."""
        self._load, self._clock = load, clock
        self._secrets: Mapping[str, Derives] = {}
        self._read: Sequence[str] = ()
        self._terms: Sequence[SecretTerm] = ()
        self._kept: Mapping[str, bytes] = {}
        self._derived: dict[tuple[str, str], bytes] = {}
        self.look_again()

    @classmethod
    def of(cls, secret: Derives) -> KeyRing:
        """A ring with a single secret."""
        return cls(lambda: [secret])

    def look_again(self) -> bool:
        """Read the known secrets again; returns whether there are others than before.

        A secret that is not retired stays known even if it can no longer be read: otherwise this
        process could not open, or seal, what the other ones do.
        """
        found = {secret.secret_id: secret for secret in self._load()}
        self._read = list(found)
        for term in self._terms:
            if not term.retired and term.secret_id in self._secrets:
                found.setdefault(term.secret_id, self._secrets[term.secret_id])
        changed = found.keys() != self._secrets.keys()
        if changed:
            self._secrets = found
        return changed

    def use(self, terms: Sequence[SecretTerm], kept: Mapping[str, bytes]) -> None:
        """Use these terms, and these sealed lasting keys, from now on.

        Raises SecretMismatch if a secret that seals, or will seal, is not known, or if all are
        retired.
        """
        terms = sorted(terms, key=lambda term: term.seal_time)
        if any(term.secret_id not in self._secrets for term in terms):
            self.look_again()
        needed = {term.secret_id for term in self._find_sealing(terms)}
        if terms and not needed:
            raise SecretMismatch("every root secret of the database is retired")
        if missing := sorted(needed - self._secrets.keys()):
            raise SecretMismatch(
                f"the database needs the root secret {', '.join(missing)}, which is not known here:"
                " set PENSTOCK_SECRET or PENSTOCK_SECOND_SECRET to it, or copy the file 'secret' or"
                " 'second-secret' from the data folder of a hub that has it"
            )
        self._terms, self._kept = terms, dict(kept)

    def _find_sealing(self, terms: Sequence[SecretTerm]) -> Sequence[SecretTerm]:
        """The term of the secret that seals now, and those of its successors; none if all are
        retired. The first one seals even before its time, which another clock has set."""
        live = [term for term in terms if not term.retired]
        begun = [at for at, term in enumerate(live) if term.seal_time <= self._clock()]
        return live[begun[-1] if begun else 0 :]

    @property
    def known(self) -> Sequence[str]:
        """The ids of the secrets that could be read at the last look."""
        return list(self._read)

    @property
    def terms(self) -> Sequence[SecretTerm]:
        """The store's records of the secrets, in the order in which they seal."""
        return self._terms

    @property
    def original(self) -> str:
        """The id of the secret under which the store was set up."""
        return self._terms[0].secret_id if self._terms else next(iter(self._secrets))

    @property
    def sealing(self) -> Derives:
        """The secret that seals now. Raises SecretMismatch if it is not known: nothing is sealed
        with another one."""
        if not self._terms:
            return next(iter(self._secrets.values()))
        wanted = self._find_sealing(self._terms)[0].secret_id
        if wanted not in self._secrets:
            raise SecretMismatch(f"the root secret {wanted}, which seals, is not known here")
        return self._secrets[wanted]

    @property
    def opening(self) -> Sequence[Derives]:
        """The known secrets that are not retired, the sealing one first."""
        first = self.sealing
        retired = {term.secret_id for term in self._terms if term.retired}
        others = (s for name, s in self._secrets.items() if name not in retired and s is not first)
        return [first, *others]

    def find(self, secret_id: str) -> Derives | None:
        """The secret with an id, "" for the original one; None if it does not open."""
        wanted = secret_id or self.original
        return next((s for s in self.opening if s.secret_id == wanted), None)

    def keys(self, purpose: str) -> Keys:
        """The keys of a purpose."""
        return _RingKeys(self, purpose)

    def derive(self, secret: Derives, purpose: str) -> DerivedKey:
        """The key of a known secret for a purpose; derived once."""
        at = (secret.secret_id, purpose)
        if at not in self._derived:
            self._derived[at] = secret.derive(purpose)
        return DerivedKey(secret.secret_id, self._derived[at])

    def lasting(self, purpose: str) -> bytes:
        """A lasting key, the same under every secret. Raises SecretMismatch."""
        sealed = self._kept.get(purpose)
        if sealed is not None:
            try:
                return Seal(self.keys(LASTING)).open(sealed, purpose)
            except InvalidTag as exc:
                raise SecretMismatch(f"no known root secret opens the key {purpose}") from exc
        original = self.find("")
        if original is None:
            raise SecretMismatch(
                f"the key {purpose} comes from root secret {self.original}, not known here"
            )
        return self.derive(original, purpose).key


class _RingKeys:
    """The keys of one purpose of a ring."""

    def __init__(self, ring: KeyRing, purpose: str) -> None:
        self._ring, self._purpose = ring, purpose

    def sealing(self) -> DerivedKey:
        return self._ring.derive(self._ring.sealing, self._purpose)

    def opening(self) -> Sequence[DerivedKey]:
        return [self._ring.derive(secret, self._purpose) for secret in self._ring.opening]

    def look_again(self) -> bool:
        return self._ring.look_again()


class FixedKey:
    """A purpose with a single key."""

    def __init__(self, key: bytes) -> None:
        self._key = DerivedKey("", key)

    def sealing(self) -> DerivedKey:
        """The key."""
        return self._key

    def opening(self) -> Sequence[DerivedKey]:
        """The key."""
        return [self._key]

    def look_again(self) -> bool:
        """False: there is never another one."""
        return False


class Seal:
    """Seals what the database stores but must not know (AES-256-GCM)."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def close(self, content: bytes, bound_to: str) -> bytes:
        """The sealed content; opening it takes the same ``bound_to``."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + AESGCM(self._keys.sealing().key).encrypt(nonce, content, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """The content. Raises ``cryptography.exceptions.InvalidTag``."""
        return self.open_by(sealed, bound_to)[1]

    def open_by(self, sealed: bytes, bound_to: str) -> tuple[str, bytes]:
        """The id of the secret under which the content is sealed, and the content.

        Raises ``cryptography.exceptions.InvalidTag``.
        """
        found = self._try_keys(sealed, bound_to)
        # Another process may seal under a secret that came to the data folder a moment ago.
        if found is None and self._keys.look_again():
            found = self._try_keys(sealed, bound_to)
        if found is None:
            raise InvalidTag
        return found

    def _try_keys(self, sealed: bytes, bound_to: str) -> tuple[str, bytes] | None:
        for each in self._keys.opening():
            try:
                cipher = AESGCM(each.key)
                opened = cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound_to.encode())
            except InvalidTag:
                continue
            return each.secret_id, opened
        return None
