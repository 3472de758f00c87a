"""Checkpoints: signed statements of how far a day's chain has come, each naming the previous one.

They are stored in the database and appended to a file that is meant to be shipped off the host:
rewriting the database later contradicts the file. The signing key is derived from the root secret;
it is in no database.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import enum
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import orjson
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from penstockd.keyring import CHECKPOINTS, KeyRing, SecretMismatch

#: How much of the end of a file is read to find its last line.
_TAIL_BYTES = 64 * 1024

_log = structlog.get_logger(__name__)


class CheckpointKind(enum.StrEnum):
    """What a checkpoint states.

    SEAL: the day's chain has this hash at this sequence.
    USAGE: the rollups of usage of the day, from ``sequence`` entries, have the digest ``hash``.
    PRUNE: the day's chain, which ends with this hash at this sequence, was archived to a file and
    dropped. Later checkpoints of the day belong to another chain of that day.
    ROTATE: the next checkpoint is signed with another key, whose public half is ``hash``.
    RESTORE: an operator declared that the database has gone back in time. The file's checkpoints
    after number ``sequence`` and before this one were undone. It follows the last checkpoint of the
    file (``previous``), and in the database the one with the digest ``hash``.
    """

    SEAL = "SEAL"
    USAGE = "USAGE"
    PRUNE = "PRUNE"
    ROTATE = "ROTATE"
    RESTORE = "RESTORE"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint of a database; ``number`` counts from 1.

    ``previous`` is the digest of the previous one, b"" for the first. ``sequence`` is how many
    entries the day's chain holds, ``hash`` the hash of the last of them. In a file, ``epochs`` are
    the ids of the epochs of the database that had the checkpoint, the newest last: a note by which
    the hub tells whether the loss of a checkpoint was noticed before. It is not signed.
    """

    number: int
    time: dt.datetime
    kind: CheckpointKind
    day: dt.date
    sequence: int
    hash: bytes
    previous: bytes
    public_key: bytes
    signature: bytes = b""
    epochs: tuple[UUID, ...] = field(default=(), compare=False)

    @property
    def statement(self) -> bytes:
        """The signed bytes."""
        lines = (
            "penstock audit checkpoint 1",
            str(self.number),
            time_text(self.time),
            self.kind,
            self.day.isoformat(),
            str(self.sequence),
            self.hash.hex(),
            self.previous.hex(),
            self.public_key.hex(),
        )
        return "\n".join(lines).encode()

    @property
    def digest(self) -> bytes:
        """The digest by which the next one names it."""
        return hashlib.sha256(self.statement + self.signature).digest()

    def signed_by(self, key: bytes) -> bool:
        """Whether it names this public key and has a valid signature of it."""
        if self.public_key != key:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(self.signature, self.statement)
        except (InvalidSignature, ValueError):
            return False
        return True

    def line(self) -> str:
        """The checkpoint as a line of the file, without a newline."""
        noted = {"epochs": [str(epoch) for epoch in self.epochs]} if self.epochs else {}
        return orjson.dumps(
            {
                "number": self.number,
                "time": time_text(self.time),
                "kind": self.kind,
                "day": self.day.isoformat(),
                "sequence": self.sequence,
                "hash": self.hash.hex(),
                "previous": self.previous.hex(),
                "publicKey": key_text(self.public_key),
                "signature": base64.b64encode(self.signature).decode(),
                **noted,
            }
        ).decode()

    @classmethod
    def parse(cls, line: str | bytes) -> Checkpoint:
        """Parse a line of the file. Raises ValueError."""
        try:
            found: dict[str, Any] = orjson.loads(line)
            return cls(
                int(found["number"]),
                dt.datetime.fromisoformat(found["time"]),
                CheckpointKind(found["kind"]),
                dt.date.fromisoformat(found["day"]),
                int(found["sequence"]),
                bytes.fromhex(found["hash"]),
                bytes.fromhex(found["previous"]),
                parse_key(found["publicKey"]),
                base64.b64decode(found["signature"], validate=True),
                tuple(UUID(epoch) for epoch in found.get("epochs", ())),
            )
        except (KeyError, TypeError, AttributeError, binascii.Error) as exc:
            raise ValueError("not a checkpoint") from exc


class Signers(Protocol):
    """Those who can sign checkpoints."""

    def choose_signer(self, last: Checkpoint | None) -> CheckpointKey:
        """The key that signs the checkpoint after ``last``."""
        ...


