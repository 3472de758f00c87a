"""Lets a new root secret seal."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.audit.checkpoint import CheckpointFile, CheckpointKey, RingSigners
from penstockd.audit.sealer import Sealer
from penstockd.audit.stored_checkpoints import insert_checkpoint, read_checkpoint
from penstockd.auth.secret import SECOND_SECRET, SECRET, load_secrets, make_secret
from penstockd.config import Settings
from penstockd.errors import Conflict
from penstockd.installation import open_ring
from penstockd.keyring import CHECKPOINTS, LASTING, LASTING_KEYS, Derives, KeyRing
from penstockd.rotation.sealed import make_seal, seal_again
from penstockd.rotation.survey import name_missing
from penstockd.store.database import Connection, Database
from penstockd.store.places import ANNOUNCE_AHEAD, add_cursor_key
from penstockd.store.root_secrets import (
    ensure_root_secret,
    lock_root_secrets,
    read_root_secrets,
    register_secret,
)
from penstockd.store.sharing import read_live_nodes
from penstockd.up import OPERATORS_ERRORS, StartRefused, explain_error, open_store

#: How long to wait until every node has read a new secret from its data folder, in seconds.
NODES_SECONDS = 10.0
#: How often to try if the keeper signs a checkpoint at the same moment.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Rotation:
    """The secret that will seal, and the time from which it does."""

    secret_id: str
    seal_time: datetime


async def start_rotation(settings: Settings) -> Rotation:
    """Let the new secret seal from a minute on, once every running node knows it.

    Makes one in the data folder if the secret is kept there and there is none yet. Raises
    StartRefused, naming what is missing.
    """
    try:
        async with open_store(
            settings, "hub.root_secret", settings.database_keeper_url
        ) as database:
            ring = open_ring(settings)
            async with database.transaction() as connection:
                # A database that was only migrated has none: this one must not follow itself.
                await ensure_root_secret(connection, ring)
            new = _choose_new(settings, ring)
            await _check_nodes(settings, database, (ring.sealing.secret_id, new.secret_id))
            await _switch_secret(settings, database, ring, new)
            async with database.connection() as connection:
                time = await connection.fetchval(
                    "SELECT seal_time FROM hub.root_secret WHERE root_secret_id = $1",
                    new.secret_id,
                )
            return Rotation(new.secret_id, time)
    except Conflict as exc:
        raise StartRefused("other processes keep sealing the audit: try again") from exc
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


def _choose_new(settings: Settings, ring: KeyRing) -> Derives:
    """The known secret that the store does not know yet; made if the data folder keeps the secret
    and there is none. Raises StartRefused."""
    _check_alone(ring)
    registered = {term.secret_id for term in ring.terms}
    found = next((s for s in ring.opening if s.secret_id not in registered), None)
    if found is not None:
        return found
    if settings.secret is not None:
        raise StartRefused(
            "there is no new secret: set PENSTOCK_SECOND_SECRET to a new one, of 32 characters or"
            " more, on every node and restart the nodes one after the other; then try again"
        )
    second = settings.data_dir / SECOND_SECRET
    make_secret(second)
    ring.look_again()
    first, *others = load_secrets((None,), settings.data_dir)
    made = others[-1] if others else first
    if made.secret_id not in registered:
        return made
    if made is first:
        raise StartRefused(f"{second} holds the same secret as {SECRET}: remove it, and try again")
    if made.secret_id == ring.sealing.secret_id:
        raise StartRefused(
            f"{second} holds the secret that seals, so never remove it; the one in {SECRET} was"
            f" retired elsewhere: run penstock secret retire {first.secret_id} here, and try again"
        )
    raise StartRefused(f"{second} holds a secret that was retired: remove it, and try again")


def _check_alone(ring: KeyRing) -> None:
    """Raise StartRefused if two secrets are in use already."""
    unretired = [term.secret_id for term in ring.terms if not term.retired]
    if len(unretired) > 1:
        raise StartRefused(
            f"secret {unretired[0]} is still there beside {unretired[-1]}: retire it first,"
            f" penstock secret retire {unretired[0]}"
        )


async def _check_nodes(settings: Settings, database: Database, needed: Sequence[str]) -> None:
    """Wait a little until every running node can read these secrets. Raises StartRefused."""
    deadline = time.monotonic() + NODES_SECONDS
    while True:
        async with database.connection() as connection:
            nodes = await read_live_nodes(connection)
        missing = {secret_id: name_missing(nodes, secret_id) for secret_id in needed}
        if not any(missing.values()):
            return
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    how = (
        "set PENSTOCK_SECRET and PENSTOCK_SECOND_SECRET to these two there, and restart that node"
        if settings.secret is not None
        # Both: a node whose own second secret is replaced might lose the one that seals.
        else f"copy {SECRET} and {SECOND_SECRET} from {settings.data_dir} into its data folder"
    )
    which = "; ".join(
        f"secret {secret_id} is not known on {', '.join(names)}"
        for secret_id, names in missing.items()
        if names
    )
    raise StartRefused(f"{which}: {how}; then try again")


async def _switch_secret(
    settings: Settings, database: Database, ring: KeyRing, new: Derives
) -> None:
    """Let a secret seal after ANNOUNCE_AHEAD, when every process knows it, and seal the stored
    content again; does nothing if another rotation has done so meanwhile.

    Raises StartRefused if another secret is to seal by now, and Conflict if the audit is sealed
    meanwhile, after some tries.
    """
    sealer = Sealer(database, RingSigners(ring), CheckpointFile(settings.checkpoint_file))
    for tries in range(1, _TRIES + 1):
        try:
            # The key of a secret that has handed over meanwhile could sign nothing any more.
            async with database.connection() as connection:
                await read_root_secrets(connection, ring)
            if new.secret_id in {term.secret_id for term in ring.terms}:
                return
            await sealer.seal(checkpoint=True)  # the one that hands over to the new key
            async with database.transaction(isolation="repeatable_read") as connection:
                await lock_root_secrets(connection)
                await read_root_secrets(connection, ring)
                if new.secret_id in {term.secret_id for term in ring.terms}:
                    return
                _check_alone(ring)
                lasting = {purpose: ring.lasting(purpose) for purpose in LASTING_KEYS}
                await register_secret(connection, new.secret_id, ANNOUNCE_AHEAD)
                await _keep_lasting(connection, ring, new, lasting)
                await seal_again(connection, ring, new)
                await add_cursor_key(connection, new.secret_id)
                await _hand_over(connection, ring, new)
            return
        except Conflict:
            if tries == _TRIES:
                raise
            # Two that try at once must not meet again and again.
            await asyncio.sleep(random.uniform(0, 0.05 * tries))


async def _keep_lasting(
    connection: Connection, ring: KeyRing, new: Derives, lasting: Mapping[str, bytes]
) -> None:
    seal = make_seal(ring, new, LASTING)
    for purpose, key in lasting.items():
        await connection.execute(
            "INSERT INTO hub.lasting_key (purpose, sealed) VALUES ($1, $2)"
            " ON CONFLICT (purpose) DO UPDATE SET sealed = excluded.sealed",
            purpose,
            seal.close(key, purpose),
        )


async def _hand_over(connection: Connection, ring: KeyRing, new: Derives) -> None:
    """Sign, with the key that signs checkpoints, that the new secret's key follows."""
    last = await read_checkpoint(connection)
    assert last is not None, "one was signed before"
    signer = RingSigners(ring).choose_signer(last)
    key = CheckpointKey(ring.derive(new, CHECKPOINTS).key).public
    time = await connection.fetchval("SELECT now()")
    await insert_checkpoint(connection, signer.sign_rotation(last, time, key))
