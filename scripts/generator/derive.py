"""From the protos to everything under gen/, in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from generator.compiler import Compiler
from generator.envoy import envoy_inputs, first_names
from generator.services import write_services
from penstockd.catalog.load import load_catalog
from penstockd.catalog.rules import Rules

#: Our protos do not import them, but errors carry them: if Envoy does not know them, it
#: answers with an empty body.
ERROR_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")

#: The REST door, whose paths are those of the other services.
REST = "penstock/rest/"

#: Where the rules of protovalidate are defined.
RULES = "buf/validate/validate.proto"


def derive(compiler: Compiler, output: Path) -> None:
    """Write the services, descriptors, stubs and Envoy's inputs into the folder ``output``.

    The services are written to ``output``/protos, which must be a root of ``compiler``.
    Raises CompileError, ModelError (a dataset breaks a rule of the vocabulary), RouteError.
    """
    catalog = load_catalog(compiler.describe(compiler.files("penstock/model")))
    for dataset in catalog:
        Rules.of(dataset)  # finds an invalid rule now, not when somebody first writes a record
    own = load_catalog(compiler.describe(compiler.files("penstock/hub"))).pool
    hub_services = _services(own, compiler.files("penstock/hub"))
    write_services(list(catalog), output / "protos", first_names(hub_services))

    files = compiler.files("penstock")
    described = _without_foreign_comments(compiler.describe([*files, *ERROR_DETAILS]))
    pool = load_catalog(described).pool
    services = _services(pool, [name for name in files if not name.startswith(REST)])
    holders = [name for name in files if pool.FindFileByName(name).services_by_name]
    inputs = json.dumps(envoy_inputs(services), indent=2) + "\n"

    compiler.messages_of(_without_rules(described), files, output)
    compiler.stubs(holders, output)
    for package in (output / "penstock").iterdir():
        (package / "py.typed").touch()
    door = compiler.describe([*(name for name in files if name.startswith(REST)), *ERROR_DETAILS])
    _write(output / "descriptors/hub.binpb", described)
    _write(output / "descriptors/rest.binpb", _without_foreign_comments(door))
    _write(output / "envoy/inputs.json", inputs.encode())


def _services(pool: DescriptorPool, files: Iterable[str]) -> list[Any]:
    return [s for f in files for s in pool.FindFileByName(f).services_by_name.values()]


def _without_foreign_comments(described: bytes) -> bytes:
    """Keep only the comments of our own protos: the others are most of the set, and unread."""
    files = FileDescriptorSet.FromString(described)
    for file in files.file:
        if not file.name.startswith("penstock/"):
            file.ClearField("source_code_info")
    return files.SerializeToString(deterministic=True)


def _without_rules(described: bytes) -> bytes:
    """Remove the rules of ``buf.validate``, so that the Python stubs need no package for them.

    The hub reads its rules from the descriptors.
    """
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(described).file:
        pool.Add(file)
    # A pool that knows the rules parses them as fields, not unknown fields, so they can be removed.
    name = FileDescriptorSet.DESCRIPTOR.full_name
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    plain: Any = kind.FromString(described)
    rest = [file for file in plain.file if file.name != RULES]
    extensions: list[Any] = []
    if len(rest) < len(plain.file):
        extensions = list(pool.FindFileByName(RULES).extensions_by_name.values())
    for file in rest:
        kept = [d for d in file.dependency if d != RULES]
        del file.dependency[:]
        file.dependency.extend(kept)
        for message in file.message_type:
            _take_out(message, extensions)
        _without_json_names(file.extension)
    return bytes(kind(file=rest).SerializeToString(deterministic=True))


def _take_out(message: Any, extensions: list[Any]) -> None:
    """Clear the options ``extensions`` in the description of a message and of all nested in it."""
    for holder in (message, *message.field, *message.oneof_decl):
        if not holder.HasField("options"):
            continue
        options = holder.options
        for extension in extensions:
            if extension.containing_type is options.DESCRIPTOR:
                options.ClearExtension(extension)
        if not options.ByteSize():
            holder.ClearField("options")
    _without_json_names([*message.field, *message.extension])
    for nested in message.nested_type:
        _take_out(nested, extensions)


def _without_json_names(fields: Iterable[Any]) -> None:
    """Clear the JSON names that follow from the field names, as protoc does for protos."""
    for field in fields:
        first, *others = field.name.split("_")
        if field.json_name == first + "".join(w[:1].upper() + w[1:] for w in others):
            field.ClearField("json_name")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
