"""Consumers of changes: the SDK's Replica and the commands."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from harness import RunningHub, eventually, free_port, new_customer
from penstock.client import Client, Replica
from penstock.client.record_data import to_dict


@pytest.fixture
def client(hub: RunningHub) -> Iterator[Client]:
    with Client(hub.url, api_key=hub.api_key) as client:
        yield client


@pytest.fixture
def mark(hub: RunningHub) -> Iterator[str]:
    """The source of one test's customers, which are removed after it."""
    source = f"feed-{new_customer()['customerId']}"
    yield source
    reply = hub.get("/v1/customers", filter=f'source = "{source}"', page_size=1000)
    for record in reply.json().get("customers", []):
        hub.request("DELETE", f"/v1/customers/{record['customerId']}", consumer="admin")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, hub: RunningHub, tmp_path: Path) -> Iterator[Any]:
    """A database for replicas; each call opens a connection to it."""
    if request.param == "sqlite":
        yield lambda: sqlite3.connect(tmp_path / "replica.db", check_same_thread=False)
        return
    name = f"replica_{new_customer()['customerId'].replace('-', '_')}"
    hub.sql(f"CREATE DATABASE {name}")
    parts = urlsplit(hub.dsn)
    try:
        yield lambda: psycopg.connect(parts._replace(path=f"/{name}").geturl())
    finally:
        hub.sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def writing(hub: RunningHub, source: str) -> Iterator[Callable[[], int]]:
    """Create, change and delete customers during the block; the call returns the number of
    rounds."""
    stop, rounds = threading.Event(), 0

    def run() -> None:
        nonlocal rounds
        while not stop.is_set():
            record = new_customer(name="é", source=source, tags=["a", "b"], creditLimit="1.50")
            hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
            key = record["customerId"]
            change = {"name": f"round {rounds}", "billingAddress": {"city": "Köln"}}
            hub.request("PATCH", f"/v1/customers/{key}", consumer="admin", json_body=change)
            if rounds % 3 == 0:
                hub.request("DELETE", f"/v1/customers/{key}", consumer="admin")
            rounds += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lambda: rounds
    finally:
        stop.set()
        thread.join()


def test_a_replica_under_writes_is_equal_to_the_source(
    hub: RunningHub, client: Client, mark: str, database: Any
) -> None:
    customers = client.dataset("customers")
    with closing(database()) as connection:
        replica = Replica(client, "customers", connection, filter=f'source = "{mark}"')
        commits: list[int] = []
        with writing(hub, mark) as rounds:
            eventually(lambda: rounds() >= 3)
            replica.sync()
            follower = threading.Thread(target=replica.follow, args=(commits.append,))
            follower.start()
            seen = rounds()
            eventually(lambda: rounds() >= seen + 6 and sum(commits) > 3)
        replica.close()
        follower.join()
        # Another process continues from the state that the first one left.
        replica = Replica(client, "customers", connection, filter=f'source = "{mark}"')
        found = replica.verify()
        assert found.equal and not replica.repairs
        source = {r.customer_id: r for r in customers.list(filter=f'source = "{mark}"')}
        assert found.rows == len(source) > 5
        cursor = connection.cursor()
        cursor.execute("SELECT customer_id, name, status, credit_limit FROM customers")
        rows = {key: values for key, *values in cursor.fetchall()}
        assert rows.keys() == source.keys()
        for key, (name, status, limit) in rows.items():
            assert (name, status) == (source[key].name, "STATUS_UNSPECIFIED")
            assert str(limit) == source[key].credit_limit == "1.50"
        kept = {key: to_dict(record) for key, record in replica.table.records() if record}
        assert kept == {key: to_dict(record) for key, record in source.items()}


def test_what_somebody_changed_in_a_replica_is_found_and_mended(
    client: Client, database: Any
) -> None:
    with closing(database()) as connection:
        replica = Replica(client, "orders", connection, table="mine")
        assert replica.sync() == replica.verify().rows
        cursor = connection.cursor()
        cursor.execute("SELECT order_id FROM mine ORDER BY order_id LIMIT 3")
        changed, broken, gone = (row[0] for row in cursor.fetchall())
        cursor.execute(f"UPDATE mine SET carrier = 'other' WHERE order_id = '{changed}'")
        cursor.execute(f"UPDATE mine SET status = 'NONE SUCH' WHERE order_id = '{broken}'")
        cursor.execute(f"DELETE FROM mine WHERE order_id = '{gone}'")
        cursor.execute("INSERT INTO mine (order_id) VALUES ('zzz')")
        connection.commit()
        found = replica.verify()
        assert (found.different, found.unexpected) == ((changed, broken, gone), ("zzz",))
        repaired = replica.repair()
        assert (repaired.upserts, repaired.deletes) == (3, 1)
        assert replica.verify().equal


