"""S5: files made to break the hub, through its API: refused with a reason, and nothing is
loaded."""

from __future__ import annotations

import concurrent.futures
import gzip
import random
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from harness import EVERY_WORKER, Reply, RunningHub, eventually, folder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SEED = 20240301
#: More are in tests/unit/formats/test_poisoned.py, which feeds the readers directly.
CASES = 40
REASONS = {
    "IMPORT_ROW_INVALID",
    "IMPORT_FORMAT_INVALID",
    "IMPORT_TRUNCATED",
    "REQUEST_TOO_LARGE",
}
#: Valid rows, except that the last one is poisoned: the rows around the poison could be loaded.
CSV = b"customer_id,name,credit_limit\npoison-1,x,1.50\npoison-2,%s,NaN\n"
NDJSON = (
    b'{"customerId":"poison-1","name":"x"}\n'
    b'{"customerId":"poison-2","name":"%s","creditLimit":"NaN"}\n'
)
XML = (
    b"<customers><customer><customer_id>poison-1</customer_id><name>x</name></customer><customer>"
    b"<customer_id>poison-2</customer_id><name>%s</name><credit_limit>NaN</credit_limit>"
    b"</customer></customers>"
)
FILES = {"CSV": CSV, "NDJSON": NDJSON, "XML": XML}
POISON = [
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbf\xbf", b"\\ud800", b"\\u0000", b"&#0;", b"&#xDFFF;",
    b"&lol;", b"<!DOCTYPE a>", b"]]>", b"<b/>", b"9223372036854775808", b"[" * 5000, b'"', b"'",
    b"\x1d\x1e\x1f", b"\r", b"<name>", b"</customers>", b"x" * 70_000, b"<a>" * 500,
]  # fmt: skip
LAUGHS = (
    b'<!DOCTYPE lolz [<!ENTITY l0 "lol">'
    + b"".join(b'<!ENTITY l%d "%s">' % (i, b"&l%d;" % (i - 1) * 10) for i in range(1, 10))
    + b"]><customers><customer><customer_id>&l9;</customer_id></customer></customers>"
)
OUTSIDE = (
    b'<!DOCTYPE customers [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b"<customers><customer><customer_id>poison-3</customer_id><name>&x;</name></customer></customers>"
)


@pytest.fixture(scope="module")
def target() -> Iterator[RunningHub]:
    """A hub of its own, since the tests look at its workers' memory."""
    with folder() as data:
        running = RunningHub(data / "hub", customers=50)
        running.start()
        try:
            yield running
        finally:
            running.stop()


def send(hub: RunningHub, format: str, body: bytes) -> Reply:
    headers = {"content-type": "application/octet-stream"}
    path = f"/v1/customers:import?format={format}"
    return hub.request("POST", path, consumer="admin", body=body, headers=headers)


def workers(hub: RunningHub) -> dict[int, int]:
    """The memory of each worker, by process."""
    return {p.pid: psutil.Process(p.pid).memory_info().rss for p in hub.processes("worker")}


def poisoned(chance: random.Random) -> tuple[str, bytes]:
    name = chance.choice(list(FILES))
    poison = b"".join(chance.choice(POISON) for _ in range(chance.randint(1, 2)))
    data = bytearray(FILES[name] % poison)
    if chance.random() < 0.3:
        data[chance.randrange(40, len(data))] = chance.randrange(256)
    body = bytes(data)
    packs: list[Callable[[bytes], bytes]] = [bytes, bytes, gzip.compress, zstd.compress]
    pack = chance.choice(packs)
    return name, pack(body)


