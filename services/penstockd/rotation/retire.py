"""Retires a root secret: nothing is opened with it any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.auth.secret import SECOND_SECRET, SECRET, load_secrets, sync_folder
from penstockd.config import Settings
from penstockd.installation import open_ring
from penstockd.keyring import KeyRing
from penstockd.rotation.sealed import count_unopened, seal_again
from penstockd.rotation.survey import SecretStatus, describe_protected, list_statuses
from penstockd.store.database import Connection
from penstockd.store.root_secrets import lock_root_secrets, read_root_secrets
from penstockd.up import OPERATORS_ERRORS, StartRefused, explain_error, open_store

#: No process adds a renewed digest until the secret is retired (see ``auth.uses``). A deletion of a
#: credential takes the locks in the same order.
_LOCK_DIGESTS = "LOCK TABLE hub.credential, hub.credential_digest IN SHARE ROW EXCLUSIVE MODE"
#: Renewed digests replace those under the retired secret. This changes the policy, so that every
#: process reads them.
_FOLD_DIGESTS = """
WITH d AS (DELETE FROM hub.credential_digest RETURNING credential_id, root_secret_id, digest)
UPDATE hub.credential AS c SET digest = d.digest, root_secret_id = d.root_secret_id
FROM d WHERE d.credential_id = c.credential_id
"""


@dataclass(frozen=True, slots=True)
class Retirement:
    """The result of ``retire_secret``. ``promoted``: the other secret replaced the retired one in
    the data folder."""

    secret_id: str
    promoted: bool


async def retire_secret(settings: Settings, secret_id: str, *, now: bool) -> Retirement:
    """Stop opening anything with a secret.

    Raises StartRefused if the secret seals, if only it may open what the store keeps sealed and it
    is not known here, or if something depends on it, unless ``now`` is set: then what depends on it
    is refused from then on.
    """
    try:
        async with open_store(
            settings, "hub.root_secret", settings.database_keeper_url
        ) as database:
            ring = open_ring(settings)
            async with database.transaction() as connection:
                await lock_root_secrets(connection)
                await read_root_secrets(connection, ring)
                if ring.find(secret_id) is not None:
                    await seal_again(connection, ring, ring.sealing)
                await connection.execute(_LOCK_DIGESTS)
                found = await list_statuses(settings, connection, ring)
                if not _check_retirable(found, secret_id, now=now):
                    await _check_opened(connection, ring, secret_id)
                await connection.execute(_FOLD_DIGESTS)
                await connection.execute(
                    "UPDATE hub.root_secret SET retire_time = coalesce(retire_time, now())"
                    " WHERE root_secret_id = $1",
                    secret_id,
                )
            promoted = _promote_second(settings, secret_id, ring.sealing.secret_id)
            return Retirement(secret_id, promoted)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


def _check_retirable(found: Sequence[SecretStatus], secret_id: str, *, now: bool) -> bool:
    """Raise StartRefused if a secret cannot be retired, naming what depends on it; returns whether
    it is retired already."""
    status = next((s for s in found if s.secret_id == secret_id), None)
    if status is None or status.state == "new":
        raise StartRefused(f"there is no secret {secret_id} to retire: see penstock secret status")
    if status.state in ("seals", "next"):
        raise StartRefused(f"secret {secret_id} seals, or is to: rotate it first")
    held = [p for p in status.protects if p.holds]
    if status.state == "opens" and held and not now:
        raise StartRefused(
            f"secret {secret_id} still protects "
            + ", ".join(describe_protected(p) for p in held)
            + "; wait, or retire it with --now: that is refused from then on"
        )
    return status.state == "retired"


async def _check_opened(connection: Connection, ring: KeyRing, secret_id: str) -> None:
    """Raise StartRefused if a secret may be the only one that opens some of what the store keeps
    sealed: it was not sealed again, since the secret is not known here, or seals by the clock."""
    if ring.sealing.secret_id == secret_id:
        raise StartRefused(f"by the clock of this machine, secret {secret_id} still seals")
    if ring.find(secret_id) is None and (lost := await count_unopened(connection, ring)):
        raise StartRefused(
            f"no root secret that is known here opens {lost} of the values that the database keeps"
            f" sealed: retire {secret_id} where it is known"
        )


def _promote_second(settings: Settings, retired: str, sealing: str) -> bool:
    """Replace a retired first secret of the data folder by the second one, if that one seals."""
    if settings.secret is not None:
        return False
    found = [secret.secret_id for secret in load_secrets((None,), settings.data_dir)]
    if found != [retired, sealing]:
        return False
    os.replace(settings.data_dir / SECOND_SECRET, settings.data_dir / SECRET)
    sync_folder(settings.data_dir)
    return True
