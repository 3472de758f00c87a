"""S2: nobody can tell two worlds apart that differ only in what is hidden.

PENSTOCK_TWIN_PAIRS sets how many questions both are asked, PENSTOCK_FUZZ_SEED the seed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from chance import SEED
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.resources import descriptors

from .twin_feeds import Script, answered, questions, streamed
from .twins import (
    BLIND,
    HIDDEN_CLASSES,
    SEEING_WRITER,
    SEER,
    WRITERS,
    Answer,
    Asker,
    Question,
    World,
    ask,
    values_of,
    worlds,
)

pytestmark = pytest.mark.lane(priority=12)

PAIRS = int(os.environ.get("PENSTOCK_TWIN_PAIRS", "10000"))
THREADS = 4
#: Changes that happen in both worlds, for feeds to tell of.
STEPS = int(os.environ.get("PENSTOCK_TWIN_STEPS", "120"))

Pair = tuple[World, World]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(descriptors())


@pytest.fixture(scope="module")
def pair(catalog: Catalog) -> Iterator[Pair]:
    print(f"seed {SEED}")
    with worlds(catalog, SEED) as found:
        yield found


@pytest.fixture(scope="module")
def values(pair: Pair, catalog: Catalog) -> dict[str, dict[str, list[str]]]:
    return asyncio.run(values_of(pair, catalog))


class Interview:
    """The same questions to both, by one thread on a connection to each."""

    def __init__(self, pair: Pair, asker: Asker) -> None:
        self._pair, self._asker = pair, asker
        self._connections = [world.connect() for world in pair]
        self.statuses: Counter[int] = Counter()
        self.differences: list[tuple[Question, Answer, Answer]] = []
        self.failures: list[tuple[Question, Answer]] = []
        self.asked = 0

    def run(self, consumers: list[str], count: int) -> None:
        while self.asked < count:
            self.follow(self._asker.question(self._asker.chance.choice(consumers)))
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        for connection in self._connections:
            connection.close()

    def follow(self, question: Question) -> None:
        """Ask, and turn the pages as long as there are any, three at most."""
        for _ in range(3):
            a, b = (
                ask(connection, world, question)
                for connection, world in zip(self._connections, self._pair, strict=True)
            )
            self.asked += 1
            self.statuses[a.status] += 1
            if a.status >= 500:
                self.failures.append((question, a))
            if a != b:
                self.differences.append((question, a, b))
            if not a.page_token or a.page_token != b.page_token:
                return
            question = replace(question, query={**question.query, "page_token": a.page_token})


def difference(a: Answer, b: Answer) -> str:
    """Where two answers part."""
    if (a.status, a.headers) != (b.status, b.headers):
        return f"{a.status} {a.headers}\n{b.status} {b.headers}"
    at = next((i for i, (x, y) in enumerate(zip(a.body, b.body, strict=False)) if x != y), -1)
    start = max(0, at - 100)
    return f"byte {at}:\n{a.body[start : at + 200]!r}\n{b.body[start : at + 200]!r}"


def interview(
    pair: Pair,
    catalog: Catalog,
    values: dict[str, dict[str, list[str]]],
    consumers: list[str],
    count: int,
) -> list[Interview]:
    threads = [Interview(pair, Asker(catalog, values, f"{SEED}-{i}")) for i in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(t.run, consumers, count // THREADS) for t in threads]:
            done.result()
    return threads


def test_the_blind_cannot_tell_the_worlds_apart(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    threads = interview(pair, catalog, values, list(BLIND), PAIRS)
    statuses = sum((t.statuses for t in threads), Counter[int]())
    print(f"seed {SEED}: {sum(t.asked for t in threads)} pairs, {dict(statuses)}")
    for thread in threads:
        for question, a, b in thread.differences:
            raise AssertionError(f"seed {SEED}: {question}\n{difference(a, b)}")
        assert not thread.failures, thread.failures[:3]
    # Enough of every kind of answer that the comparison says something.
    assert statuses[200] > PAIRS // 4 and statuses[400] > PAIRS // 20 and statuses[404]


def test_the_comparison_sees_a_difference(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    """Negative control: by the same questions, who may see everything sees two worlds."""
    threads = interview(pair, catalog, values, [SEER], 400)
    assert sum(len(t.differences) for t in threads) > 100


def visible_keys(pair: Pair, catalog: Catalog) -> dict[str, list[str]]:
    """Keys of records that the writers may write, by dataset."""
    found = {}
    connection = pair[0].connect()
    for dataset in catalog:
        question = Question("hides", f"/v1/{dataset.name}", {"page_size": "1000"})
        records = json.loads(ask(connection, pair[0], question).body)[dataset.name]
        found[dataset.name] = [r[dataset.key.json_path] for r in records]
    connection.close()
    return found


def guesses(
    pair: Pair,
    catalog: Catalog,
    values: dict[str, dict[str, list[str]]],
    consumers: list[str],
    count: int,
) -> list[Interview]:
    """Both worlds are asked the same writes, none of which is carried out."""
    visible = visible_keys(pair, catalog)

    def run(thread: Interview, asker: Asker) -> None:
        while thread.asked < count // THREADS:
            thread.follow(asker.write(asker.chance.choice(consumers), visible))
        thread.close()

    askers = [Asker(catalog, values, f"{SEED}-writes-{i}") for i in range(THREADS)]
    threads = [Interview(pair, asker) for asker in askers]
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(run, t, a) for t, a in zip(threads, askers, strict=True)]:
            done.result()
    return threads


def test_writers_cannot_tell_the_worlds_apart_by_replies(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    """Who may write a field and not read it guesses: no reply, count or error says it is right."""
    threads = guesses(pair, catalog, values, list(WRITERS), PAIRS // 8)
    statuses = sum((t.statuses for t in threads), Counter[int]())
    print(f"seed {SEED}: {sum(t.asked for t in threads)} writes, {dict(statuses)}")
    for thread in threads:
        for question, a, b in thread.differences:
            raise AssertionError(f"seed {SEED}: {question}\n{difference(a, b)}")
        assert not thread.failures, thread.failures[:3]
    assert statuses[200] > PAIRS // 32 and statuses[404] and statuses[400] + statuses[409]


def test_a_writer_who_reads_tells_them_apart(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    """Negative control: the same writes by who may read what it writes."""
    threads = guesses(pair, catalog, values, [SEEING_WRITER], 800)
    assert sum(len(t.differences) for t in threads) > 10


@pytest.mark.parametrize("consumer", ["hides", "hashes"])
def test_a_hidden_field_is_refused_like_an_unknown_one(
    pair: Pair, catalog: Catalog, consumer: str
) -> None:
    world = pair[0]
    connection = world.connect()
    compared = 0
    for dataset in catalog:
        for hidden in (f for f in dataset.fields if f.field_class in HIDDEN_CLASSES):
            unknown = "q" * len(hidden.path)
            for name in ("filter", "order_by", "fields"):
                answers = []
                for path in (hidden.path, unknown):
                    text = f'{path} = "x"' if name == "filter" else path
                    question = Question(consumer, f"/v1/{dataset.name}", {name: text})
                    answer = ask(connection, world, question)
                    body = answer.body.replace(path.encode(), b"*")
                    answers.append((answer.status, answer.headers, body))
                assert answers[0] == answers[1], (dataset.name, hidden.path, name)
                assert answers[0][0] == 400
                compared += 1
    connection.close()
    assert compared > 30


# --- the same over feeds ---------------------------------------------------------------------

Places = tuple[int, int, list[int]]


@pytest.fixture(scope="module")
def happened(pair: Pair) -> Places:
    """The same has happened in both, as far as the blind can see: how many changes, where they
    begin in each world, and how many of them nobody of the blind may be told of."""
    origins = [world.hub.head() for world in pair]
    steps = list(Script(random.Random(f"{SEED}-feeds")).steps(STEPS))
    for ours, theirs in steps:
        ours(pair[0])
        theirs(pair[1])
    counts = [world.hub.head() - origin for world, origin in zip(pair, origins, strict=True)]
    assert counts[0] == counts[1] == len(steps)
    return (*origins, counts)  # type: ignore[return-value]


def polls(
    pair: Pair,
    catalog: Catalog,
    values: dict[str, dict[str, list[str]]],
    consumer: str,
    happened: Places,
) -> tuple[Counter[int], list[tuple[Question, Answer, Answer]]]:
    """Both worlds are asked the same polls: the statuses, and where they differ."""
    statuses: Counter[int] = Counter()
    differences = []
    asker = Asker(catalog, values, f"{SEED}-feeds-{consumer}")
    connections = [world.connect() for world in pair]
    for question in questions(asker, consumer, 0, max(30, PAIRS // 400)):
        a, b = (
            answered(world, connection, question, origin)
            for world, connection, origin in zip(pair, connections, happened[:2], strict=True)
        )
        statuses[a.status] += 1
        if a != b:
            differences.append((question, a, b))
    for connection in connections:
        connection.close()
    return statuses, differences


@pytest.mark.parametrize("consumer", BLIND)
def test_the_blind_are_told_the_same_by_polls(
    pair: Pair,
    catalog: Catalog,
    values: dict[str, dict[str, list[str]]],
    happened: Places,
    consumer: str,
) -> None:
    statuses, differences = polls(pair, catalog, values, consumer, happened)
    for question, a, b in differences:
        raise AssertionError(f"seed {SEED}: {question}\n{difference(a, b)}")
    assert statuses[200] > 10 and not any(status >= 500 for status in statuses), statuses


@pytest.mark.parametrize("consumer", BLIND)
def test_the_blind_are_told_the_same_by_streams(
    pair: Pair, happened: Places, consumer: str
) -> None:
    for path in ("/v1/changes:watch", "/v1/customers:watch", "/v1/orders:watch"):
        ours, theirs = (
            streamed(world, consumer, path, origin, origin + happened[2][0])
            for world, origin in zip(pair, happened[:2], strict=True)
        )
        for one, other in zip(ours, theirs, strict=False):
            assert one == other, f"seed {SEED}: {path}"
        assert len(ours) == len(theirs)
        # There was more that they were told nothing of.
        assert 5 < len(ours) < happened[2][0] or path == "/v1/changes:watch"


def test_who_sees_all_is_told_two_stories(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]], happened: Places
) -> None:
    """Negative control: the same polls and streams tell the worlds apart."""
    _, differences = polls(pair, catalog, values, SEER, happened)
    assert len(differences) > 10
    ours, theirs = (
        streamed(world, SEER, "/v1/changes:watch", origin, origin + happened[2][0])
        for world, origin in zip(pair, happened[:2], strict=True)
    )
    assert len(ours) == len(theirs) == happened[2][0]
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) > happened[2][0] // 2
