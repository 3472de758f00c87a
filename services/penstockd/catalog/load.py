"""Descriptors -> Catalog. The rules of the vocabulary are enforced here, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, empty_pb2, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool

from penstock.options.v1 import options_pb2
from penstockd.catalog.keys import KEY_KINDS, REQUEST_KEY
from penstockd.catalog.model import (
    COMMON_FIELDS,
    VALUE_MESSAGES,
    Catalog,
    Dataset,
    Field,
    FieldClass,
    Kind,
    ModelError,
    Reference,
    inner_message,
)
from penstockd.catalog.oneofs import true_oneofs
from penstockd.catalog.options import check_record, check_unreached

MODEL_PREFIX = "penstock/model/v1/"

#: Third-party protos, which do not use the vocabulary.
_FOREIGN = ("google/", "buf/")
_MOST_STEPS = 8  # of a path
#: The members of every Python message, such as ``HasField`` and ``SerializeToString``.
_TAKEN = frozenset(dir(empty_pb2.Empty()))
_SCALARS = {
    FieldDescriptor.TYPE_STRING: Kind.STRING,
    FieldDescriptor.TYPE_BOOL: Kind.BOOL,
    FieldDescriptor.TYPE_INT32: Kind.INT32,
    FieldDescriptor.TYPE_SINT32: Kind.INT32,
    FieldDescriptor.TYPE_SFIXED32: Kind.INT32,
    FieldDescriptor.TYPE_INT64: Kind.INT64,
    FieldDescriptor.TYPE_SINT64: Kind.INT64,
    FieldDescriptor.TYPE_SFIXED64: Kind.INT64,
    FieldDescriptor.TYPE_UINT32: Kind.UINT32,
    FieldDescriptor.TYPE_FIXED32: Kind.UINT32,
    FieldDescriptor.TYPE_UINT64: Kind.UINT64,
    FieldDescriptor.TYPE_FIXED64: Kind.UINT64,
    FieldDescriptor.TYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.TYPE_DOUBLE: Kind.DOUBLE,
    FieldDescriptor.TYPE_BYTES: Kind.BYTES,
    FieldDescriptor.TYPE_ENUM: Kind.ENUM,
}


def load_catalog(descriptor_set: Path | bytes) -> Catalog:
    """The catalog of a ``FileDescriptorSet`` with imports, and with source info if docs are needed.

    Raises ModelError, naming file and field, if a dataset breaks a rule: no or two keys, a missing
    common field, an unsupported type, a reference to an unknown dataset, an option that has no
    effect in its place.
    """
    data = descriptor_set if isinstance(descriptor_set, bytes) else descriptor_set.read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(data)
    pool = DescriptorPool()
    comments: dict[str, str] = {}
    for proto in files.file:
        pool.Add(proto)
        if proto.name.startswith(MODEL_PREFIX):
            comments.update(_read_comments(proto))
    datasets = {}
    for proto in files.file:
        if proto.name.startswith(MODEL_PREFIX):
            dataset = _load_dataset(pool.FindFileByName(proto.name), comments)
            datasets[dataset.name] = dataset
    reached = {name for d in datasets.values() for name in check_record(d.message_type)}
    for proto in files.file:
        if not proto.name.startswith(_FOREIGN):
            check_unreached(proto, reached)
    for dataset in datasets.values():
        for field in dataset.references.values():
            assert field.reference is not None
            if field.reference.dataset not in datasets:
                raise ModelError(
                    f"{dataset.name}.{field.path} refers to the unknown dataset "
                    f"'{field.reference.dataset}'"
                )
            _check_reference(dataset, field, datasets[field.reference.dataset])
    return Catalog(datasets, pool)


def _check_reference(dataset: Dataset, field: Field, target: Dataset) -> None:
    """Raise ModelError if a field cannot hold the keys of the dataset that it refers to."""
    if len(target.key_fields) > 1:
        raise ModelError(
            f"{dataset.name}.{field.path} refers to '{target.name}', whose key has several parts; "
            "a reference is one field, so leave the option out"
        )
    (key,) = target.key_fields
    if key.kind is not field.kind:
        raise ModelError(
            f"{dataset.name}.{field.path} is {field.kind.name}, and the key of '{target.name}', "
            f"to which it refers, is {key.kind.name}"
        )


def _load_dataset(file: FileDescriptor, comments: dict[str, str]) -> Dataset:
    name = file.name.removeprefix(MODEL_PREFIX).removesuffix(".proto")
    marked = [
        m for m in file.message_types_by_name.values() if _find_options(m, "dataset") is not None
    ]
    if len(marked) != 1:
        raise ModelError(
            f"{file.name}: exactly one message must carry (penstock.options.v1.dataset), "
            f"{len(marked)} do"
        )
    message = marked[0]
    options = _find_options(message, "dataset")
    fields = tuple(load_leaves(message, "", "", FieldClass.INTERNAL, False, comments))
    fields = _set_key(file.name, message.name, fields)
    by_path = {f.path: f for f in fields}
    for path, kind in COMMON_FIELDS.items():
        if path not in by_path or by_path[path].kind is not kind:
            raise ModelError(f"{file.name}: {message.name} lacks the common field '{path}'")
        if kind is Kind.TIMESTAMP and not by_path[path].output_only:
            raise ModelError(f"{file.name}: {message.name}.{path} must be output_only")
    return Dataset(
        name=name,
        title=options.title or name.replace("_", " ").capitalize(),
        message_type=message,
        message_class=message_factory.GetMessageClass(message),
        fields=fields,
        description=comments.get(message.full_name, ""),
    )


def _set_key(file: str, message: str, fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """The fields, of which one is the key as text if the key is a single string."""
    parts = [f for f in fields if f.in_key]
    if not parts:
        raise ModelError(f"{file}: a field at the top of {message}, or several, must be the key")
    for part in parts:
        if part.kind not in KEY_KINDS or "." in part.path or part.nullable:
            raise ModelError(
                f"{file}: {message}.{part.path} cannot be in the key, which consists of strings "
                "and whole numbers at the top of the message, none of them optional"
            )
    if len(parts) > 1 or parts[0].kind is not Kind.STRING:
        if message.lower() == REQUEST_KEY:  # whose name its requests would have twice
            raise ModelError(
                f"{file}: {message} has a key that is no single string: give the message another "
                "name"
            )
        return fields
    return tuple(replace(f, key=True) if f is parts[0] else f for f in fields)


def load_leaves(
    message: Descriptor,
    prefix: str,
    json_prefix: str,
    inherited: FieldClass,
    nested: bool,
    comments: dict[str, str],
    within: tuple[str, ...] = (),
) -> Iterator[Field]:
    """The leaves of a message in field order, which is the column order everywhere.

    ``within`` names the repeated fields' and maps' messages that contain this one, and their
    contents.
    """
    for fd in message.fields:
        if fd.name in _TAKEN:
            raise ModelError(
                f"{fd.full_name}: every message in Python has a member of this name, which the"
                " field would hide: rename the field"
            )
        options = _find_options(fd, "field") or options_pb2.FieldOptions()
        given = getattr(options, "class")
        field_class = FieldClass(given) if given else inherited
        path, json_path = prefix + fd.name, json_prefix + fd.json_name
        nested_message = inner_message(fd)
        if nested_message is not None and not fd.is_repeated:
            if nested and prefix.count(".") > _MOST_STEPS:
                raise ModelError(f"{message.full_name}.{fd.name}: nested too deeply")
            if nested and not within and fd in {m for o in true_oneofs(message) for m in o.fields}:
                raise ModelError(
                    f"{message.full_name}.{fd.name}: a oneof within a message holds values only; "
                    "put messages into a oneof at the top of the record"
                )
            if nested_message.full_name in within:
                raise ModelError(
                    f"{message.full_name}.{fd.name}: within a repeated field, a message may hold "
                    "itself in repeated fields and maps only"
                )
            held = (*within, nested_message.full_name) if within else ()
            yield from load_leaves(
                nested_message, path + ".", json_path + ".", field_class, True, comments, held
            )
            continue
        yield load_leaf(fd, options, path, json_path, field_class, nested, comments, within)


def load_leaf(
    fd: FieldDescriptor,
    options: options_pb2.FieldOptions,
    path: str,
    json_path: str,
    field_class: FieldClass,
    nested: bool,
    comments: dict[str, str],
    within: tuple[str, ...] = (),
) -> Field:
    """The Field of a descriptor that is not a nested message. Raises ModelError if no Field can
    hold it.

    See ``load_leaves`` for ``within``.
    """
    if fd.is_repeated:
        values = _repeated_facts(fd, options, path, json_path, field_class, comments, within)
    else:
        values = {"kind": _field_kind(fd, options), **_decimal_limits(fd, options)}
        if within:
            _refuse_labels(fd, values)
            _refuse_struct(fd, values["kind"])
    reference = None
    if options.HasField("reference"):
        alias = getattr(options.reference, "as") or fd.name.removesuffix("_id")
        reference = Reference(options.reference.dataset, alias)
    return Field(
        path=path,
        json_path=json_path,
        field_class=field_class,
        nullable=nested or (fd.has_presence and not options.output_only),
        presence=fd.has_presence,
        in_key=options.key,
        output_only=options.output_only,
        reference=reference,
        indexed=options.indexed,
        unique=options.unique,
        description=comments.get(fd.full_name, ""),
        **values,
    )


def _repeated_facts(
    fd: FieldDescriptor,
    options: options_pb2.FieldOptions,
    path: str,
    json_path: str,
    field_class: FieldClass,
    comments: dict[str, str],
    within: tuple[str, ...],
) -> dict[str, Any]:
    """The properties of a list's or a map's Field: its kind, and its content."""
    entry = fd.message_type
    values: dict[str, Any] = {"kind": Kind.LIST}
    one = fd
    if entry is not None and entry.GetOptions().map_entry:
        one = entry.fields_by_name["value"]
        values = {"kind": Kind.MAP, "map_key": map_key_kind(entry)}
    message = inner_message(one)
    if message is None:
        kind, limits = _field_kind(one, options), _decimal_limits(one, options)
        _refuse_labels(fd, limits)
        _refuse_struct(fd, kind)
        return values | {"element": Field(path, json_path, kind, field_class, False, **limits)}
    return values | {
        "element_message": message,
        "members": _load_members(message, path, json_path, field_class, comments, within),
        # One level of a message that contains itself shows all its field classes.
        "recursive": message.full_name in within,
    }


def map_key_kind(entry: Descriptor) -> Kind:
    """The kind of a map's keys, by the message of its entries."""
    return _SCALARS[entry.fields_by_name["key"].type]