class CheckpointKey:
    """Signs checkpoints (Ed25519)."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def choose_signer(self, last: Checkpoint | None) -> CheckpointKey:
        """This key, the only one there is."""
        return self

    def sign(
        self, last: Checkpoint | None, time: dt.datetime, day: dt.date, sequence: int, hash: bytes
    ) -> Checkpoint:
        """The checkpoint after ``last``: it states that the day's chain has this hash."""
        return self._signed(last, time, CheckpointKind.SEAL, day, sequence, hash)

    def sign_usage(
        self, last: Checkpoint | None, time: dt.datetime, day: dt.date, entries: int, digest: bytes
    ) -> Checkpoint:
        """The checkpoint after ``last``: it states the digest of the day's usage."""
        return self._signed(last, time, CheckpointKind.USAGE, day, entries, digest)

    def sign_prune(
        self, last: Checkpoint, time: dt.datetime, day: dt.date, sequence: int, hash: bytes
    ) -> Checkpoint:
        """The checkpoint after ``last``: it states that the hub archived and dropped the day's
        chain, which ends with this hash."""
        return self._signed(last, time, CheckpointKind.PRUNE, day, sequence, hash)

    def sign_rotation(self, last: Checkpoint, time: dt.datetime, key: bytes) -> Checkpoint:
        """The checkpoint after ``last``: it states that those after it are signed with ``key``."""
        day = time.astimezone(dt.UTC).date()
        return self._signed(last, time, CheckpointKind.ROTATE, day, 0, key)

    def sign_restore(
        self, last: Checkpoint | None, filed: Checkpoint, common: int, time: dt.datetime
    ) -> Checkpoint:
        """The checkpoint after ``last`` of the database and ``filed`` of the file: it states that
        what the file has after number ``common`` was undone."""
        number = max(filed.number, last.number if last is not None else 0) + 1
        digest = last.digest if last is not None else b""
        day = time.astimezone(dt.UTC).date()
        return self._complete(
            number, time, CheckpointKind.RESTORE, day, common, digest, filed.digest
        )

    def _signed(
        self,
        last: Checkpoint | None,
        time: dt.datetime,
        kind: CheckpointKind,
        day: dt.date,
        sequence: int,
        hash: bytes,
    ) -> Checkpoint:
        number, previous = (last.number + 1, last.digest) if last is not None else (1, b"")
        return self._complete(number, time, kind, day, sequence, hash, previous)

    def _complete(
        self,
        number: int,
        time: dt.datetime,
        kind: CheckpointKind,
        day: dt.date,
        sequence: int,
        hash: bytes,
        previous: bytes,
    ) -> Checkpoint:
        bare = Checkpoint(number, time, kind, day, sequence, hash, previous, self.public)
        return Checkpoint(
            number, time, kind, day, sequence, hash, previous, self.public,
            self._private.sign(bare.statement),
        )  # fmt: skip


class RingSigners:
    """The checkpoint keys of the known root secrets."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def keys(self) -> Sequence[CheckpointKey]:
        """The keys, that of the secret that seals now first."""
        return [CheckpointKey(each.key) for each in self._ring.keys(CHECKPOINTS).opening()]

    @property
    def public(self) -> Sequence[bytes]:
        """Their public halves."""
        return [key.public for key in self.keys]

    def choose_signer(self, last: Checkpoint | None) -> CheckpointKey:
        """The key that signed ``last``, or the one that ``last`` hands over to; the first if it is
        not known. Raises SecretMismatch if the one that ``last`` hands over to is not known."""
        keys = self.keys
        if last is None:
            return keys[0]
        rotated = last.kind is CheckpointKind.ROTATE
        wanted = last.hash if rotated else last.public_key
        if rotated and wanted not in self.public:
            self._ring.look_again()
            keys = self.keys
        found = next((key for key in keys if key.public == wanted), None)
        if found is None and rotated:
            raise SecretMismatch("the root secret that signs checkpoints is not known here")
        return found or keys[0]


class CheckpointFile:
    """The file of checkpoints, one JSON object per line. It is only ever appended to.

    It is opened for each append, so that it can be moved away at any time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Append lines; they are on disk on return. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = "".join(c.line() + "\n" for c in checkpoints).encode()
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a truncated line stays as it is
                    data = b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def last(self) -> Checkpoint | None:
        """The last checkpoint in it, or None. Raises OSError."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return None
        return next(_parse_lines(reversed(lines)), None)

    def read(self) -> list[Checkpoint]:
        """All checkpoints in it, skipping truncated lines. Raises OSError."""
        with self.path.open("rb") as file:
            return list(_parse_lines(file))


def _parse_lines(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    for line in lines:
        try:
            yield Checkpoint.parse(line)
        except ValueError:
            continue


def time_text(time: dt.datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def key_text(key: bytes) -> str:
    """A public key in the text form that people exchange."""
    return base64.b64encode(key).decode()


def parse_key(text: str) -> bytes:
    """Parse a public key. Raises ValueError."""
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("not a public key") from exc
    if len(key) != 32:
        raise ValueError("not a public key")
    return key


def fingerprint_key(key: bytes) -> str:
    """The fingerprint that people compare: the SHA-256 of a public key."""
    return "SHA256:" + hashlib.sha256(key).hexdigest()


def read_filed(file: CheckpointFile) -> list[Checkpoint]:
    """All checkpoints of the file; if it cannot be read, logs that and returns none."""
    try:
        return file.read()
    except OSError as exc:
        _log.warning("checkpoints_not_read", path=str(file.path), error=str(exc))
        return []
