"""An address that is pointed to another server while the earlier one lives, as with DNS or a
virtual IP: the earlier one gets no more writes, although connections to it are still open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from clusters import Cluster
from harness import folder, free_port
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Database, Division, WorkKind
from penstockd.store.servers import NewestServer, ServerIdentity

WRITE = "INSERT INTO public.written VALUES ($1)"


class Address:
    """A port that leads to a server. Open connections stay with their server when it is
    switched."""

    def __init__(self, port: int) -> None:
        self.port, self.server = free_port(), port
        self._streams: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Future[tuple[None, None]]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Address]:
        listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        yield self
        listener.close()
        self.cut()
        await asyncio.gather(*self._passing)

    def cut(self) -> None:
        """Break the open connections."""
        for stream in list(self._streams):
            stream.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server, from_client = await asyncio.open_connection("127.0.0.1", self.server)
        except OSError:  # nobody listens there
            writer.close()
            return
        self._streams |= {writer, from_client}
        passing = asyncio.gather(_pass_on(reader, from_client), _pass_on(to_server, writer))
        self._passing.add(passing)
        await passing


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    """A server, and its standby."""
    with folder() as data:
        earlier = Cluster.create(data / "earlier")
        earlier.start(free_port())
        earlier.create_database()
        earlier.sql("CREATE TABLE public.written (text text)")
        promoted = earlier.standby(data / "promoted")
        promoted.start(free_port())
        yield earlier, promoted
        promoted.stop()
        earlier.stop()


def written(cluster: Cluster) -> set[str]:
    return {row[0] for row in cluster.sql("SELECT text FROM public.written")}


async def write(database: Database, text: str) -> None:
    async with database.transaction() as connection:
        await connection.execute(WRITE, text)


@asynccontextmanager
async def warm(address: Address) -> AsyncIterator[Database]:
    """A database with warm connections in each lane."""
    database = Database(
        Cluster.url_at(address.port), division=Division(connections=16, commit=60.0)
    )
    await database.open()
    await asyncio.gather(*(write(database, f"warm {i}") for i in range(3)))
    yield database
    database.abandon()
    await database.close()


async def test_nothing_goes_to_a_server_that_was_replaced_though_it_lives(
    servers: tuple[Cluster, Cluster],
) -> None:
    earlier, promoted = servers
    # Of several hosts, each lane uses the one that takes writes; the first is a standby.
    hosts = f"127.0.0.1:{promoted.port},127.0.0.1:{earlier.port}"
    url = Cluster.url_at(0).replace("127.0.0.1:0", hosts)
    for wanted in ("", "?target_session_attrs=read-write"):
        several = Database(url + wanted, division=Division(connections=16))
        await several.open()
        await write(several, f"several{wanted}")
        for kind in WorkKind:
            async with several.connection(kind) as connection:
                assert not await connection.fetchval("SELECT pg_is_in_recovery()")
        await several.close()
    await asyncio.to_thread(promoted.promote)
    async with Address(earlier.port).serving() as address, warm(address) as database:
        single = await database.connect()
        other = Database(database.dsn, size=2, memory=database.memory)  # of the same process
        await other.open()
        await write(other, "other, before")
        with pytest.raises(DatabaseUnavailable):
            async with database.transaction(bulk=True) as connection:
                await connection.execute(WRITE, "under way")
                address.server = promoted.port
                # The negative control: without the check it would continue for ever.
                await write(database, "lost")
                await write(other, "other, lost")
                await database.look_at_server()
                assert single.is_closed()
                await connection.execute("SELECT 1")
        for i in range(8):
            await write(database, f"after {i}")
            await write(other, f"other, after {i}")
        lost = {"lost", "other, lost"}
        found = await asyncio.to_thread(written, earlier)
        assert found >= lost and not [t for t in found if "after" in t or "way" in t], found
        found = await asyncio.to_thread(written, promoted)
        assert {t for t in found if "after" in t} == {
            f"{who}after {i}" for who in ("", "other, ") for i in range(8)
        }
        # Nothing returns to the earlier server either, as when one of two resolvers still knows it.
        address.server = earlier.port
        with pytest.raises(DatabaseUnavailable, match="replaced"):
            await database.look_at_server()
        await write(database, "later")
        assert "later" in await asyncio.to_thread(written, promoted)
        await other.close()


async def test_of_several_hosts_that_take_writes_the_newest_is_used(
    servers: tuple[Cluster, Cluster],
) -> None:
    """Whichever comes first in the URL, and whether or not it was out of reach meanwhile."""
    earlier, promoted = servers
    async with Address(promoted.port).serving() as address:
        hosts = f"127.0.0.1:{earlier.port},127.0.0.1:{address.port}"
        url = Cluster.url_at(0).replace("127.0.0.1:0", hosts)
        before = Database(url, size=4)
        await before.open()
        await write(before, "before")
        await asyncio.to_thread(promoted.promote)
        # A new process, with a URL that it does not know yet.
        fresh = Database(f"{url}?target_session_attrs=any", size=4)
        await fresh.open()
        await write(fresh, "fresh")
        await before.look_at_server()
        await write(before, "looked")
        # The newer server is out of reach, and open connections to it are lost.
        address.server = free_port()
        address.cut()
        for database in (before, fresh):
            for _ in range(4):  # each begins with another host
                with pytest.raises(DatabaseUnavailable):
                    await database.look_at_server()
                with pytest.raises(DatabaseUnavailable):
                    await write(database, "out of reach")
        address.server = promoted.port
        for database in (before, fresh):
            await database.look_at_server()
            await write(database, "in reach")
            await database.close()
    assert await asyncio.to_thread(written, earlier) == {"before"}
    found = await asyncio.to_thread(written, promoted)
    assert found >= {"fresh", "looked", "in reach"} and "out of reach" not in found


def test_an_earlier_server_is_believed_only_if_somebody_says_so() -> None:
    """However long the newer one is out of reach: it may live, and take the writes of others."""
    time = 0.0
    newest = NewestServer(clock=lambda: time)
    cuts: list[float] = []
    newest.when_replaced(lambda: cuts.append(time))
    one, two, another = (
        ServerIdentity("1", "00000009"),
        ServerIdentity("1", "0000000A"),
        ServerIdentity("2", "00000001"),
    )
    newest.note(one)
    newest.note(two)
    assert cuts == [0.0] and not newest.leads_to(one) and newest.leads_to(two)
    time = 1e6
    with pytest.raises(DatabaseUnavailable):
        newest.note(one)
    newest.hear([None, one])
    assert newest.leads_to(two)
    newest.note(one, declared=True)
    assert newest.leads_to(one) and cuts == [0.0, time]
    newest.note(another)  # clusters have no order: the address decides which one counts
    assert newest.leads_to(another) and len(cuts) == 3