def _load_members(
    message: Descriptor,
    path: str,
    json_path: str,
    inherited: FieldClass,
    comments: dict[str, str],
    within: tuple[str, ...],
) -> tuple[Field, ...]:
    """The leaves of the message in a repeated field or a map."""
    if within.count(message.full_name) > 1:
        return ()
    if path.count(".") > _MOST_STEPS:
        raise ModelError(f"{path}: nested too deeply")
    held = (*within, message.full_name)
    found = load_leaves(message, path + ".", json_path + ".", inherited, False, comments, held)
    return tuple(found)


def _field_kind(fd: FieldDescriptor, options: options_pb2.FieldOptions) -> Kind:
    encoding = options.WhichOneof("encoding")
    if encoding and fd.type != FieldDescriptor.TYPE_STRING:
        raise ModelError(f"{fd.full_name}: '{encoding}' is for strings only")
    if encoding == "decimal":
        return Kind.DECIMAL
    if encoding == "date":
        return Kind.DATE
    if fd.message_type is not None and fd.message_type.full_name in VALUE_MESSAGES:
        return VALUE_MESSAGES[fd.message_type.full_name]
    if fd.enum_type is not None and fd.enum_type.full_name.startswith("google."):
        raise ModelError(f"{fd.full_name}: a dataset cannot hold {fd.enum_type.full_name}")
    if fd.type not in _SCALARS:
        raise ModelError(f"{fd.full_name}: a field of this type cannot be held in a dataset")
    return _SCALARS[fd.type]


