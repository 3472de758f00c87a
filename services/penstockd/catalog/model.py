"""The classes of datasets and fields. Nothing here reads a descriptor; see ``load``."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

#: The most bytes of a record's key.
MAX_KEY_BYTES = 512
#: The column that holds the key as text where no field of the record does (see ``keys``). No path
#: of a field contains the tilde.
KEY_COLUMN = "~key"

#: Columns that every table of PostgreSQL has already.
_SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
_MAX_NAME_BYTES = 63  # of any name in PostgreSQL, which cuts off the rest


def column_name(path: str) -> str:
    """The name of the column for the field at a path: the path, unless PostgreSQL does not allow
    it. No path contains the tilde that marks the other names."""
    if path == KEY_COLUMN:
        return path
    if path in _SYSTEM_COLUMNS:
        return f"~{path}"
    if len(path) <= _MAX_NAME_BYTES:
        return path
    digest = hashlib.sha256(path.encode()).hexdigest()[:16]
    return f"{path[: _MAX_NAME_BYTES - 17]}~{digest}"


class ModelError(Exception):
    """The data model breaks a rule of the vocabulary."""


class FieldClass(enum.IntEnum):
    """How widely a field's values may be shown (``penstock.options.v1.FieldClass``)."""

    PUBLIC = 1
    INTERNAL = 2
    PII = 3
    SENSITIVE = 4


class Kind(enum.Enum):
    """The kind of a field's values; ``store.tables`` defines the column type of each."""

    STRING = enum.auto()
    BOOL = enum.auto()
    INT32 = enum.auto()
    INT64 = enum.auto()
    UINT32 = enum.auto()
    UINT64 = enum.auto()
    FLOAT = enum.auto()
    DOUBLE = enum.auto()
    BYTES = enum.auto()
    ENUM = enum.auto()
    DECIMAL = enum.auto()
    DATE = enum.auto()
    TIMESTAMP = enum.auto()
    LIST = enum.auto()
    MAP = enum.auto()
    STRUCT = enum.auto()


#: The messages that are values, as text or as a whole, and not messages of the model.
VALUE_MESSAGES: Mapping[str, Kind] = {
    "google.protobuf.Timestamp": Kind.TIMESTAMP,
    "google.protobuf.Struct": Kind.STRUCT,
}
_LIBRARY = "google.protobuf."
#: What to write instead of messages of protobuf's library.
_INSTEAD = {
    "Duration": "write a whole number with its unit in the name, such as `int64 wait_seconds`",
    "Any": "name the message, or several in a oneof",
    "Empty": "write a bool",
    "FieldMask": "write `repeated string`",
    "Value": "write a google.protobuf.Struct with a member that holds it: null and what is not set "
    "would be the same in most formats",
    "ListValue": "write a google.protobuf.Struct with a member that holds the list",
    **{
        f"{name}Value": f"write `optional {name.lower()}`"
        for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
    },
    "BytesValue": "write `optional bytes`",
}


def inner_message(fd: FieldDescriptor) -> Descriptor | None:
    """The message in a field, or in each of its elements; None for values.

    Raises ModelError for messages that no dataset can hold.
    """
    message = fd.message_type
    if message is None or message.full_name in VALUE_MESSAGES:
        return None
    name = message.full_name.removeprefix(_LIBRARY)
    if name != message.full_name:
        instead = _INSTEAD.get(name, "write a message of the model")
        raise ModelError(f"{fd.full_name}: a dataset cannot hold {message.full_name}: {instead}")
    return message


