"""A change of a model, and declarations of fields, for the catalogue of changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.store.step import Consent

START, COMMAND, NEVER = Consent.START, Consent.COMMAND, Consent.NEVER

CLASS = "(penstock.options.v1.field).class = PUBLIC"
FIELD = f"[{CLASS}]"
IN_KEY = "[(penstock.options.v1.field) = {key: true, class: PUBLIC}]"
KEY = f"string key_id = 1 {IN_KEY};"
HEAD = """syntax = "proto3";
package penstock.model.v1;
import "buf/validate/validate.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";
message %s {
  option (penstock.options.v1.dataset) = {title: "Probe"};
%s
  %s
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field) = {output_only: true}];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field) = {output_only: true}];
  string etag = 94 [(penstock.options.v1.field) = {output_only: true}];
}
"""


@dataclass(frozen=True)
class Change:
    """A field ``v``, its declaration before and after, and values: stored JSON -> JSON read later.

    ``refused`` are values that the new model cannot represent. ``full`` is the consent that a table
    with ``values`` needs, ``empty`` that of an empty one. The values are written to the field
    ``write`` and read from the field ``read``. A declaration is None if the model lacks the
    dataset; ``keys`` are the declarations of the key. ``closes``: the log's earlier images
    cannot be read later.
    """

    before: str | None
    after: str | None
    values: Sequence[tuple[Any, Any]] = ()
    full: Consent | None = START
    refused: Sequence[Any] = ()
    empty: Consent | None = START
    says: str = ""
    read: str = "v"
    write: str = "v"
    keys: tuple[str, str] = (KEY, KEY)
    closes: bool = False


def plain(kind: str, number: int = 2, name: str = "v") -> str:
    return f"{kind} {name} = {number} {FIELD};"


def decimal(precision: int, scale: int, label: str = "optional ") -> str:
    return (
        f"{label}string v = 2 [(penstock.options.v1.field) = {{class: PUBLIC,"
        f" decimal: {{precision: {precision}, scale: {scale}}}}}];"
    )


def date(label: str = "optional ") -> str:
    return f"{label}string v = 2 [(penstock.options.v1.field) = {{class: PUBLIC, date: true}}];"


def enum(*names: str, label: str = "") -> str:
    values = " ".join(f"{n} = {i};" for i, n in enumerate(names) if n)
    return f"enum E {{ {values} }} {label}E v = 2 {FIELD};"


def message(members: str, label: str = "repeated ") -> str:
    holder = f"map<string, M> v = 2 {FIELD};" if label == "map" else f"{label}M v = 2 {FIELD};"
    return f"message M {{ {members} }} {holder}"


def ruled(rule: str) -> str:
    return f"string v = 2 [(penstock.options.v1.field).class = PUBLIC, {rule}];"


OPTION = "string v = 2 [(penstock.options.v1.field) = {class: PUBLIC, %s}];"
LETTERS = ("NONE", "A", "B")
NOW = "2024-02-29T12:00:00.123456Z"
NESTED = "message N { string a = 1; } N n = 2;"
LABELLED = 'enum E { NONE = 0; A = 1 [(penstock.options.v1.label) = "%s"]; } ' + plain("E")
REFERENCE = (
    'string %s = %d [(penstock.options.v1.field) = {class: PUBLIC, reference: {dataset: "SELF"}}];'
)
