"""From the protos to everything under gen/, in one pass."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from generator.compiler import Compiler
from generator.envoy import envoy_inputs
from generator.services import write_services
from penstockd.catalog.load import load_catalog

#: No proto of ours imports them, but errors carry them: Envoy must know them all, or it
#: answers with an empty body.
ERROR_DETAILS = ("google/rpc/error_details.proto", "google/rpc/status.proto")


def derive(compiler: Compiler, output: Path) -> None:
    """Write the services, descriptors, stubs and Envoy's inputs into the folder ``output``.

    The services are written to ``output``/protos, which must be a root of ``compiler``.
    Raises CompileError, ModelError (a dataset breaks a rule of the vocabulary), RouteError.
    """
    catalog = load_catalog(compiler.describe(compiler.files("penstock/model")))
    write_services(list(catalog), output / "protos")

    files = compiler.files("penstock")
    described = _without_foreign_comments(compiler.describe([*files, *ERROR_DETAILS]))
    pool = load_catalog(described).pool
    holders = [name for name in files if pool.FindFileByName(name).services_by_name]
    services = [
        service
        for name in holders
        for service in pool.FindFileByName(name).services_by_name.values()
    ]
    inputs = json.dumps(envoy_inputs(services), indent=2) + "\n"

    compiler.messages(files, output)
    compiler.stubs(holders, output)
    for package in (output / "penstock").iterdir():
        (package / "py.typed").touch()
    _write(output / "descriptors/hub.binpb", described)
    _write(output / "envoy/inputs.json", inputs.encode())


def _without_foreign_comments(described: bytes) -> bytes:
    """Keep the comments of our own protos only: the others are most of the set, and unread."""
    files = FileDescriptorSet.FromString(described)
    for file in files.file:
        if not file.name.startswith("penstock/"):
            file.ClearField("source_code_info")
    return files.SerializeToString(deterministic=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