@dataclass(frozen=True, slots=True)
class Reference:
    """A field contains the key of ``dataset``; row rules follow it under the name ``alias``."""

    dataset: str
    alias: str


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One column of a dataset: a leaf of its record message, nested messages flattened.

    ``path`` joins proto names with dots ("billing_address.city"); it names the column in
    PostgreSQL, CSV, XML and the columnar formats, and the field in filters and grants.
    ``json_path`` joins proto JSON names ("billingAddress.city").
    """

    path: str
    json_path: str
    kind: Kind
    field_class: FieldClass
    nullable: bool
    presence: bool = False  # the leaf itself is `optional` or a message
    key: bool = False  # the record's key as text
    in_key: bool = False  # the key, or one of its parts: written once, shown to all
    output_only: bool = False
    reference: Reference | None = None
    indexed: bool = False
    unique: bool = False
    enum_values: Mapping[str, int] | None = None  # by label, or by name for values without a label
    enum_names: Mapping[str, int] | None = None  # by name, if a value has a label
    precision: int = 0
    scale: int = 0
    element: Field | None = None  # the scalar elements of a LIST or MAP
    element_message: Descriptor | None = None  # the message of a LIST or MAP of messages
    map_key: Kind | None = None  # the kind of a MAP's keys
    members: tuple[Field, ...] = ()  # the leaves of that message, with paths from the record on
    recursive: bool = False  # the message contains itself; it is shown whole or not at all
    description: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The proto names from the record to the leaf."""
        return tuple(self.path.split("."))

    @property
    def json_steps(self) -> tuple[str, ...]:
        """The proto JSON names from the record to the leaf."""
        return tuple(self.json_path.split("."))

    @property
    def column(self) -> str:
        """The name of the field's column in PostgreSQL."""
        return column_name(self.path)

    @property
    def repeated(self) -> bool:
        """Whether the field has many values, stored as one jsonb column."""
        return self.kind in (Kind.LIST, Kind.MAP)

    @property
    def is_json(self) -> bool:
        """Whether the field is one jsonb column, of which a row has the JSON text."""
        return self.repeated or self.kind is Kind.STRUCT

    @property
    def is_etag(self) -> bool:
        """Whether it is the record's etag: a text for callers, a number in the store."""
        return self.path == ETAG

    def walk(self) -> Iterator[Field]:
        """The field and all members within it that have visibility of their own, each after the one
        that contains it."""
        yield self
        if not self.recursive:
            for member in self.members:
                yield from member.walk()


ETAG: Final = "etag"
#: Fields that change with every write, whatever is written.
MOVING: Final = frozenset({"update_time", ETAG})
#: Fields that every dataset has, and their writers.
COMMON_FIELDS: Mapping[str, Kind] = {
    "source": Kind.STRING,
    "source_id": Kind.STRING,
    "create_time": Kind.TIMESTAMP,
    "update_time": Kind.TIMESTAMP,
    "etag": Kind.STRING,
}


_KEY_TEXT: Final = Field(
    KEY_COLUMN, KEY_COLUMN, Kind.STRING, FieldClass.PUBLIC, nullable=False, key=True
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """One proto file, one message, one table: ``name`` is plural snake_case ("customers")."""

    name: str
    title: str
    message_type: Descriptor
    message_class: type[Message]
    fields: tuple[Field, ...]
    description: str = ""

    @property
    def singular(self) -> str:
        """The record's name in snake_case, such as "customer"."""
        return "".join(
            "_" + c.lower() if c.isupper() and i else c.lower()
            for i, c in enumerate(self.message_type.name)
        )

    @cached_property
    def key(self) -> Field:
        """What holds the key as text: a field, or else a column of the store alone."""
        return next((f for f in self.fields if f.key), _KEY_TEXT)

    @cached_property
    def key_fields(self) -> tuple[Field, ...]:
        """The fields that make up the key, in the order of the schema."""
        return tuple(f for f in self.fields if f.in_key)

    @property
    def joins_key(self) -> bool:
        """Whether the text of the key is made of other fields: of a number, or of several."""
        return self.key is _KEY_TEXT

    @cached_property
    def every_field(self) -> tuple[Field, ...]:
        """The fields, and the members of repeated messages and maps, which have no column."""
        return tuple(f for field in self.fields for f in field.walk())

    @cached_property
    def by_path(self) -> Mapping[str, Field]:
        """Fields by ``path``."""
        return {f.path: f for f in self.fields}

    @cached_property
    def by_json_path(self) -> Mapping[str, Field]:
        """Fields by ``json_path``."""
        return {f.json_path: f for f in self.fields}

    @cached_property
    def references(self) -> Mapping[str, Field]:
        """Reference fields by the alias that row rules use."""
        return {f.reference.alias: f for f in self.fields if f.reference}


class Catalog:
    """All datasets of a hub, by name, with the descriptor pool that they came from."""

    def __init__(self, datasets: Mapping[str, Dataset], pool: Any) -> None:
        self._datasets = dict(datasets)
        self.pool = pool
        #: Datasets whose images in the log may hold fields that the model no longer has.
        self.with_former_fields: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Dataset:
        return self._datasets[name]

    def __contains__(self, name: object) -> bool:
        return name in self._datasets

    def __iter__(self) -> Iterator[Dataset]:
        return iter(self._datasets.values())

    def __len__(self) -> int:
        return len(self._datasets)
