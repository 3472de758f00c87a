"""The catalogue of model changes, first part: fields that get another type."""

from __future__ import annotations

from collections.abc import Mapping

from changing import (
    COMMAND,
    LETTERS,
    NESTED,
    NOW,
    START,
    Change,
    date,
    decimal,
    enum,
    message,
    plain,
)

Changes = Mapping[str, Change]

#: Each closes the log.
TYPE: Changes = {
    "int32 to int64": Change(plain("int32"), plain("int64"), [(7, "7"), (-1, "-1")], COMMAND),
    "int64 to int32": Change(
        plain("int64"), plain("int32"), [("7", 7)], COMMAND, refused=["9007199254740993"]
    ),
    "int32 to uint32": Change(plain("int32"), plain("uint32"), [(7, 7)], COMMAND, [-1]),
    "uint32 to int32": Change(plain("uint32"), plain("int32"), [(7, 7)], COMMAND, [2**32 - 1]),
    "uint32 to uint64": Change(plain("uint32"), plain("uint64"), [(7, "7")], COMMAND),
    "uint64 to int64": Change(
        plain("uint64"), plain("int64"), [("7", "7")], COMMAND, refused=[str(2**64 - 1)]
    ),
    "int64 to string": Change(
        plain("int64"), plain("string"), [("9007199254740993", "9007199254740993")], COMMAND
    ),
    "int32 to double": Change(plain("int32"), plain("double"), [(7, 7.0)], COMMAND),
    "int32 to bool": Change(plain("int32"), plain("bool"), refused=[1]),
    "float to double": Change(plain("float"), plain("double"), [(0.1, 0.1)], COMMAND),
    "double to float": Change(
        plain("double"), plain("float"), [(0.5, 0.5)], COMMAND, refused=[1e300]
    ),
    "double to string": Change(plain("double"), plain("string"), [(0.1, "0.1")], COMMAND),
    "bool to string": Change(plain("bool"), plain("string"), [(True, "true")], COMMAND),
    "bool to int32": Change(plain("bool"), plain("int32"), refused=[True]),
    "int64 to decimal": Change(plain("int64"), decimal(5, 2), [("7", "7")], COMMAND),
    "decimal to string": Change(
        decimal(12, 4), plain("optional string"), [("1.50", "1.50")], COMMAND
    ),
    "decimal to double": Change(decimal(12, 4), plain("optional double"), [("1.5", 1.5)], COMMAND),
    "decimal to int64": Change(
        decimal(12, 4), plain("optional int64"), [("2", "2")], COMMAND, refused=["2.5"]
    ),
    "string to decimal": Change(
        plain("optional string"), decimal(5, 2), [("1.50", "1.50")], COMMAND, refused=["a lot"]
    ),
    "string to int32": Change(plain("string"), plain("int32"), [("42", 42)], COMMAND, ["no"]),
    "string never set to int32": Change(plain("string"), plain("int32"), [("", 0)], COMMAND),
    "string to bytes": Change(plain("string"), plain("bytes"), [("AP8=", "AP8=")], COMMAND, ["*"]),
    "bytes to string": Change(plain("bytes"), plain("string"), [("AP8=", "AP8=")], COMMAND),
    "string to bool": Change(plain("string"), plain("bool"), [("true", True)], COMMAND, ["yes"]),
    "string to date": Change(
        plain("optional string"), date(), [("2024-02-29", "2024-02-29")], COMMAND, ["2023-02-29"]
    ),
    "date to string": Change(
        date(), plain("optional string"), [("2024-02-29", "2024-02-29")], COMMAND
    ),
    "date to timestamp": Change(
        date(), plain("google.protobuf.Timestamp"), refused=["2024-02-29"]
    ),
    "timestamp to string": Change(
        plain("google.protobuf.Timestamp"), plain("optional string"), [(NOW, NOW)], COMMAND
    ),
    "string to timestamp": Change(
        plain("optional string"), plain("google.protobuf.Timestamp"), [(NOW, NOW)], COMMAND, ["x"]
    ),
    "string to enum": Change(plain("string"), enum(*LETTERS), [("A", "A")], refused=["Z"]),
    "string never set to enum": Change(plain("string"), enum(*LETTERS), [("", "NONE")], COMMAND),
    "enum to string": Change(enum(*LETTERS), plain("string"), [("A", "A")]),
    "list of string to list of int32": Change(
        plain("repeated string"), plain("repeated int32"), [(["1"], [1])], COMMAND, [["x"]]
    ),
    "list of int32 to list of int64": Change(
        plain("repeated int32"), plain("repeated int64"), [([1], ["1"]), ([], [])], COMMAND
    ),
    "one to list": Change(plain("string"), plain("repeated string"), [("a", ["a"])], COMMAND),
    "optional one to list": Change(
        plain("optional string"), plain("repeated string"), [("a", ["a"]), (None, [])], COMMAND,
    ),
    "list to one": Change(
        plain("repeated string"), plain("string"), [(["a"], "a")], COMMAND, [["a", "b"]]
    ),
    "map's values to another kind": Change(
        plain("map<string, string>"), plain("map<string, int64>"), [({"a": "1"}, {"a": "1"})],
        START, [{"a": "x"}],
    ),
    "map's keys to another kind": Change(
        plain("map<string, string>"), plain("map<int32, string>"), [({"1": "a"}, {"1": "a"})],
        START, [{"a": "a"}],
    ),
    "list to map": Change(plain("repeated string"), plain("map<string, string>"), refused=[["a"]]),
    "int32 to sint32": Change(
        plain("int32"), plain("sint32"), [(-7, -7), (7, 7)], None, empty=None
    ),
    "int64 to fixed64, as uint64": Change(
        plain("uint64"), plain("fixed64"), [("7", "7")], None, empty=None
    ),
    "list of int32 to list of sint32": Change(
        plain("repeated int32"), plain("repeated sint32"), [([-7], [-7])], None, empty=None,

    ),
    "member int64 to sint64": Change(
        message("int64 a = 1;"), message("sint64 a = 1;"), [([{"a": "-7"}], [{"a": "-7"}])], None,
        empty=None,
    ),
    "map's keys int32 to sint32": Change(
        plain("map<int32, string>"), plain("map<sint32, string>"), [({"-7": "a"}, {"-7": "a"})],
        None, empty=None,
    ),
    "uint64 to decimal": Change(
        plain("optional uint64"), decimal(20, 0), [(str(2**64 - 1), str(2**64 - 1))], COMMAND,

    ),
    "decimal to uint64": Change(
        decimal(20, 0), plain("optional uint64"), [("7", "7")], COMMAND, refused=["-1"]
    ),
    "string to Struct": Change(
        plain("optional string"), plain("google.protobuf.Struct"), refused=['{"a": 1}']
    ),
    "Struct to string": Change(
        plain("google.protobuf.Struct"), plain("optional string"), refused=[{"a": 1}]
    ),
    "Struct to map": Change(
        plain("google.protobuf.Struct"), plain("map<string, string>"), refused=[{"a": "b"}],

    ),
    "map to Struct": Change(
        plain("map<string, string>"), plain("google.protobuf.Struct"), refused=[{"a": "b"}],

    ),
    "message to string": Change(
        NESTED, plain("string"), [("x", "")], COMMAND, write="n.a", says="n.a is no",
    ),
    "string to message": Change(
        plain("string"), NESTED, [("x", None)], COMMAND, read="n.a", says="v is no",
    ),
    "message to Struct": Change(
        NESTED, "google.protobuf.Struct n = 2;", [("x", None)], COMMAND, write="n.a", read="n",

    ),
    "Struct to message": Change(
        "google.protobuf.Struct n = 2;", NESTED, [({"a": "b"}, None)], COMMAND, write="n",
        read="n.a",
    ),
    "message to list of messages": Change(
        NESTED, "message N { string a = 1; } repeated N n = 2;", [("x", [])], COMMAND, write="n.a",
        read="n",
    ),
    "list of messages to message": Change(
        "message N { string a = 1; } repeated N n = 2;", NESTED, [([{"a": "x"}], None)], COMMAND,
        write="n", read="n.a",
    ),
    "list of messages to list of texts": Change(
        message("string a = 1;"), plain("repeated string"), refused=[[{"a": "x"}]]
    ),
}  # fmt: skip