def test_another_filter_or_an_expired_cursor_is_repaired(
    hub: RunningHub, client: Client, mark: str, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        Replica(client, "customers", connection).sync()
        narrow = Replica(client, "customers", connection, filter=f'source = "{mark}"')
        client.dataset("customers").create(new_customer(source=mark))
        narrow.sync()
        assert narrow.repairs[0].deletes > 200 and narrow.verify().rows == 1
        client.dataset("customers").create(new_customer(source=mark))
        head = hub.head()
        oldest = hub.sql("SELECT hub.prune_log($1)", head)
        assert oldest
        narrow.sync()
        assert [found.upserts for found in narrow.repairs] == [1, 1]
        assert narrow.verify().rows == 2


def command(hub: RunningHub, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock.client.cli", *arguments],
        env=hub.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_watch_goes_on_where_it_was_stopped(
    hub: RunningHub, client: Client, mark: str, tmp_path: Path, ending: signal.Signals
) -> None:
    cursor, out = tmp_path / "cursor", tmp_path / "out.ndjson"
    arguments = (
        "watch", "customers", "--format", "json", "--filter", f'source = "{mark}"',
        "--cursor-file", str(cursor), "--output", str(out), "--snapshot",
    )  # fmt: skip
    customers = client.dataset("customers")
    made = [customers.create(new_customer(source=mark)).customer_id]

    def printed() -> list[str]:
        text = out.read_text() if out.exists() else ""
        # The last line may be incomplete.
        whole = text[: text.rfind("\n") + 1]
        return [json.loads(line)["key"] for line in whole.splitlines()]

    for _ in range(3):
        with command(hub, *arguments) as process:
            try:
                eventually(lambda: cursor.exists() and len(printed()) >= len(made), 120)
                for _ in range(3):
                    made.append(customers.create(new_customer(source=mark)).customer_id)
                eventually(lambda: printed(), 120)
            finally:
                process.send_signal(ending)
            process.communicate()
            code = -ending if ending is signal.SIGKILL else 128 + ending
            assert process.returncode == code
        made.append(customers.create(new_customer(source=mark)).customer_id)
    with command(hub, *arguments) as process:
        try:
            eventually(lambda: len(printed()) >= len(made), 120)
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate()
    assert printed() == made


def test_changes_are_polled_by_command(hub: RunningHub, client: Client, mark: str) -> None:
    start = hub.command("changes", "customers").stderr.decode().split()[-1]
    record = client.dataset("customers").create(new_customer(source=mark))
    arguments = ("--cursor", start, "--wait", "20s", "--filter", f'source = "{mark}"')
    done = hub.command("changes", "customers", *arguments, "--format", "json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["operation"] == "CREATED"
    assert json.loads(line)["after"]["customer_id"] == record.customer_id


def test_replica_and_verify_by_command(hub: RunningHub, tmp_path: Path) -> None:
    copy = str(tmp_path / "r.db")
    assert b"there is no" in hub.command("verify", "orders", "--replica", copy, check=False).stderr
    hub.command("replica", "orders", "--to", copy)
    assert b"equal" in hub.command("verify", "orders", "--replica", copy).stdout
    with closing(sqlite3.connect(copy)) as connection:
        (key,) = connection.execute("SELECT min(order_id) FROM orders").fetchone()
        connection.execute("UPDATE orders SET lines = '[]' WHERE order_id = ?", [key])
        connection.commit()
    differs = hub.command("verify", "orders", "--replica", copy, check=False)
    assert differs.returncode == 1 and differs.stdout.decode() == f"differs\t{key}\n"


#: A trigger that breaks writes to the replica's database, and the error that the command reports.
BROKEN = {
    "RAISE EXCEPTION 'no more room\nfor orders'": "no more room for orders",
    "PERFORM pg_terminate_backend(pg_backend_pid())": "connection",
}


@pytest.mark.parametrize("does", list(BROKEN))
def test_what_a_database_refuses_is_one_line(hub: RunningHub, does: str) -> None:
    name = f"replica_{uuid.uuid4().hex}"
    hub.sql(f"CREATE DATABASE {name}")
    parts = urlsplit(hub.dsn)
    url = parts._replace(path=f"/{name}", query=f"{parts.query}&password=told-nobody").geturl()
    filter = ("--filter", f'order_id = "{name}"')
    try:
        hub.command("replica", "orders", "--to", url, *filter)
        with closing(psycopg.connect(url)) as connection:
            connection.execute(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {does}; RETURN NEW; END $$"
            )
            connection.execute(
                "CREATE TRIGGER fail BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION fail()"
            )
            connection.commit()
        order = {"orderId": name, "customerId": "c00000001"}
        reply = hub.request("POST", "/v1/orders", consumer="admin", json_body=order)
        assert reply.status == 200, reply.text
        try:
            failed = hub.command("replica", "orders", "--to", url, *filter, check=False)
        finally:
            hub.request("DELETE", f"/v1/orders/{name}", consumer="admin")
        said(failed, BROKEN[does])
    finally:
        hub.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_that_is_not_there_is_one_line(hub: RunningHub) -> None:
    url = f"postgresql://somebody:told-nobody@127.0.0.1:{free_port()}/none"
    for command, option in (("replica", "--to"), ("verify", "--replica")):
        said(hub.command(command, "orders", option, url, check=False), "cannot be reached")


def said(failed: subprocess.CompletedProcess[bytes], what: str) -> None:
    """The command failed with one line that contains the text, and no secret."""
    assert failed.returncode == 1
    (line,) = failed.stderr.decode().splitlines()
    assert line.startswith("error: ") and what in line
    assert "told-nobody" not in line and "Traceback" not in line
