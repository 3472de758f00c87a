"""The REST annotations that the generator reads, and those that it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import ServiceDescriptor

from generator.compiler import Compiler
from generator.envoy import RouteError, envoy_inputs
from penstockd.catalog.load import load_catalog

PROTOS = Path(__file__).parents[3] / "protos"


def service(folder: Path, methods: str) -> ServiceDescriptor:
    """The service with these methods over ``Ask``, compiled in ``folder``."""
    (folder / "door.proto").write_text(
        f"""
syntax = "proto3";
package door;
import "google/api/annotations.proto";
import "penstock/options/v1/method.proto";
message Ask {{ string house_number = 1; Ask next_door = 2; }}
service Door {{ {methods} }}
"""
    )
    compiler = Compiler([folder, PROTOS, PROTOS / "vendor"])
    pool = load_catalog(compiler.describe(["door.proto"])).pool
    found = pool.FindServiceByName("door.Door")
    assert isinstance(found, ServiceDescriptor)
    return found


def test_every_route_of_a_method_counts(tmp_path: Path) -> None:
    door = service(
        tmp_path,
        """
  rpc Open(stream Ask) returns (stream Ask) {
    option (google.api.http) = {
      get: "/{house_number}:open"
      additional_bindings {custom: {kind: "LOCK" path: "/{next_door.house_number=a/*}"}}
    };
    option (penstock.options.v1.public) = true;
  }""",
    )
    paths = ["/{house_number}:open", "/{next_door.house_number=a/*}"]
    assert envoy_inputs([door]) == {
        "stream_paths": [],
        "feed_paths": paths,
        "upload_paths": paths,
        "grpc_streams": ["/door.Door/Open"],
        "public_paths": ["/door.Door/Open", *paths],
    }


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("rpc Open(Ask) returns (Ask);", "door.Door.Open has no google.api.http path"),
        (
            'rpc Open(Ask) returns (Ask) {option (google.api.http) = {get: "/{x}"};}',
            "door.Door.Open: the path binds the unknown field 'x'",
        ),
        (
            'rpc Open(Ask) returns (Ask) {option (google.api.http) = {get: "/{house_number}"};}'
            'rpc Shut(Ask) returns (Ask) {option (google.api.http) = {get: "/{next_door}"};}',
            "GET /{next_door} belongs to door.Door.Open and to door.Door.Shut",
        ),
    ],
    ids=["no path", "unknown field", "path taken"],
)
def test_routes_that_do_not_fit_are_refused(tmp_path: Path, methods: str, said: str) -> None:
    with pytest.raises(RouteError) as refused:
        envoy_inputs([service(tmp_path, methods)])
    assert str(refused.value) == said
