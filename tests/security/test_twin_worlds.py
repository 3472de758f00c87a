"""S2: nobody can distinguish two worlds that differ only in what is hidden.

Places are compared too: cursors, sequences, transaction ids and etags have the same bytes.

PENSTOCK_TWIN_PAIRS sets the number of questions, PENSTOCK_FUZZ_SEED the seed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chance import SEED
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from places import PLACES, log_number, transaction_number

from .twin_changes import HIDDEN_CLASSES
from .twin_feeds import Script, answered, questions, streamed
from .twin_places import MOST_HIDDEN, Account, altered, count, given_away, given_with_exports
from .twin_questions import Answer, Asker, Question, ask, values_of
from .twins import BLIND, HASHED, SEEING_WRITER, SEER, WRITERS, World, same_times, worlds

PAIRS = int(os.environ.get("PENSTOCK_TWIN_PAIRS", "2000"))
THREADS = 4
#: Changes that happen in both worlds, for feeds to deliver.
STEPS = int(os.environ.get("PENSTOCK_TWIN_STEPS", "120"))

Pair = tuple[World, World]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


@pytest.fixture(scope="module")
def pair(catalog: Catalog) -> Iterator[Pair]:
    print(f"seed {SEED}")
    with worlds(catalog, SEED) as found:
        yield found


@pytest.fixture(scope="module")
def values(pair: Pair, catalog: Catalog) -> dict[str, dict[str, list[str]]]:
    return asyncio.run(values_of(pair, catalog))


class Interview:
    """The same questions to both, by one thread with a connection to each."""

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
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def follow(self, question: Question) -> None:
        """Ask, and follow at most three pages."""
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
    """The first difference between two answers."""
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
    # Enough answers of every kind to make the comparison meaningful.
    assert statuses[200] > PAIRS // 4 and statuses[400] > PAIRS // 20 and statuses[404]


def test_the_comparison_sees_a_difference(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    """Negative control: with the same questions, a consumer that sees everything sees two
    worlds."""
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
    """Ask both worlds for the same writes; none of them is carried out."""
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
    """A writer that cannot read a field guesses it: no reply, count or error confirms a guess."""
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
    """Negative control: the same writes by a consumer that may read what it writes."""
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


def visible(world: World, consumer: str) -> list[dict[str, Any]]:
    """The customers that a consumer sees."""
    connection = world.connect()
    answer = ask(connection, world, Question(consumer, "/v1/customers", {"page_size": "1000"}))
    connection.close()
    return list(json.loads(answer.body)["customers"])


def test_only_who_shares_a_hash_domain_can_join(pair: Pair) -> None:
    """One sees hashes of phones and others hashes of tax numbers. In one world each customer has
    the same text in both fields, in the other world another customer has it."""
    keys = [record["customerId"] for record in visible(pair[0], "hides")]
    texts = [f"+{i:07}" for i in range(len(keys))]
    moved = [texts[-1], *texts[:-1]]
    tokens: list[dict[str, list[str]]] = []
    records: list[list[dict[str, Any]]] = []
    for world, others in zip(pair, (texts, moved), strict=True):
        rows = zip(keys, texts, others, strict=True)
        with altered(world, {key: {"phone": a, "tax_id": b} for key, a, b in rows}):
            found = {consumer: visible(world, consumer) for consumer in HASHED}
            names = {"phone": "phone", "tax_id": "taxId"}
            tokens.append({c: [r[names[HASHED[c][0]]] for r in found[c]] for c in HASHED})
            records.append(found["phone-north"])
    assert records[0] == records[1]  # a consumer of phones alone learns nothing about the others
    # Consumers that share a domain can join, and so distinguish the worlds.
    assert tokens[0]["phone-north"] == tokens[0]["tax-north"]
    joined = zip(tokens[1]["phone-north"], tokens[1]["tax-north"], strict=True)
    assert not any(a == b for a, b in joined)
    # Nobody else can, not even with anything that can be computed without a key.
    guesses = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    guesses += [hmac.new(b"north", text.encode(), "sha256").hexdigest() for text in texts]
    for found_tokens in tokens:
        domains = [found_tokens[c] for c in ("phone-north", "tax-south", "tax-own")]
        every = [token for domain in (*domains, guesses) for token in domain]
        assert len(set(every)) == len(every) == 5 * len(keys)


def test_a_grant_that_hides_update_time_hides_when_hidden_fields_changed(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]]
) -> None:
    moment = datetime(2026, 3, 4, tzinfo=UTC)
    keys = [record["customerId"] for record in visible(pair[1], "hides")]
    with altered(pair[1], {key: {"update_time": moment} for key in keys}):
        threads = interview(pair, catalog, values, ["timeless"], PAIRS // 10)
        control = interview(pair, catalog, values, ["hides"], 200)
    for thread in threads:
        for question, a, b in thread.differences:
            raise AssertionError(f"seed {SEED}: {question}\n{difference(a, b)}")
    assert sum(len(t.differences) for t in control) > 2


# --- places ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stretch:
    """The part of both logs in which the same changes happened; its numbers are the same."""

    begin: int
    end: int


def both_heads(pair: Pair) -> int:
    """The newest number of both logs, which is equal."""
    ours, theirs = (world.hub.head() for world in pair)
    assert ours == theirs
    return ours


@pytest.fixture(scope="module")
def counted(pair: Pair) -> list[Account]:
    """The same number of hidden changes in either world, but at different positions."""
    chance = random.Random(f"{SEED}-counts")
    counts = [n for n in range(MOST_HIDDEN + 1) for _ in range(5)]
    accounts = [count(w, "hides", chance.sample(counts, len(counts))) for w in pair]
    same_times(pair)
    return accounts


def test_no_place_tells_how_much_is_hidden(counted: list[Account]) -> None:
    assert not given_away(counted), f"seed {SEED}"


#: What consumers would get if the hub did not hide counting values.
UNHIDDEN: dict[str, Callable[[Account], Account]] = {
    "sequence": lambda a: replace(a, sequences=[log_number(s) for s in a.sequences]),
    "transaction": lambda a: replace(
        a,
        transactions=[
            transaction_number(t, log_number(s))
            for t, s in zip(a.transactions, a.sequences, strict=True)
        ],
    ),
    "cursor": lambda a: replace(a, cursors=[PLACES.open(c).stored for c in a.cursors]),
    "etag": lambda a: replace(a, etags=a.stored),
}


@pytest.mark.parametrize("name", UNHIDDEN)
def test_what_is_not_hidden_tells(counted: list[Account], name: str) -> None:
    """Negative controls: sequences and ids that count, cursors without seals, etags as stored."""
    assert name in given_away([UNHIDDEN[name](account) for account in counted])


@pytest.fixture(scope="module")
def happened(pair: Pair, counted: object) -> Stretch:
    """The same has happened in both, as far as consumers without access can see."""
    begin = both_heads(pair)
    steps = list(Script(random.Random(f"{SEED}-feeds")).steps(STEPS))
    for ours, theirs in steps:
        ours(pair[0])
        theirs(pair[1])
    end = both_heads(pair)
    same_times(pair)
    assert end - begin == len(steps)
    return Stretch(begin, end)


@pytest.mark.parametrize("consumer", BLIND)
def test_receipts_and_subscriptions_give_the_blind_the_same_places(
    pair: Pair, happened: Stretch, consumer: str
) -> None:
    ours, theirs = (dict(given_with_exports(world, consumer)) for world in pair)
    assert ours == theirs
    place = PLACES.open(ours["extent"]["newestCursor"])
    assert place.number == happened.end


# --- the same over feeds ---------------------------------------------------------------------


def polls(
    pair: Pair,
    catalog: Catalog,
    values: dict[str, dict[str, list[str]]],
    consumer: str,
    happened: Stretch,
) -> tuple[Counter[int], list[tuple[Question, Answer, Answer]]]:
    """Ask both worlds the same polls; returns the statuses and the differences."""
    statuses: Counter[int] = Counter()
    differences = []
    asker = Asker(catalog, values, f"{SEED}-feeds-{consumer}")
    connections = [world.connect() for world in pair]
    for question in questions(asker, consumer, 0, max(30, PAIRS // 400)):
        a, b = (
            answered(world, connection, question, happened.begin)
            for world, connection in zip(pair, connections, strict=True)
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
    happened: Stretch,
    consumer: str,
) -> None:
    statuses, differences = polls(pair, catalog, values, consumer, happened)
    for question, a, b in differences:
        raise AssertionError(f"seed {SEED}: {question}\n{difference(a, b)}")
    assert statuses[200] > 10 and not any(status >= 500 for status in statuses), statuses


@pytest.mark.parametrize("consumer", BLIND)
def test_the_blind_are_told_the_same_by_streams(
    pair: Pair, happened: Stretch, consumer: str
) -> None:
    for path in ("/v1/changes:watch", "/v1/customers:watch", "/v1/orders:watch"):
        ours, theirs = (
            streamed(world, consumer, path, happened.begin, happened.end) for world in pair
        )
        for one, other in zip(ours.changes, theirs.changes, strict=False):
            assert one == other, f"seed {SEED}: {path}"
        assert len(ours.changes) == len(theirs.changes)
        # They were told nothing of further changes.
        count = len(ours.changes)
        assert 5 < count < happened.end - happened.begin or path == "/v1/changes:watch"
        common = ours.cursors.keys() & theirs.cursors.keys()
        assert happened.end in common
        assert all(ours.cursors[n] == theirs.cursors[n] for n in common), f"seed {SEED}: {path}"


def test_who_sees_all_is_told_two_stories(
    pair: Pair, catalog: Catalog, values: dict[str, dict[str, list[str]]], happened: Stretch
) -> None:
    """Negative control: the same polls and streams distinguish the worlds."""
    _, differences = polls(pair, catalog, values, SEER, happened)
    assert len(differences) > 5
    ours, theirs = (
        streamed(world, SEER, "/v1/changes:watch", happened.begin, happened.end).changes
        for world in pair
    )
    count = happened.end - happened.begin
    assert len(ours) == len(theirs) == count
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) > count // 2
