"""Every singleton writes behind the fence: after its term it leaves nothing behind.

The test walks over everything that the keeper runs; each singleton needs something to do here, or
the test fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from pathlib import Path

import asyncpg
import pytest

from harness import PATIENCE
from penstockd.auth.keys import ensure_signing_key
from penstockd.config import Settings
from penstockd.installation import open_ring
from penstockd.keyring import SIGNING, Seal
from penstockd.organs import end_tasks, first_error
from penstockd.store.database import Database
from penstockd.store.fences import FencedDatabase, LeaseOver, SingletonLease, elapsed_seconds
from penstockd.store.singleton_rows import SINGLETONS, Holder
from penstockd.store.singletons import Leases
from penstockd.wiring import keeper_database, list_singletons, open_hub

AGO = dt.timedelta(days=400)
#: Work for each singleton.
WORK = {
    "sequencer": """
        SELECT set_config('penstock.revision', '1', true);
        INSERT INTO hub.change (ordinal, dataset, key, operation) VALUES (0, 'customers', 'c1', 3);
        INSERT INTO hub.pending (row_count) VALUES (1)""",
    "partitions": "SELECT 1",  # those of the next days do not exist yet
    "stored-replies": """
        INSERT INTO hub.stored_reply
            (consumer_id, request_id, method, digest, sight, reply, row_count, create_time)
        VALUES ('crm', 'r1', 'm', '', '', '', 1, now() - interval '400 days')""",
    "log-retention": """
        INSERT INTO hub.log_transaction
            (first_number, last_number, revision, day, write_time, stamp_time, mark)
        VALUES (1, 1, 1, current_date - 400, now() - interval '400 days',
                now() - interval '400 days', hub.new_mark());
        UPDATE hub.log_head SET last_number = 1""",
    "audit-sealer": """
        INSERT INTO hub.audit_entry (request_id, policy_revision, method, outcome)
        VALUES ('r1', 1, '/Get', 'OK')""",
    "audit-retention": """
        CREATE TABLE hub.audit_entry_20200101 PARTITION OF hub.audit_entry
        FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')""",
    "signing-keys": "UPDATE hub.signing_key SET create_time = now() - interval '400 days'",
    "webhooks": "SELECT 1",  # it determines where the log ends
    "webhook-retention": """
        INSERT INTO hub.consumer (consumer_id) VALUES ('old') ON CONFLICT DO NOTHING;
        INSERT INTO hub.webhook_notice (consumer_id, webhook_id, type, data, create_time)
        VALUES ('old', 'w', 't', '{}', now() - interval '400 days')""",
    "lost-streams": """
        INSERT INTO hub.open_stream VALUES ('s1', 'w1', 'r1',
            '{"request_id": "r1", "method": "/Watch", "shown": null, "phase": "END"}', 1, 1)""",
    "lost-portions": "INSERT INTO hub.spender (expire_time) VALUES (now())",
    "usage": """
        INSERT INTO hub.audit_chain VALUES (current_date, 0, 1, '', 1);
        INSERT INTO hub.audit_seal VALUES (current_date, 1, '{1}', '')""",
    "usage-days": "INSERT INTO hub.usage_place VALUES (current_date - 9, 0, 1, 1, 0)",
}


async def contents(database: Database) -> dict[str, str]:
    """All tables of the hub with their rows, except leases."""
    async with database.connection() as connection:
        names = [
            row[0]
            for row in await connection.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace = 'hub'::regnamespace AND relname <> 'singleton'"
            )
        ]
        found = {}
        for name in names:
            with contextlib.suppress(asyncpg.UndefinedTableError):  # a singleton has dropped it
                found[name] = await connection.fetchval(
                    "SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text))"
                    f' FROM hub."{name}" AS t'
                )
        return found


async def lease_of(database: Database, name: str, *, over: bool) -> SingletonLease:
    """A lease that is in force; or one whose next term another holds, without its holder
    knowing."""
    async with database.connection() as connection:
        acquired = await connection.fetchval(
            "INSERT INTO hub.singleton VALUES ($1, $2, '', '', now(), now() + interval '1 hour')"
            " RETURNING acquire_time",
            name,
            8 if over else 7,
        )
    return SingletonLease(
        name, 7, acquired, elapsed_seconds() + 3600, elapsed_seconds, Holder("", "")
    )


@pytest.mark.parametrize("name", SINGLETONS)
async def test_a_singleton_whose_term_is_over_writes_nothing(
    name: str, store_url: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=store_url, audit_days=1)
    async with open_hub(settings, keeper_database(settings)) as hub:
        database = hub.database
        async with database.transaction() as connection:
            await ensure_signing_key(connection, Seal(open_ring(settings).keys(SIGNING)))
            await connection.execute(WORK[name])
        everything = list_singletons(settings, hub, Leases(database, "n", "host"))
        assert set(everything) == set(SINGLETONS)
        work = everything[name]
        before = await contents(database)
        lease = await lease_of(database, name, over=True)
        with pytest.raises((LeaseOver, ExceptionGroup)) as caught:
            async with asyncio.timeout(PATIENCE):
                await work(FencedDatabase(database, lease))
        assert isinstance(first_error(caught.value), LeaseOver)
        assert await contents(database) == before
        # The control: in its own term it does something.
        async with database.connection() as connection:
            await connection.execute("DELETE FROM hub.singleton")
        lease = await lease_of(database, name, over=False)
        working = asyncio.ensure_future(work(FencedDatabase(database, lease)))
        async with asyncio.timeout(PATIENCE):
            while await contents(database) == before:
                assert not working.done(), working.exception()
                await asyncio.sleep(0.05)
        await end_tasks([working])
