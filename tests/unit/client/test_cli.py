from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer

from cli_runs import Ran, Run, prepare_runs
from harness import PATIENCE, eventually
from penstock.client import cli
from penstock.model.v1 import customers_pb2


@pytest.fixture
def run(
    hub: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command as the administrator of a demo in the working directory."""
    run = prepare_runs(tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("PENSTOCK_AS", "admin")
    secret = {"client_id": "admin", "client_secret": "s3cret", "api_key": "key-1"}
    write_demo(
        tmp_path / ".penstock", {"url": hub.url, "consumers": {"admin": secret, "crm": secret}}
    )

    return run


def write_demo(folder: Path, demo: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "demo.json").write_text(json.dumps(demo))


def fill(hub: Any, count: int) -> None:
    for i in range(count):
        hub.records["customers"][f"c{i}"] = customers_pb2.Customer(
            customer_id=f"c{i}", name=f"[b]N\n{i}", credit_limit="1.50"
        )


# --- connection ---


def test_nobody_is_an_administrator_by_default(
    hub: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("token") == Ran(0, "token-1\n", "")
    monkeypatch.delenv("PENSTOCK_AS")
    ran = run("token")
    assert ran.code == 1 and ran.out == ""
    assert "say who calls: --as admin or crm; penstock login --as crm" in ran.err


def test_consumers_of_the_demo_by_name(
    hub: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("token", "--as", "admin").out == "token-1\n"
    assert "has no consumer 'boss'; it has admin, crm" in run("token", "--as", "boss").err
    (tmp_path / ".penstock" / "demo.json").unlink()
    assert "there is no .penstock/demo.json" in run("token", "--as", "admin").err
    monkeypatch.delenv("PENSTOCK_AS")
    assert "say who calls: run penstock login" in run("token").err
    monkeypatch.setenv("PENSTOCK_AS", "admin")
    for damaged in ("{", "[]", '{"url": 1}'):
        (tmp_path / ".penstock" / "demo.json").write_text(damaged)
        assert "demo.json is damaged" in run("token").err


def test_the_environment_says_who_calls(
    hub: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(hub, 1)
    monkeypatch.setenv("PENSTOCK_API_KEY", "key-1")
    assert run("get", "customers", "c0").code == 0
    assert hub.metadata[-1]["x-api-key"] == "key-1"
    assert run("get", "customers", "c0", "--as", "admin").code == 0
    assert "x-api-key" not in hub.metadata[-1]
    (tmp_path / ".penstock" / "demo.json").unlink()
    monkeypatch.setenv("PENSTOCK_URL", hub.url)
    assert run("get", "customers", "c0").code == 0
    ran = run("token")
    assert ran == Ran(1, "", "error: only a client id and secret can be exchanged for a token\n")
    monkeypatch.setenv("PENSTOCK_TOKEN", "t")
    assert "give one of client_id, api_key and token" in run("get", "customers", "c0").err
    assert "is not the URL of a hub" in run("token", "--url", "ftp://x").err


def test_the_demo_may_be_elsewhere(
    hub: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".penstock").rename(tmp_path / "data")
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path / "data"))
    assert run("token").code == 0


# --- records ---


def test_get_prints_json(hub: Any, run: Run) -> None:
    fill(hub, 1)
    record = json.loads(run("get", "customers", "c0").out)
    assert (record["customer_id"], record["credit_limit"]) == ("c0", "1.50")
    assert record["marketing_opt_in"] is False
    ran = run("get", "customers", "c0", "--fields", "name,marketing_opt_in,billing_address.city")
    assert json.loads(ran.out) == {
        "name": "[b]N\n0",
        "billing_address": None,
        "marketing_opt_in": False,
    }


def test_list_in_every_shape(hub: Any, run: Run) -> None:
    fill(hub, 5)
    lines = run("list", "customers", "--fields", "customer_id,name").out.splitlines()
    assert lines[0] == "customer_id\tname"
    assert lines[1:] == [f"c{i}\t[b]N {i}" for i in range(5)]
    records = json.loads(run("list", "customers", "--limit", "3", "--format", "json").out)
    assert [r["customer_id"] for r in records] == ["c0", "c1", "c2"]
    ran = run("list", "customers", "--page-size", "2", "--format", "ndjson", "--filter", "a = 1")
    assert [json.loads(line)["name"] for line in ran.out.splitlines()] == [
        f"[b]N\n{i}" for i in range(5)
    ]
    assert hub.requests[-1].filter == "a = 1"
    assert len(run("list", "customers").out.splitlines()[0].split("\t")) == 6
    assert run("list", "customers", "--fields", "colour").err == (
        "error: there is no field 'colour'\n"
    )


def test_create_update_and_delete(hub: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = '{"customerId": "n1", "name": "Ünal", "phone": "1"}'
    assert json.loads(run("create", "customers", "--data", data).out)["name"] == "Ünal"
    ran = run("update", "customers", "n1", "--data", '{"phone": null, "notes": "x"}')
    assert json.loads(ran.out)["phone"] is None
    assert hub.requests[-1].update_mask.paths == ["phone", "notes"]
    run("update", "customers", "n1", "--data", '{"name": "A", "notes": "y"}', "--mask", "notes")
    assert hub.records["customers"]["n1"].name == "Ünal"
    assert run("delete", "customers", "n1") == Ran(0, "", "")
    assert "n1" not in hub.records["customers"]
    for wrong in ("[1]", "{", '{"colour": 1}'):
        ran = run("create", "customers", "--data", wrong)
        assert ran.code == 1 and ran.err.startswith("error: ") and ran.err.count("\n") == 1


def test_datasets(run: Run) -> None:
    assert run("datasets").out.splitlines()[1] == "customers\tCustomers\tget, list\t1"
    fields = run("datasets", "--fields").out.splitlines()
    assert fields[1] == (
        "customers\temail\tSTRING\tPII, nullable, mask partial\tWhere to write to."
    )


def test_errors_are_one_line_and_a_code(hub: Any, run: Run, refusal: Any) -> None:
    ran = run("get", "customers", "none")
    assert ran == Ran(
        1,
        "",
        "error: customers has no record 'none'. (RECORD_NOT_FOUND, request req-1)\n",
    )
    hub.refusals = [
        refusal(
            grpc.StatusCode.INVALID_ARGUMENT, "Bad\nvalue", "VALUE_INVALID", (("name", "is\x1b"),)
        )
    ]
    ran = run("create", "customers", "--data", '{"customerId": "x"}')
    assert ran.err == ("error: Bad value (VALUE_INVALID, request req-1)\n  name: is \n")
    assert "there is no dataset 'dogs'" in run("get", "dogs", "x").err
    assert run("get", "customers").code == 2
    assert "cannot reach the hub" in run("token", "--url", "http://127.0.0.1:9").err


# --- export ---


def test_export_to_standard_output_and_to_a_file(hub: Any, run: Run, tmp_path: Path) -> None:
    hub.export_chunks = [b'id,notes\nc1,"two\n', b'lines"\nc2,x\n']
    assert run("export", "customers").out == 'id,notes\nc1,"two\nlines"\nc2,x\n'
    assert hub.requests[-1].format == "CSV"
    ran = run("export", "customers", "--output", "out.csv", "--limit", "5", "--fields", "name")
    assert ran == Ran(0, "", "out.csv: 2 rows, 29 bytes, receipt r1\n")
    assert (tmp_path / "out.csv").read_bytes() == b"".join(hub.export_chunks)
    assert (hub.requests[-1].limit, hub.requests[-1].fields) == (5, "name")
    assert run("export", "customers", "-o", "out.xml").err.startswith("out.xml: 2 rows, 29 bytes")
    assert hub.requests[-1].format == "XML"
    run("export", "customers", "-o", "out.dat", "--format", "ndjson")
    assert hub.requests[-1].format == "NDJSON"


def test_an_export_that_fails_leaves_no_file_that_looks_whole(
    hub: Any, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("before")
    hub.refuse_stream_after, hub.resumable = 1, False
    ran = run("export", "customers", "-o", "out.csv")
    assert ran.code == 1 and ran.err.startswith("error: The state of the data is no longer kept.")
    assert (tmp_path / "out.csv").read_text() == "before"
    assert (tmp_path / "out.csv.part").exists()
    ran = run("export", "customers", "-o", "none/out.csv")
    assert ran.code == 1 and "none/out.csv.part: No such file" in ran.err


def test_an_export_that_is_not_its_receipts_fails(hub: Any, run: Run, tmp_path: Path) -> None:
    for receipt in (None, {"sha256": "0" * 64}, {"byte_count": 1}):
        hub.receipt = receipt
        for target in ("out.csv", "-"):
            ran = run("export", "customers", "-o", target)
            assert ran.code == 1 and "EXPORT_INCOMPLETE" in ran.err
    assert not (tmp_path / "out.csv").exists()


def test_an_export_goes_on_after_a_broken_connection(hub: Any, run: Run, tmp_path: Path) -> None:
    hub.refuse_stream_after, hub.breaks = 1, 2
    assert run("export", "customers", "-o", "out.csv").code == 0
    assert (tmp_path / "out.csv").read_bytes() == b"".join(hub.export_chunks)


def test_an_export_to_a_device_does_not_replace_it(hub: Any, run: Run) -> None:
    assert run("export", "customers", "-o", os.devnull).code == 0
    assert not Path(os.devnull).is_file()


# --- import ---


def test_import_reports_what_became_of_the_rows(hub: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("customer_id\nc1\nc2\n")
    ran = run("import", "customers", "c.csv")
    assert ran == Ran(0, "customers: 2 rows: 2 created, 0 updated, 0 unchanged\n", "")
    assert hub.requests[-1][0].format == "CSV"
    (tmp_path / "c.dat").write_text("customer_id\nc1\n")
    assert "give --format" in run("import", "customers", "c.dat").err
    assert run("import", "customers", "c.dat", "--format", "csv").code == 0
    assert "none.csv: No such file" in run("import", "customers", "none.csv").err
    assert run("import", "customers").code == 2
    assert run("import").code == 2


def test_import_shows_bad_rows(hub: Any, run: Run, tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "c.csv").write_text("customer_id\nc1\nc2\n")
    hub.refusals = [
        refusal(
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad",
            "IMPORT_ROW_INVALID",
            (("rows[2].billing_address.city", "too long"), ("rows[70000].name", "no")),
            bad_rows="1234",
        )
    ]
    ran = run("import", "customers", "c.csv")
    assert ran.code == 1 and ran.out == ""
    assert ran.err.splitlines() == [
        "row\tfield\treason",
        "2\tbilling_address.city\ttoo long",
        "70000\tname\tno",
        "error: 1,234 bad rows; nothing was loaded",
    ]


def test_import_by_mapping(hub: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,name,fax\n1,Ada,\n2,Bo,\n")
    (tmp_path / "map.toml").write_text(
        '[[datasets]]\ndataset = "customers"\nfile = "in.csv"\n[datasets.fields]\n'
        'customer_id = "id"\nname = "name"\n'
    )
    ran = run("import", "--mapping", "map.toml")
    assert ran == Ran(
        0,
        "customers: 2 rows: 2 created, 0 updated, 0 unchanged\n",
        "not imported: in.csv: fax\n",
    )
    assert hub.records["customers"]["2"].name == "Bo"
    (tmp_path / "in.csv").write_text("id,fax\n1,\n")
    ran = run("import", "--mapping", "map.toml", str(tmp_path))
    assert ran.code == 1
    assert "map.toml: datasets[0].fields.name: in.csv has no column 'name'" in ran.err
    assert "customers.csv: No such file" in run("import", "--mapping", "northwind").err.replace(
        "categories", "customers"
    )
    assert run("import", "--mapping", "map.toml", "x", "y.csv").code == 2


def test_bad_rows_of_a_mapping_name_their_source(hub: Any, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,s\n1,ACTIVE\n2,GONE\n")
    (tmp_path / "map.toml").write_text(
        '[[datasets]]\ndataset = "customers"\nfile = "in.csv"\n[datasets.fields]\n'
        'customer_id = "id"\nstatus = "s"\n'
    )
    ran = run("import", "--mapping", "map.toml")
    assert ran.code == 1
    assert ran.err.splitlines()[1].startswith("in.csv:3\tstatus\t'GONE' is not one of")
    assert ran.err.splitlines()[-1] == "error: 1 bad row; nothing was loaded"


# --- the command itself ---


def test_other_distributions_add_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[EntryPoint] = []
    monkeypatch.setattr(cli, "entry_points", lambda group: found)
    ran = run("up", "--port", "1")
    assert ran.code == 1 and "pip install 'penstock-hub[server]'" in ran.err
    found.append(EntryPoint("broken", "penstock_nothing_here:add", cli.COMMANDS))
    ran = run("migrate")
    assert ran.code == 1
    assert "penstock migrate: penstock_nothing_here is missing" in ran.err
    found[:] = [EntryPoint("extra", f"{Extra.__module__}:Extra.register", cli.COMMANDS)]
    monkeypatch.setattr(EntryPoint, "load", lambda self: Extra.register)
    assert run("up").out == "started\n"


class Extra:
    @staticmethod
    def register(app: typer.Typer) -> None:
        @app.command()
        def up() -> None:
            typer.echo("started")


def start(*args: str, **more: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "penstock.client.cli", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def test_help_is_quick() -> None:
    script = (
        "import sys; import penstock.client.cli as c; c.build_app();"
        "print([m for m in ('grpc', 'google.protobuf', 'rich.table') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert out == b"[]\n"


def test_a_reader_that_has_seen_enough_is_no_error(hub: Any, run: Run, tmp_path: Path) -> None:
    hub.export_chunks = [b"x" * 100_000] * 200
    process = start("export", "customers", cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(PATIENCE) != 0
    process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent by other means there")
def test_interrupt_ends_an_export_at_once(hub: Any, run: Run, tmp_path: Path) -> None:
    hub.export_chunks = [b"x" * 100_000] * 100_000
    process = start("export", "customers", "-o", "out.csv", cwd=tmp_path)
    part = tmp_path / "out.csv.part"
    eventually(lambda: process.poll() is not None or (part.exists() and part.stat().st_size))
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert not (tmp_path / "out.csv").exists()
