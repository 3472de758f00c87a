"""The rotation knows everything that is sealed under a root secret, in whatever table it is."""

from __future__ import annotations

import ast
from pathlib import Path

import penstockd
from penstockd import keyring
from penstockd.rotation.sealed import SEALED_COLUMNS
from penstockd.store.database import Database

#: Columns of bytes that are not sealed.
PLAIN = {
    ("audit_archive", "last_hash"),
    ("audit_chain", "last_hash"), ("audit_checkpoint", "hash"), ("audit_checkpoint", "previous"),
    ("audit_checkpoint", "public_key"), ("audit_checkpoint", "signature"),
    ("audit_entry", "keys"), ("audit_entry", "shown"), ("audit_seal", "hashes"),
    ("audit_shown", "digest"), ("change", "after"), ("change", "before"),
    ("credential", "digest"), ("credential_digest", "digest"), ("epoch", "lost_checkpoint"),
    ("log_head", "mark"), ("log_head", "oldest_mark"), ("log_transaction", "mark"),
    ("log_transaction", "written_mark"),
    ("pending", "mark"), ("policy_document", "digest"), ("policy_revision", "digest"),
    ("policy_revision", "plans"),
    ("receipt", "request_digest"), ("receipt", "sha256"), ("stored_reply", "digest"),
    ("stored_reply", "reply"), ("stored_reply", "sight"),
    ("usage_digest", "days"), ("usage_digest", "digest"), ("usage_digest", "hours"),
    ("usage_digest", "minutes"), ("webhook_attempt", "reply_body"),
    ("webhook_event", "after"), ("webhook_event", "mark"),
}  # fmt: skip
#: What becomes of each purpose of keys at a rotation: it is sealed again (SEALED_COLUMNS), lasts
#: (LASTING_KEYS), or the survey tells until when the earlier secret is needed for it.
SURVEYED = {
    keyring.CREDENTIALS, keyring.PAGE_TOKENS, keyring.CURSORS, keyring.CHECKPOINTS,
    keyring.STREAM_TICKETS,
}  # fmt: skip
#: Nobody opens what these make: headers name a consumer otherwise after a rotation.
RENAMED = {keyring.PARTITIONS}


async def test_every_column_of_bytes_is_sealed_again_or_known_to_be_plain(
    store_url: str,
) -> None:
    database = Database(store_url, size=1)
    await database.open()
    try:
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT c.relname, a.attname FROM pg_attribute AS a"
                " JOIN pg_class AS c ON c.oid = a.attrelid"
                " WHERE c.relnamespace = 'hub'::regnamespace AND c.relkind IN ('r', 'p')"
                " AND NOT c.relispartition AND a.atttypid = 'bytea'::regtype AND a.attnum > 0"
            )
    finally:
        await database.close()
    sealed = {(c.table.removeprefix("hub."), c.column) for c in SEALED_COLUMNS}
    found = {tuple(row) for row in rows}
    assert sealed <= found
    assert found - sealed == PLAIN, "seal it again at a rotation, or name it here"


def test_the_rotation_knows_every_purpose_of_keys() -> None:
    purposes = {
        value for name, value in vars(keyring).items() if name.isupper() and isinstance(value, str)
    }
    sealed = {column.purpose for column in SEALED_COLUMNS}
    assert purposes == sealed | set(keyring.LASTING_KEYS) | SURVEYED | RENAMED


def test_nobody_derives_a_key_by_a_purpose_of_his_own() -> None:
    given = set()
    for path in Path(penstockd.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                for argument in node.args[-1:]:
                    named = node.func.attr in ("derive", "keys", "lasting")
                    if named and isinstance(argument, ast.Constant):
                        given.add((path.name, argument.value))
    assert given == {("secret.py", "fingerprint")}
