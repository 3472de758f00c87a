"""A dataset that has every kind of field, values for it, and a PostgreSQL to read it from."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from penstockd import formats
from penstockd.catalog.load import load_catalog
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder

PROTOS = Path(__file__).parents[3] / "protos"
MODEL = """
syntax = "proto3";
package penstock.model.v1;
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";

message Thing {
  option (penstock.options.v1.dataset) = {title: "Things"};
  enum Color { COLOR_UNSPECIFIED = 0; RED = 1; GREEN = 2; }
  message Deep { optional string code = 1; optional int64 count = 2; }
  message Place {
    string line1 = 1;
    optional string line2 = 2;
    Deep deep_part = 3;
    optional Color shade = 4;
  }
  message Part {
    string part_name = 1;
    int64 amount = 2;
    optional string unit_price = 3 [(penstock.options.v1.field).decimal = {
      precision: 18, scale: 4
    }];
    Color color = 4;
    repeated Part parts = 5;
    map<string, double> extra_sizes = 6;
    google.protobuf.Timestamp made_at = 7;
    optional bytes blob = 8;
  }
  string thing_id = 1 [(penstock.options.v1.field).key = true];
  string title = 2;
  optional string remark = 3;
  bool flag = 4;
  optional bool maybe = 5;
  int32 small = 6;
  optional int64 large = 7;
  uint32 small_positive = 8;
  optional uint64 large_positive = 9;
  optional float ratio = 10;
  double weight = 11;
  optional bytes raw_data = 12;
  Color color = 13;
  optional Color other_color = 14;
  optional string price = 15 [(penstock.options.v1.field).decimal = {precision: 38, scale: 9}];
  optional string day = 16 [(penstock.options.v1.field).date = true];
  google.protobuf.Timestamp seen_at = 17;
  Place home_place = 18;
  repeated string labels = 19;
  repeated int64 numbers = 20;
  repeated Part all_parts = 21;
  map<string, string> words = 22;
  map<string, Part> named_parts = 23;
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field).output_only = true];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field).output_only = true];
  string etag = 94 [(penstock.options.v1.field).output_only = true];
}
"""
_COLUMN_TYPES = {
    Kind.BOOL: "boolean",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.UINT32: "bigint",
    Kind.UINT64: "numeric(20)",
    Kind.FLOAT: "real",
    Kind.DOUBLE: "double precision",
    Kind.BYTES: "bytea",
    Kind.DECIMAL: "numeric",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamptz",
    Kind.LIST: "jsonb",
    Kind.MAP: "jsonb",
}


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset of MODEL."""
    root = tmp_path_factory.mktemp("model")
    source = root / "penstock" / "model" / "v1" / "things.proto"
    source.parent.mkdir(parents=True)
    source.write_text(MODEL)
    target = root / "set.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"-I{PROTOS}"]
    options = ["--include_imports", f"--descriptor_set_out={target}", str(source)]
    subprocess.run([*command, *options], check=True)
    return load_catalog(target)["things"]


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """The DSN of an empty PostgreSQL."""
    # Not below pytest's folder: for root the server runs as another user, who may not enter there.
    data = Path(tempfile.mkdtemp(prefix="penstock-formats-"))
    server = EmbeddedPostgres(data, sockets_folder(data))
    with asyncio.Runner() as runner:
        try:
            runner.run(server.start())
            yield server.dsn
        finally:
            runner.run(server.stop())
            shutil.rmtree(data, ignore_errors=True)


class Shelf:
    """The table of one dataset: rows in, documents out."""

    def __init__(self, connection: Any, dataset: Dataset) -> None:
        self.connection = connection
        self.dataset = dataset

    async def fill(self, rows: list[list[Any]], fields: tuple[Field, ...]) -> None:
        """Makes the table hold just these rows of ``fields``, in this order."""
        await self.connection.execute("TRUNCATE things")
        await self.connection.copy_records_to_table(
            "things",
            records=[(i, *row) for i, row in enumerate(rows)],
            columns=["#", *(f.path for f in fields)],
        )

    async def export(
        self, name: str, fields: tuple[Field, ...], chunk: int = 1 << 20
    ) -> tuple[bytes, int]:
        """The table in a format, and how many rows were counted; the stream cut as said."""
        writer = formats.writer(name, self.dataset, fields)
        output = bytearray(writer.head())

        async def take(data: bytes) -> None:
            for at in range(0, len(data), chunk):
                output.extend(writer.feed(data[at : at + chunk]))

        columns = ", ".join(writer.sql(f, f'"{f.path}"') for f in writer.selected)
        await self.connection.copy_from_query(
            f'SELECT {columns} FROM things ORDER BY "#"', output=take, **writer.copy_options
        )
        output.extend(writer.tail())
        return bytes(output), writer.rows


@pytest.fixture
async def shelf(database: str, things: Dataset) -> AsyncIterator[Shelf]:
    """An empty table for ``things``."""
    connection = await asyncpg.connect(database)
    try:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda v: b"\x01" + orjson.dumps(v),
            decoder=lambda v: orjson.loads(v[1:]),
        )
        columns = ", ".join(
            f'"{f.path}" {_COLUMN_TYPES.get(f.kind, "text")}' for f in things.fields
        )
        await connection.execute("DROP TABLE IF EXISTS things")
        await connection.execute(f'CREATE TABLE things ("#" integer, {columns})')
        yield Shelf(connection, things)
    finally:
        # close() waits for ever where a sink raised at the end of its stream.
        connection.terminate()


def writable(dataset: Dataset) -> tuple[Field, ...]:
    """The fields that a file may fill."""
    return tuple(f for f in dataset.fields if not f.output_only)


def read(
    name: str, dataset: Dataset, data: bytes, chunk: int = 1 << 20
) -> tuple[formats.Reader, list[list[Any]], list[formats.BadRow]]:
    """All rows of a file that is fed in pieces of ``chunk`` bytes."""
    reader = formats.reader(name, dataset, dataset.fields)
    batches: list[formats.Batch] = []
    for at in range(0, len(data), chunk):
        batches += reader.feed(data[at : at + chunk])
    batches += reader.close()
    for batch in batches:
        assert len(batch.numbers) == len(batch.rows)
    return reader, [r for b in batches for r in b.rows], [r for b in batches for r in b.bad]
