"""The files that scripts/generate writes, removes and leaves alone, and the models it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

Generate = Callable[..., subprocess.CompletedProcess[str]]

COMMON = """
  // The system the record came from.
  string source = 90;
  // The record's identifier in that system.
  string source_id = 91;
  // When the record was first written.
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field).output_only = true];
  // When the record last changed.
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field).output_only = true];
  // Changes with every change.
  string etag = 94 [(penstock.options.v1.field).output_only = true];
"""


def dataset(message: str, fields: str) -> str:
    return f"""
syntax = "proto3";
package penstock.model.v1;
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";
// A promise to repair what breaks.
message {message} {{
  option (penstock.options.v1.dataset) = {{title: "Added"}};
  {fields}
  {COMMON}
}}
"""


def add(tree: Path, name: str, text: str) -> None:
    (tree / f"protos/penstock/model/v1/{name}.proto").write_text(text)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_what_is_committed_is_up_to_date(generate: Generate) -> None:
    done = generate("--root", ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_two_runs_give_the_same_bytes(tree: Path, generate: Generate) -> None:
    before = contents(tree / "gen")
    first, second = tree / "first", tree / "second"
    for copy in (first, second):
        copy.mkdir()
        (copy / "protos").symlink_to(tree / "protos")
        assert generate("--root", copy).returncode == 0
    assert contents(first / "gen") == contents(second / "gen") == before
    again = generate("--root", first)
    assert again.stdout == "0 files changed.\n"


def test_a_new_dataset_gets_its_whole_surface(tree: Path, generate: Generate) -> None:
    fields = """
  // The key.
  string service_plan_id = 1 [(penstock.options.v1.field).key = true];
  // The customer it is for.
  string customer_id = 2 [(penstock.options.v1.field).reference.dataset = "customers"];"""
    add(tree, "service_plans", dataset("ServicePlan", fields))
    checked = generate("--root", tree, "--check")
    assert checked.returncode == 1
    assert "out of date: gen/protos/penstock/api/v1/service_plans_service.proto" in checked.stderr

    done = generate("--root", tree)
    assert done.returncode == 0, done.stderr
    service = (tree / "gen/protos/penstock/api/v1/service_plans_service.proto").read_text()
    assert "A promise to repair what breaks." in service
    assert 'get: "/v1/service_plans/{service_plan_id}"' in service
    assert 'patch: "/v1/service_plans/{service_plan.service_plan_id}"' in service
    inputs = json.loads((tree / "gen/envoy/inputs.json").read_text())
    assert "/v1/service_plans:export" in inputs["stream_paths"]
    assert "/v1/service_plans:import" in inputs["upload_paths"]
    stub = "from penstock.api.v1.service_plans_service_pb2_grpc import ServicePlansStub as s"
    subprocess.run(
        [sys.executable, "-c", f"{stub}; print(s)"],
        env={**os.environ, "PYTHONPATH": str(tree / "gen")},
        check=True,
    )


def test_names_of_the_hubs_own_paths_are_free_for_datasets(tree: Path, generate: Generate) -> None:
    """All of them, whichever services the hub has."""
    inputs = json.loads((tree / "gen/envoy/inputs.json").read_text())
    hub = [m for m in (tree / "protos/penstock/hub/v1").glob("*.proto")]
    paths = {p for m in hub for p in re.findall(r'"/v1/([a-z]+)(?![a-zA-Z])', m.read_text())}
    assert {"receipts", "errors", "changes", "subscriptions", "datasets"} <= paths
    for name in [*paths, "data"]:
        key = f"string {name}_key = 1 [(penstock.options.v1.field).key = true];"
        add(tree, name, dataset(f"Odd{name.capitalize()}", key))
    done = generate("--root", tree)
    assert done.returncode == 0, done.stderr
    service = (tree / "gen/protos/penstock/api/v1/errors_service.proto").read_text()
    assert 'get: "/v1/data/errors/{errors_key}"' in service
    now = json.loads((tree / "gen/envoy/inputs.json").read_text())
    added = set(now["stream_paths"]) - set(inputs["stream_paths"])
    assert added == {f"/v1/data/{name}:export" for name in [*paths, "data"]}


def test_a_removed_dataset_leaves_nothing(tree: Path, generate: Generate) -> None:
    (tree / "protos/penstock/model/v1/products.proto").unlink()
    done = generate("--root", tree)
    assert done.returncode == 0, done.stderr
    left = contents(tree / "gen")
    assert [name for name in left if "product" in name] == []
    assert b"Products" not in left["envoy/inputs.json"]
    assert b"Products" not in left["descriptors/hub.binpb"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "plans",
            dataset("Plan", "string plan_id = 1;"),
            "penstock/model/v1/plans.proto: a field at the top of Plan",
        ),
        ("plans", "syntax = 'proto3';\nmessage {", "penstock/model/v1/plans.proto:2:9: Expected"),
        (
            "plans",
            dataset("Plan", "google.protobuf.Duration wait = 1;").replace(
                "import", 'import "google/protobuf/duration.proto"; import', 1
            ),
            "Plan.wait: a dataset cannot hold google.protobuf.Duration: write a whole number",
        ),
    ],
    ids=["no key", "no proto", "a duration"],
)
def test_a_bad_model_is_refused_and_nothing_is_touched(
    tree: Path, generate: Generate, name: str, text: str, said: str
) -> None:
    before = contents(tree / "gen")
    add(tree, name, text)
    done = generate("--root", tree)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tree / "gen") == before


def test_a_tree_without_protos_is_refused(tmp_path: Path, generate: Generate) -> None:
    done = generate("--root", tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path} has no protos/penstock" in done.stderr