def giants() -> dict[str, tuple[str, bytes]]:
    columns = b"customer_id," + b",".join(b"c%d" % i for i in range(1_000_000))
    blanks = b" " * (1 << 20)
    return {
        "1M columns": ("CSV", zstd.compress(columns)),
        "nesting": ("NDJSON", b'{"customerId":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "nesting in an array": ("JSON", b"[" * 100_000),
        "deep": ("XML", b"<customers><customer>" + b"<a>" * 100_000),
        "laughs": ("XML", LAUGHS),
        "outside": ("XML", OUTSIDE),
        "one text": ("XML", zstd.compress(b"<customers><customer><name>" + b"x" * (10 << 20))),
        "gzip bomb": ("XML", gzip.compress(b"<customers>" + blanks * 100, 9)),
        "zstd bomb": ("NDJSON", zstd.compress(blanks * 500)),
        "bomb in a cell": ("CSV", zstd.compress(b'customer_id\n"' + b"x" * (100 << 20))),
        "rows": (
            "CSV",
            zstd.compress(b"customer_id,name\n" + (b"x," + b"y" * 999 + b"\n") * 60_000),
        ),
        "not gzip": ("CSV", b"\x1f\x8b" + b"\0" * 100),
        "cut zstd": ("CSV", zstd.compress(b"customer_id\n" + b"a\n" * 10)[:-6]),
    }


def test_poison_is_refused_and_the_hub_goes_on(target: RunningHub) -> None:
    print("seed", SEED)
    chance = random.Random(SEED)
    # Each worker loads the libraries for files after its start, and keeps them.
    for _ in range(EVERY_WORKER):
        assert target.get("/v1/customers:export", format="ARROW", limit=1).status == 200
    head, before = target.head(), workers(target)
    cases = [poisoned(chance) for _ in range(CASES)]
    cases += giants().values()
    target.token("admin")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda case: send(target, *case), cases))
    for (name, body), reply in zip(cases, replies, strict=True):
        assert reply.status == 400, (name, body[:200], reply.text[:500])
        assert reply.reason in REASONS, (name, body[:200], reply.text[:500])
        assert len(reply.body) < 20_000
        assert b"root:" not in reply.body
        if reply.reason == "IMPORT_ROW_INVALID":
            assert all(field.startswith("rows[") for field in reply.violations())
    assert target.head() == head
    assert target.get("/v1/customers/poison-1").status == 404
    assert target.request("GET", "/healthz").status == 200
    assert workers(target).keys() == before.keys(), "a worker died"

    def back() -> bool:
        """Whether no worker has kept much: memory of the last calls may not be free yet."""
        grown = {pid: now - before[pid] for pid, now in workers(target).items()}
        assert max(grown.values()) < 128 << 20, grown
        return True

    assert eventually(back)


def test_without_the_poison_it_is_loaded(target: RunningHub) -> None:
    """Negative control: the same files without the poison are accepted."""
    packs: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, zstd.compress)
    for format, file in FILES.items():
        for pack in packs:
            body = pack((file % b"fine").replace(b"NaN", b"1.50"))
            reply = send(target, format, body)
            assert (reply.status, reply.json()["rowCount"]) == (200, "2"), reply.text


@pytest.mark.parametrize(
    ("format", "body", "reason", "field"),
    [
        ("XML", XML % b"x", "IMPORT_ROW_INVALID", "rows[2].credit_limit"),
        ("XML", b"<customers/>x", "IMPORT_FORMAT_INVALID", ""),
        ("XML", XML[:-30] % b"x", "IMPORT_TRUNCATED", ""),
        ("CSV", gzip.compress(CSV % b"x", mtime=0), "IMPORT_ROW_INVALID", "rows[2].credit_limit"),
        ("CSV", gzip.compress(CSV % b"x", mtime=0)[:-5], "IMPORT_TRUNCATED", ""),
        ("CSV", zstd.compress(CSV % b"x")[:-5], "IMPORT_TRUNCATED", ""),
        ("XML", zstd.compress(b"<customers>" + b" " * (99 << 20)), "REQUEST_TOO_LARGE", ""),
        ("NDJSON", b'{"customerId":"poison-9"}\n{"@receipt":{"state":"FAILED","rowCount":"1"}}\n',
         "IMPORT_TRUNCATED", ""),
        ("NDJSON", b'{"customerId":"poison-9"}\n{"@receipt":{"state":"COMPLETE","rowCount":"2"}}\n',
         "IMPORT_TRUNCATED", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(
    target: RunningHub, format: str, body: bytes, reason: str, field: str
) -> None:
    reply = send(target, format, body)
    assert (reply.status, reply.reason) == (400, reason), reply.text
    assert list(reply.violations()) == ([field] if field else [])
    assert target.get("/v1/customers/poison-9").status == 404
