"""Masks of the hub's own resources: paths into messages and entries of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from penstock.hub.v1 import webhooks_pb2
from penstockd.access.masks import put_entries, put_paths, quote_step, split_path
from penstockd.query import FieldUnknown


@dataclass(frozen=True)
class Inner:
    calls: int = 0
    streams: int = 0


@dataclass(frozen=True)
class Outer:
    title: str = ""
    inner: Inner = field(default_factory=Inner)
    claims: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


BEFORE = Outer("old", Inner(1, 2), {"a": "1", "b.c": "2"}, ("x",))
GIVEN = Outer("new", Inner(9), {"a": "7", "d": "8"}, ("y", "z"))


@pytest.mark.parametrize("key", ["a", "X-Foo", "a.b", "`", "a`.`b", "", "ü", "a b", "``", "."])
def test_a_key_is_one_step_of_a_path(key: str) -> None:
    assert split_path(f"claims.{quote_step(key)}") == ["claims", key]
    assert split_path(f"{quote_step(key)}.values") == [key, "values"]


@pytest.mark.parametrize("path", [".", "a..b", "`a", "a`b`", "`a`b"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(FieldUnknown):
        split_path(path)


@pytest.mark.parametrize(
    ("mask", "after"),
    [
        ([], BEFORE),
        (["title"], Outer("new", Inner(1, 2), BEFORE.claims, ("x",))),
        (["inner.calls"], Outer("old", Inner(9, 2), BEFORE.claims, ("x",))),
        (["inner"], Outer("old", Inner(9, 0), BEFORE.claims, ("x",))),
        (["claims.a"], Outer("old", Inner(1, 2), {"a": "7", "b.c": "2"}, ("x",))),
        (["claims.`b.c`", "claims.d"], Outer("old", Inner(1, 2), {"a": "1", "d": "8"}, ("x",))),
        (["claims", "roles"], Outer("old", Inner(1, 2), GIVEN.claims, ("y", "z"))),
    ],
    ids=str,
)
def test_what_a_mask_names_is_as_it_was_given(mask: list[str], after: Outer) -> None:
    assert put_paths(BEFORE, GIVEN, mask) == after


@pytest.mark.parametrize("path", ["inner.pace", "title.x", "roles.x", "claims.a.b", "none"])
def test_a_path_that_leads_nowhere(path: str) -> None:
    with pytest.raises(FieldUnknown):
        put_paths(BEFORE, GIVEN, [path])


@pytest.mark.parametrize(
    ("mask", "after"),
    [
        (["title"], {"a": "1", "b": "2"}),
        (["headers"], {"a": "7", "c": "8"}),
        (["headers.a", "headers.b"], {"a": "7"}),
        (["headers.none"], {"a": "1", "b": "2"}),
    ],
    ids=str,
)
def test_entries_of_a_message(mask: list[str], after: dict[str, str]) -> None:
    message = webhooks_pb2.Webhook(headers={"a": "1", "b": "2"})
    put_entries("headers", webhooks_pb2.Webhook(headers={"a": "7", "c": "8"}), message, mask)
    assert dict(message.headers) == after
