"""The content that the store keeps sealed under a root secret, and its re-sealing under another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag

from penstockd.keyring import LASTING, SIGNING, WEBHOOKS, Derives, FixedKey, KeyRing, Seal
from penstockd.store.database import Connection


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column whose values are sealed with the key of a purpose; ``bound`` is SQL for the text
    that each value is bound to, which also names its row."""

    what: str
    purpose: str
    table: str
    column: str
    bound: str


#: All columns of the store that are sealed under a root secret.
SEALED_COLUMNS = (
    SealedColumn("keys that sign tokens", SIGNING, "hub.signing_key", "private_key", "key_id"),
    SealedColumn(
        "secrets of webhooks",
        WEBHOOKS,
        "hub.webhook_secret",
        "sealed",
        "'secret/' || webhook_id || '/' || secret_id",
    ),
    SealedColumn(
        "headers of webhooks", WEBHOOKS, "hub.webhook", "headers", "'headers/' || webhook_id"
    ),
    SealedColumn("keys that outlive every secret", LASTING, "hub.lasting_key", "sealed", "purpose"),
)


async def seal_again(connection: Connection, ring: KeyRing, secret: Derives) -> None:
    """Seal everything in the store again under a secret. Values that no known secret opens stay."""
    for each in SEALED_COLUMNS:
        opening, seal = Seal(ring.keys(each.purpose)), make_seal(ring, secret, each.purpose)
        await connection.execute(f"LOCK TABLE {each.table} IN SHARE ROW EXCLUSIVE MODE")
        for bound, sealed in await _read_sealed(connection, each):
            with suppress(InvalidTag):
                secret_id, content = opening.open_by(sealed, bound)
                if secret_id != secret.secret_id:
                    await connection.execute(
                        f"UPDATE {each.table} SET {each.column} = $2 WHERE {each.bound} = $1",
                        bound,
                        seal.close(content, bound),
                    )


def make_seal(ring: KeyRing, secret: Derives, purpose: str) -> Seal:
    """The seal of a single secret for a purpose."""
    return Seal(FixedKey(ring.derive(secret, purpose).key))


async def _read_sealed(connection: Connection, each: SealedColumn) -> list[tuple[str, bytes]]:
    rows = await connection.fetch(
        f"SELECT {each.bound}, {each.column} FROM {each.table} WHERE {each.column} IS NOT NULL"
    )
    return [(row[0], row[1]) for row in rows]


async def count_sealed(
    connection: Connection, ring: KeyRing, each: SealedColumn, secret_id: str
) -> int:
    """The number of values of a column that are sealed under a secret."""
    return (await _list_openers(connection, ring, each)).count(secret_id)


async def count_unopened(connection: Connection, ring: KeyRing) -> int:
    """The number of sealed values that no known secret opens."""
    found = [await _list_openers(connection, ring, each) for each in SEALED_COLUMNS]
    return sum(openers.count(None) for openers in found)


async def _list_openers(
    connection: Connection, ring: KeyRing, each: SealedColumn
) -> list[str | None]:
    """For each value of a column, the id of the secret that opens it; None if none does."""
    seal, found = Seal(ring.keys(each.purpose)), list[str | None]()
    for bound, sealed in await _read_sealed(connection, each):
        try:
            found.append(seal.open_by(sealed, bound)[0])
        except InvalidTag:
            found.append(None)
    return found
