"""A catalogue of model changes: each kind, its outcome, and the values that are read later.

The kinds are the rows of the table in the README, which a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from changing import (
    CLASS,
    COMMAND,
    HEAD,
    IN_KEY,
    KEY,
    LABELLED,
    LETTERS,
    NEVER,
    OPTION,
    REFERENCE,
    START,
    Change,
    decimal,
    enum,
    message,
    plain,
    ruled,
)
from type_changes import TYPE, Changes

NEW: Changes = {
    "enum value added": Change(enum(*LETTERS), enum(*LETTERS, "C"), [("A", "A")], None, empty=None),
    "optional member added": Change(
        message("string a = 1;"), message("string a = 1; optional string b = 2;"),
        [([{"a": "x"}], [{"a": "x"}])], None, empty=None,
    ),
    "field added": Change(
        plain("string"), plain("string") + plain("int32", 3, "w"), [("a", 0)], read="w"
    ),
    "enum value of a list added": Change(
        enum(*LETTERS, label="repeated "), enum(*LETTERS, "C", label="repeated "),
        [(["A", "B"], ["A", "B"])], None, empty=None,
    ),
    "Struct added": Change(
        plain("string"), plain("string") + plain("google.protobuf.Struct", 3, "w"),
        [("a", None)], read="w",
    ),
    "list and map added": Change(
        plain("string"),
        plain("string") + plain("repeated int64", 3, "w") + plain("map<string, bool>", 4, "x"),
        [("a", [])], read="w",
    ),
    "dataset added": Change(None, plain("string"), full=START),
}  # fmt: skip

DECIMAL: Changes = {
    "decimal wider": Change(decimal(5, 2), decimal(12, 4), [("1.50", "1.50")], None, empty=None),
    "decimal narrower, all fit": Change(decimal(12, 4), decimal(3, 1), [("12.5", "12.5")]),
    "decimal narrower": Change(decimal(12, 4), decimal(3, 1), refused=["12345.6789"]),
    "decimal fewer digits after the point": Change(
        decimal(12, 4), decimal(12, 2), [("1.25", "1.25")], refused=["1.2345"]
    ),
    "list of decimals narrower": Change(
        decimal(12, 4, "repeated "), decimal(3, 1, "repeated "), [(["1.5"], ["1.5"])], START,
        refused=[["1.25"]],
    ),
}  # fmt: skip

ENUM: Changes = {
    "enum value removed, unused": Change(enum(*LETTERS), enum("NONE", "A"), [("A", "A")]),
    "enum value removed": Change(enum(*LETTERS), enum("NONE", "A"), refused=["B"], says="B"),
    "enum value renamed": Change(enum(*LETTERS), enum("NONE", "AA", "B"), [("A", "AA")], COMMAND),
    "enum values swap names": Change(
        enum(*LETTERS), enum("NONE", "B", "A"), [("A", "B"), ("B", "A")], COMMAND
    ),
    "enum's zero renamed": Change(
        enum(*LETTERS), enum("UNKNOWN", "A", "B"), [("NONE", "UNKNOWN")], COMMAND
    ),
    "list of enum, value renamed": Change(
        enum(*LETTERS, label="repeated "),
        enum("NONE", "AA", "B", label="repeated "),
        [(["A", "B"], ["AA", "B"])],
        COMMAND,
    ),
    "list of enum, value removed": Change(
        enum(*LETTERS, label="repeated "), enum("NONE", "A", label="repeated "), refused=[["B"]]
    ),
    "an enum value gets a label": Change(
        "enum E { NONE = 0; A = 1; } " + plain("E"),
        'enum E { NONE = 0; A = 1 [(penstock.options.v1.label) = "PG-13"]; } ' + plain("E"),
        [("A", "PG-13"), ("NONE", "NONE")], COMMAND,
    ),
    "a label goes": Change(
        LABELLED % "PG-13", "enum E { NONE = 0; A = 1; } " + plain("E"),
        [("PG-13", "A"), ("NONE", "NONE")], COMMAND,
    ),
    "another label": Change(
        LABELLED % "PG-13", LABELLED % "PG 13", [("PG-13", "PG 13")], COMMAND,
    ),
    "enum value of a map renamed": Change(
        enum(*LETTERS).replace("E v", "map<string, E> v"),
        enum("NONE", "AA", "B").replace("E v", "map<string, E> v"),
        [({"k": "A"}, {"k": "AA"})], COMMAND,
    ),
    "enum value of a member removed": Change(
        "enum E { NONE = 0; A = 1; B = 2; }" + message("E a = 1;"),
        "enum E { NONE = 0; A = 1; }" + message("E a = 1;"),
        [([{"a": "A"}], [{"a": "A"}])], START, refused=[[{"a": "B"}]],
    ),
    "the enum itself renamed": Change(
        enum(*LETTERS), enum(*LETTERS).replace("enum E", "enum F").replace("E v", "F v"),
        [("A", "A")], None, empty=None,
    ),
}  # fmt: skip

PRESENCE: Changes = {
    "may be unset": Change(plain("int32"), plain("optional int32"), [(7, 7)]),
    "may not be unset, none is": Change(plain("optional int32"), plain("int32"), [(7, 7)]),
    "may not be unset": Change(
        plain("optional int32"), plain("int32"), [(7, 7), (None, 0)], COMMAND, says="unset"
    ),
    "may not be unset, and another kind": Change(
        plain("optional int32"), plain("string"), [(7, "7"), (None, "")], COMMAND, closes=True,
    ),
    "optional enum to required text": Change(
        enum(*LETTERS, label="optional "), plain("string"), [("A", "A"), (None, "")], COMMAND,
        closes=True,
    ),
    "optional Struct to required map": Change(
        plain("google.protobuf.Struct"), plain("map<string, int32>"), [(None, {})], COMMAND,
        closes=True,
    ),
}  # fmt: skip

RENAMED: Changes = {
    "field renamed": Change(
        plain("string"), plain("string", name="w"), [("a", "a")], COMMAND, read="w", says="v to w"
    ),
    "field renamed, and of another kind": Change(
        plain("string"), plain("int32", name="w"), [("7", 7)], COMMAND, ["x"], read="w",
        closes=True,
    ),
    "fields swap names": Change(
        plain("string") + plain("string", 3, "w"), plain("string", 2, "w") + plain("string", 3),
        [("a", "a")], COMMAND, read="w",
    ),
    "nested member renamed": Change(
        "message N { string a = 1; } N n = 2;", "message N { string b = 1; } N n = 2;",
        [("x", "x")], COMMAND, read="n.b", write="n.a",
    ),
    "member renamed": Change(
        message("string first_name = 1;"), message("string given_name = 1;"),
        [([{"firstName": "a"}], [{"givenName": "a"}])], COMMAND,
    ),
    "member of a map's message renamed": Change(
        message("string a = 1;", "map"), message("string b = 1;", "map"),
        [({"k": {"a": "x"}}, {"k": {"b": "x"}})], COMMAND,
    ),
    "list of messages renamed": Change(
        message("string a = 1;"), message("string a = 1;").replace(" v = 2", " w = 2"),
        [([{"a": "x"}], [{"a": "x"}])], COMMAND, read="w",
    ),
    "the message itself renamed": Change(
        message("string a = 1;"), message("string a = 1;").replace("M", "MM"),
        [([{"a": "x"}], [{"a": "x"}])], None, empty=None,
    ),
    "reference renamed, and another field of another kind": Change(
        REFERENCE % ("v", 2) + plain("int32", 3, "x"),
        REFERENCE % ("w", 2) + plain("string", 3, "x"),
        [("k0", "k0")], COMMAND, read="w", closes=True,
    ),
    "member of a nested message's list renamed": Change(
        "message M { string a = 1; } message N { repeated M m = 1; } N n = 2;",
        "message M { string b = 1; } message N { repeated M m = 1; } N n = 2;",
        [([{"a": "x"}], [{"b": "x"}])], COMMAND, write="n.m", read="n.m",
    ),
}  # fmt: skip

RENUMBERED: Changes = {
    "field of another number": Change(
        plain("string"), plain("string", 3), [("a", "a")], None, empty=None, closes=True,
    ),
    "fields swap numbers": Change(
        plain("string") + plain("string", 3, "w"), plain("string", 3) + plain("string", 2, "w"),
        [("a", "a")], COMMAND, read="w", says="renamed",
    ),
}  # fmt: skip

MEMBER: Changes = {
    "member added": Change(
        message("string a = 1;"), message("string a = 1; string b = 2;"),
        [([{"a": "x"}], [{"a": "x", "b": ""}])], COMMAND,
    ),
    "member removed": Change(
        message("string a = 1; string b = 2;"), message("string a = 1;"),
        [([{"a": "x", "b": "y"}], [{"a": "x"}])], COMMAND, says="drops b",
    ),
    "member of another kind": Change(
        message("string a = 1;"), message("int32 a = 1;"),
        [([{"a": "7"}], [{"a": 7}])], COMMAND, [[{"a": "x"}]], closes=True,
    ),
    "member becomes a list": Change(
        message("string a = 1;"), message("repeated string a = 1;"),
        [([{"a": "x"}], [{"a": ["x"]}])], COMMAND, closes=True,
    ),
    "members in another order": Change(
        message("string a = 1; string b = 2;"), message("string b = 2; string a = 1;"),
        [([{"a": "x", "b": "y"}], [{"b": "y", "a": "x"}])], START,
    ),
}  # fmt: skip

REMOVED: Changes = {
    "field removed": Change(
        plain("string") + plain("int32", 3, "w"), plain("int32", 3, "w"),
        [("a value that is gone", 0)], COMMAND, read="w",
    ),
    "Struct removed": Change(
        plain("google.protobuf.Struct") + plain("int32", 3, "w"), plain("int32", 3, "w"),
        [({"a": 1}, 0)], COMMAND, read="w",
    ),
    "reference removed, and another field of another kind": Change(
        REFERENCE % ("v", 2) + plain("int32", 3, "w"), plain("string", 3, "w"),
        [("k0", "0")], COMMAND, read="w", closes=True,
    ),
    "field moves into a message": Change(
        plain("string"), "message N { string v = 1; } N n = 3;", [("a", None)], COMMAND,
        read="n.v", says="would be dropped",
    ),
    "dataset removed": Change(plain("string"), None, [("a", "a")], COMMAND),
}  # fmt: skip

RULE: Changes = {
    "rule tightened": Change(
        ruled("(buf.validate.field).string.max_len = 9"),
        ruled("(buf.validate.field).string.max_len = 2"),
        [("abc", "abc")], START, empty=None, says="1 record breaks the current rules",
    ),
    "rule tightened, all keep it": Change(
        ruled("(buf.validate.field).string.max_len = 9"),
        ruled("(buf.validate.field).string.max_len = 2"),
        [("ab", "ab")], None, empty=None,
    ),
    "rule loosened": Change(
        ruled("(buf.validate.field).string.max_len = 2"),
        ruled("(buf.validate.field).string.max_len = 9"),
        [("ab", "ab")], None, empty=None,
    ),
    "required from now on": Change(
        plain("string"), ruled("(buf.validate.field).required = true"),
        [("", ""), ("a", "a")], START, empty=None, says="1 record breaks the current rules",
    ),
    "a list may hold less": Change(
        plain("repeated string"),
        f"repeated string v = 2 [{CLASS}, (buf.validate.field).repeated.max_items = 1];",
        [(["a", "b"], ["a", "b"])], START, empty=None, says="1 record breaks",
    ),
}  # fmt: skip

INDEX: Changes = {
    "unique from now on": Change(
        plain("string"), OPTION % "unique: true", [("a", "a"), ("b", "b"), ("", "")], START,
        refused=["x", "x"],
    ),
    "indexed from now on": Change(plain("string"), OPTION % "indexed: true", [("a", "a")], START),
    "no longer unique": Change(OPTION % "unique: true", plain("string"), [("a", "a")], START),
    "unique becomes indexed": Change(
        OPTION % "unique: true", OPTION % "indexed: true", [("a", "a")], START
    ),
    "no longer indexed": Change(OPTION % "indexed: true", plain("string"), [("a", "a")], START),
}  # fmt: skip

ONEOF: Changes = {
    "fields become a oneof": Change(
        plain("string") + plain("string", 3, "w"),
        f"oneof c {{ {plain('string')} {plain('string', 3, 'w')} }}",
        [("a", "a"), ("", None)], START,
    ),
    "a oneof becomes fields": Change(
        f"oneof c {{ {plain('string')} {plain('string', 3, 'w')} }}",
        plain("string") + plain("string", 3, "w"),
        [("a", "a")], COMMAND, says="w may no longer be unset",
    ),
    "a oneof gets a member": Change(
        f"oneof c {{ {plain('string')} }}",
        f"oneof c {{ {plain('string')} {plain('google.protobuf.Struct', 3, 'w')} }}",
        [("a", "a"), (None, None)], START,
    ),
    "a oneof loses a member": Change(
        f"oneof c {{ {plain('string')} {plain('google.protobuf.Struct', 3, 'w')} }}",
        f"oneof c {{ {plain('string')} }}", [("a", "a"), (None, None)], COMMAND,
    ),
}  # fmt: skip

KEYS: Changes = {
    "key renamed": Change(
        plain("string"), plain("string"), [("a", "a")], COMMAND,
        keys=(KEY, f"string code = 1 {IN_KEY};"),
    ),
    "key's kind": Change(
        plain("string"), plain("string"), refused=["a"], empty=NEVER,
        keys=(KEY, f"int64 key_id = 1 {IN_KEY};"), closes=True,
    ),
    "key of two parts": Change(
        plain("string"), plain("string"), refused=["a"], empty=NEVER,
        keys=(KEY, KEY + f"int32 part = 8 {IN_KEY};"),
    ),
    "key's parts in another order": Change(
        plain("string"), plain("string"), refused=["a"], empty=NEVER,
        keys=(KEY + f"int32 part = 8 {IN_KEY};", f"int32 part = 8 {IN_KEY};" + KEY),
    ),
    "key's part int32 to sint32": Change(
        plain("string"), plain("string"), [("a", "a")], None, empty=None,
        keys=(KEY + f"int32 part = 8 {IN_KEY};", KEY + f"sint32 part = 8 {IN_KEY};"),
        closes=True,
    ),
}  # fmt: skip

OTHER: Changes = {
    "class changed": Change(
        plain("string"), plain("string").replace("PUBLIC", "SENSITIVE"), [("a", "a")], None,
        empty=None,
    ),
    "reference given": Change(
        plain("string"), REFERENCE % ("v", 2), [("k0", "k0")], START, says="index",
    ),
    "reference taken": Change(
        REFERENCE % ("v", 2), plain("string"), [("k0", "k0")], None, empty=None,
    ),
    "reference to another dataset": Change(
        REFERENCE % ("v", 2), (REFERENCE % ("v", 2)).replace("SELF", "p_field_added"),
        [("k0", "k0")], None, empty=None,
    ),
    "output only": Change(
        plain("string"), OPTION % "output_only: true", [("a", "a")], None, empty=None,
    ),
    "comment changed": Change(
        "// One.\n" + plain("string"), "// Two.\n" + plain("string"), [("a", "a")], None,
        empty=None,
    ),
}  # fmt: skip

#: The changes by kind.
KINDS: Mapping[str, Changes] = {
    "something new": NEW,
    "another type": {n: replace(c, closes=True) for n, c in TYPE.items()},
    "a narrower or wider decimal": DECIMAL,
    "an enum value renamed, relabelled or removed": ENUM,
    "`optional` added or removed": PRESENCE,
    "a field or a member renamed": RENAMED,
    "a field renumbered": RENUMBERED,
    "a member added, removed or of another type": MEMBER,
    "a field removed": REMOVED,
    "a rule tightened or loosened": RULE,
    "`unique` or `indexed` added or removed": INDEX,
    "a oneof": ONEOF,
    "a key": KEYS,
    "a class, a reference or a comment": OTHER,
}
CHANGES: Changes = {n: c for changes in KINDS.values() for n, c in changes.items()}


def dataset_of(change: str) -> str:
    """The name of the dataset of a change."""
    return "p_" + re.sub(r"[^a-z0-9]+", "_", change.lower()).strip("_")


def model_of(change: str, later: bool) -> str | None:
    """The message file of a change before or after it; None if there is no dataset."""
    name, told = dataset_of(change), CHANGES[change]
    declared = told.after if later else told.before
    title = "".join(part.capitalize() for part in name.split("_"))
    if declared is None:
        return None
    return (HEAD % (title, declared, told.keys[later])).replace("SELF", name)