def _decimal_limits(fd: FieldDescriptor, options: options_pb2.FieldOptions) -> dict[str, Any]:
    if fd.enum_type is not None:
        return _enum_limits(fd.enum_type)
    if options.WhichOneof("encoding") == "decimal":
        limits = options.decimal
        precision = limits.precision if limits.HasField("precision") else 38
        scale = limits.scale if limits.HasField("scale") else min(9, precision)
        if not 0 < precision <= 38 or scale > precision:
            raise ModelError(
                f"{fd.full_name}: decimal needs scale <= precision, and a precision of 1 to 38"
            )
        return {"precision": precision, "scale": scale}
    return {}


def _enum_limits(enum: EnumDescriptor) -> dict[str, Any]:
    names = {v.name: v.number for v in enum.values}
    labels: dict[str, int] = {}
    for value in enum.values:
        label = _find_options(value, "label")
        shown = value.name if label is None else label
        if shown in labels or names.get(shown, value.number) != value.number:
            raise ModelError(f"{enum.full_name}.{value.name}: '{shown}' is another value, too")
        if not (shown or value.number == 0) or not shown.isprintable():
            raise ModelError(f"{enum.full_name}.{value.name}: the label is empty or not printable")
        labels[shown] = value.number
    labelled = labels.keys() != names.keys()
    return {"enum_values": labels} | ({"enum_names": names} if labelled else {})


def _refuse_labels(fd: FieldDescriptor, values: Mapping[str, Any]) -> None:
    if values.get("enum_names") is not None:
        raise ModelError(
            f"{fd.full_name}: an enum with labels cannot stand in a list or map; leave the labels "
            "out, or hold text"
        )


def _refuse_struct(fd: FieldDescriptor, kind: Kind) -> None:
    if kind is Kind.STRUCT:
        raise ModelError(
            f"{fd.full_name}: google.protobuf.Struct cannot stand in a list or map; write one "
            "Struct with a member that holds the list"
        )


def _find_options(descriptor: Any, name: str) -> Any:
    extension = getattr(options_pb2, name)
    options = descriptor.GetOptions()
    return options.Extensions[extension] if options.HasExtension(extension) else None


def _read_comments(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    """Leading comments by full name, as written in the proto (one line per paragraph)."""
    names: dict[tuple[int, ...], str] = {}

    def visit(message: descriptor_pb2.DescriptorProto, path: tuple[int, ...], scope: str) -> None:
        full = f"{scope}.{message.name}"
        names[path] = full
        for i, field in enumerate(message.field):
            names[(*path, 2, i)] = f"{full}.{field.name}"
        for i, nested in enumerate(message.nested_type):
            visit(nested, (*path, 3, i), full)
        for i, enum in enumerate(message.enum_type):
            names[(*path, 4, i)] = f"{full}.{enum.name}"
            for j, value in enumerate(enum.value):
                names[(*path, 4, i, 2, j)] = f"{full}.{enum.name}.{value.name}"

    for i, message in enumerate(file.message_type):
        visit(message, (4, i), file.package)
    return {
        names[path]: " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if (path := tuple(location.path)) in names and location.leading_comments
    }
