"""Merge patches (RFC 7396) of the maps and Structs in records."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import Reply
from workshops import DatasetDoor, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.lane("api/models", priority=12)]


@pytest.fixture(scope="module")
def gadgets(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "gadgets")


@pytest.fixture(scope="module")
def films(modelled: Workshop) -> DatasetDoor:
    return DatasetDoor(modelled, "films")


@pytest.fixture
def key(gadgets: DatasetDoor, films: DatasetDoor) -> Iterator[str]:
    """The key of a new gadget and a new film."""
    made = f"merge-{uuid.uuid4().hex[:8]}"
    for door, name in ((gadgets, "gadgetId"), (films, "filmId")):
        assert door.post("POST", door.path, {name: made}).status == 200
    yield made
    for door in (gadgets, films):
        door.hub.request("DELETE", f"{door.path}/{made}", consumer="admin")


def patch_once(door: DatasetDoor, key: str, body: Any, query: str = "") -> Reply:
    return door.post("PATCH", f"{door.path}/{key}{query}", body)


def patch(door: DatasetDoor, key: str, body: Any, query: str = "") -> Reply:
    """The reply to a patch; what it writes is read back as the reply says."""
    reply = patch_once(door, key, body, query)
    if reply.status == 200:
        assert door.hub.get(f"{door.path}/{key}", "admin").body == reply.body
    return reply


#: Patches one after the other, and the Struct after each. All but the last are of RFC 7396, A.
STRUCTS: list[tuple[Any, Any]] = [
    ({}, {}),
    ({"a": "b"}, {"a": "b"}),
    ({"a": "c"}, {"a": "c"}),
    ({"b": "c"}, {"a": "c", "b": "c"}),
    ({"a": None}, {"b": "c"}),
    ({"b": [1, None, {"x": None}]}, {"b": [1, None, {"x": None}]}),
    ({"b": {"c": 1, "d": {"e": True}}}, {"b": {"c": 1, "d": {"e": True}}}),
    ({"b": {"d": {"e": None, "f": 2}}}, {"b": {"c": 1, "d": {"f": 2}}}),
    ({"b": {"d": {"none": None}}}, {"b": {"c": 1, "d": {"f": 2}}}),
    ({"b": {"c": {"deep": {"x": None, "y": 0}}}}, {"b": {"c": {"deep": {"y": 0}}, "d": {"f": 2}}}),
    ({"b": {"c": 5}}, {"b": {"c": 5, "d": {"f": 2}}}),
    ({"b": {"c": {"x": None}}}, {"b": {"c": {}, "d": {"f": 2}}}),
    ({"b": []}, {"b": []}),
    (None, None),
    ({"only": None}, {}),
]


def test_members_of_structs_merge(gadgets: DatasetDoor, key: str) -> None:
    for given, expected in STRUCTS:
        reply = patch(gadgets, key, {"attributes": given})
        assert reply.status == 200, reply.text
        assert reply.json()["attributes"] == expected, given
    beside = patch(gadgets, key, {"maker": {"name": "M"}, "attributes": {"n": {"m": 1}}})
    assert beside.json()["attributes"] == {"n": {"m": 1}}


def test_a_mask_replaces_structs_and_maps(
    gadgets: DatasetDoor, films: DatasetDoor, key: str
) -> None:
    assert patch(gadgets, key, {"attributes": {"a": 1, "b": None}}).status == 200
    whole = patch(gadgets, key, {"attributes": {"b": None}}, "?update_mask=attributes")
    assert whole.json()["attributes"] == {"b": None}
    assert patch(films, key, {"counters": {"1": 1, "2": 2}}).status == 200
    whole = patch(films, key, {"counters": {"3": 3}}, "?update_mask=counters")
    assert whole.json()["counters"] == {"3": 3}
    refused = patch(films, key, {"counters": {"3": None}}, "?update_mask=counters")
    assert refused.status == 400, "a value that replaces has no null"


def test_over_grpc_maps_are_replaced(films: DatasetDoor, key: str) -> None:
    assert patch(films, key, {"counters": {"1": 1, "2": 2}}).status == 200
    asked = films.message("UpdateFilmRequest", film={"filmId": key, "counters": {"3": 3}})
    assert dict(films.call("UpdateFilm", asked, "Film").counters) == {3: 3}


def test_entries_of_maps_merge(films: DatasetDoor, key: str) -> None:
    for given, expected in (
        ({"1": 1, "-2": 2}, {"1": 1, "-2": 2}),
        ({"01": 5, "3": 3, "9": None}, {"1": 5, "-2": 2, "3": 3}),
        ({"-2": None, "3": None}, {"1": 5}),
        ({}, {"1": 5}),
        (None, {}),
    ):
        reply = patch(films, key, {"counters": given})
        assert (reply.status, reply.json()["counters"]) == (200, expected), (given, reply.text)


def test_messages_in_maps_merge(films: DatasetDoor, key: str) -> None:
    """Members that are absent stay; null unsets, and what has a default then has that."""
    first = {
        "title": "T", "frames": "7", "cost": "1.500", "words": {"en": "w", "de": "v"},
        "sound": {"name": "s", "levels": [0.5]}, "noises": [{"name": "n"}], "kept": True,
    }  # fmt: skip
    assert patch(films, key, {"extras": {"a": first, "b": {"title": "B"}}}).status == 200
    change: dict[str, Any] = {
        "title": None, "cost": None, "words": {"en": None, "fr": "x"}, "noises": [],
        "sound": {"name": "t"}, "shot_time": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    reply = patch(films, key, {"extras": {"a": change}})
    found = reply.json()["extras"]
    assert set(found) == {"a", "b"} and found["b"]["title"] == "B"
    expected = {
        "title": "", "frames": "7", "words": {"de": "v", "fr": "x"}, "noises": [],
        "sound": {"name": "t", "levels": [0.5]}, "shotTime": "2024-01-01T00:00:00.000000Z",
        "thumb": "", "mood": "MOOD_UNSPECIFIED", "kept": True, "light": 0,
    }  # fmt: skip
    assert {k: v for k, v in found["a"].items() if v is not None} == expected
    gone = patch(films, key, {"extras": {"a": {"sound": None}, "b": None}}).json()["extras"]
    assert set(gone) == {"a"} and gone["a"].get("sound") is None


#: Bodies that are refused, and what is said of them.
REFUSED: list[tuple[str, Any, str]] = [
    ("counters", {"x": 1}, "at key"),
    ("counters", {"1": 1, "01": 2}, "has a key twice"),
    ("counters", {"1": "x"}, "at ['1']"),
    ("counters", [1], "must be an object"),
    ("extras", {"a": {"nothing": None}}, "has the unknown member 'nothing'"),
    ("extras", {"a": {"shot_time": None, "shotTime": None}}, "has the member 'shotTime' twice"),
    ("extras", {"a": {"noises": [None]}}, "must be an object, not null"),
    ("extras", {"a": {"sound": {"levels": {"x": None}}}}, "must be an array"),
    ("extras", {"a": {"words": {"en": 7}}}, "must be a string"),
    ("extras", {"a": 7}, "must be an object, not a number"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED, ids=[str(r[1]) for r in REFUSED])
def test_a_patch_is_read_strictly(
    films: DatasetDoor, key: str, name: str, value: Any, said: str
) -> None:
    reply = patch(films, key, {name: value})
    assert (reply.status, list(reply.violations())) == (400, [name]), reply.text
    assert said in reply.violations()[name]


def test_what_results_must_be_allowed(gadgets: DatasetDoor, key: str) -> None:
    """Each patch is small; the Struct would be too large in the end."""
    piece = {"x" * 200 + str(i): "y" * 800 for i in range(200)}
    assert patch(gadgets, key, {"attributes": {"one": piece}}).status == 200
    reply = patch(gadgets, key, {"attributes": {"two": piece}})
    assert (reply.status, list(reply.violations())) == (400, ["attributes"])
    assert "longer than 256 KiB" in reply.text


def test_a_missing_record_has_what_the_patch_makes_of_nothing(films: DatasetDoor, key: str) -> None:
    body = {"counters": {"1": 1, "2": None}, "extras": {"a": {"title": None, "kept": True}}}
    assert patch(films, f"{key}-new", body).status == 404
    reply = patch(films, f"{key}-new", body, "?allow_missing=true")
    assert reply.status == 200, reply.text
    found = reply.json()
    assert found["counters"] == {"1": 1}
    assert (found["extras"]["a"]["title"], found["extras"]["a"]["kept"]) == ("", True)
    films.hub.request("DELETE", f"{films.path}/{key}-new", consumer="admin")


def test_patches_at_one_time_lose_nothing(films: DatasetDoor, key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = range(40)
        replies = pool.map(lambda n: patch_once(films, key, {"counters": {str(n): n}}), numbers)
        assert {reply.status for reply in replies} == {200}
    found = films.hub.get(f"{films.path}/{key}", "admin").json()["counters"]
    assert found == {str(n): n for n in numbers}


def test_a_call_is_repeated_only_with_the_same_patch(films: DatasetDoor, key: str) -> None:
    patch(films, key, {"counters": {"1": 1, "2": 2}})
    once = f"?request_id={uuid.uuid4()}"
    first = patch(films, key, {"counters": {"1": None}}, once)
    assert first.json()["counters"] == {"2": 2}
    other = patch(films, key, {"counters": {"2": None}}, once)
    assert (other.status, other.reason) == (400, "REQUEST_ID_REUSED"), other.text
    again = patch(films, key, {"counters": {"1": None}}, once)
    assert again.headers["penstock-replayed"] == "true" and again.body == first.body


def test_a_conflict_names_what_the_patch_would_change(films: DatasetDoor, key: str) -> None:
    patch(films, key, {"counters": {"1": 1, "2": 2}, "extras": {"a": {"title": "T"}}})
    body = {"counters": {"1": 1}, "extras": {"a": {"title": "U"}}}
    reply = patch(films, key, body, "?etag=1")
    assert (reply.status, reply.reason) == (409, "ETAG_MISMATCH")
    named = set(reply.violations())
    assert "extras" in named and "counters" not in named


def test_a_conflict_compares_numbers_as_they_are_stored(
    gadgets: DatasetDoor, films: DatasetDoor, key: str
) -> None:
    """Fractions, and whole numbers that JSON writes as text."""
    patch(gadgets, key, {"attributes": {"price": 1.5}})
    for price, differs in ((1.5, False), (2.5, True)):
        reply = patch(gadgets, key, {"attributes": {"price": price}}, "?etag=1")
        assert (reply.status, reply.reason) == (409, "ETAG_MISMATCH"), reply.text
        assert ("attributes" in reply.violations()) is differs, price
    patch(films, key, {"counters": {"1": 1}})
    for count in (1, "1"):
        reply = patch(films, key, {"counters": {"1": count}}, "?etag=1")
        assert reply.reason == "ETAG_MISMATCH" and "counters" not in reply.violations()


def test_what_does_not_fit_what_another_has_written_is_a_conflict(
    gadgets: DatasetDoor, key: str
) -> None:
    """It would fit what the caller has read: it shall read again."""
    door = gadgets.hub
    etag = door.get(f"{gadgets.path}/{key}", "admin").json()["etag"]
    half = "x" * 150_000
    assert patch(gadgets, key, {"attributes": {"mine": half}}, f"?etag={etag}").status == 200
    other = patch(gadgets, key, {"attributes": {"other": half}}, f"?etag={etag}")
    assert (other.status, other.reason) == (409, "ETAG_MISMATCH"), other.text
    now = door.get(f"{gadgets.path}/{key}", "admin").json()["etag"]
    for query in (f"?etag={now}", ""):
        other = patch(gadgets, key, {"attributes": {"other": half}}, query)
        assert (other.status, other.reason) == (400, "VALUE_INVALID"), other.text
