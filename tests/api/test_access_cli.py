"""Administration of access from the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from harness import RunningHub, in_force
from penstock.client.cli import build_app
from penstock.client.cli.failures import report_failures

ROLE = """
role_id = "{name}"
description = "Reads customers"

[[grants]]
dataset = "customers"
actions = ["read"]
row_filter = "status = ACTIVE"

[grants.class_masks]
PUBLIC = "clear"
INTERNAL = "clear"

[grants.field_masks]
email = "partial"
"""


class Commands:
    """An administrator's command line, with a role and a consumer that belong to the test."""

    def __init__(self, hub: RunningHub, folder: Path) -> None:
        self.hub, self.name = hub, f"t-{uuid.uuid4().hex[:8]}"
        self.file = folder / "role.toml"
        self.file.write_text(ROLE.format(name=self.name))

    def invoke(self, *arguments: str, input: str = "") -> tuple[int, str, str]:
        """Run a command in this process, since there are many; returns its exit code and output."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.hub.env(), clear=True),
            mock.patch("sys.stdin", io.StringIO(input)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                with report_failures():
                    build_app()(list(arguments), standalone_mode=False)
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        return code, out.getvalue(), err.getvalue()

    def run(self, *arguments: str, input: str = "") -> str:
        code, out, err = self.invoke(*arguments, input=input)
        assert code == 0, err
        return out

    def fails(self, *arguments: str) -> str:
        code, _, err = self.invoke(*arguments)
        assert code == 1 and err.startswith("error: ")
        return err

    def table(self, *arguments: str) -> list[list[str]]:
        return [line.split("\t") for line in self.run(*arguments).splitlines()]


@pytest.fixture
def commands(hub: RunningHub, tmp_path: Path) -> Iterator[Commands]:
    made = Commands(hub, tmp_path)
    yield made
    made.invoke("consumers", "delete", made.name)
    made.invoke("roles", "delete", made.name)


def test_an_integration_from_the_command_line(commands: Commands) -> None:
    run, name, hub = commands.run, commands.name, commands.hub
    created = json.loads(run("roles", "create", str(commands.file), "--comment", "new"))
    assert created["grants"][0]["field_masks"] == {"email": "partial"}
    run("consumers", "create", name, "--title", "ERP", "--role", name, "--claim", "org=o1,o2")
    assert [name, "ERP", "yes", name, "", "org=o1,o2"] in commands.table("consumers", "list")
    secret = run(
        "credentials", "issue", name, "--kind", "api-key", "--expire", "2099-01-01"
    ).strip()
    header, row = commands.table("credentials", "list", name)
    assert header == [
        "credential_id", "kind", "prefix", "create_time", "expire_time", "revoked", "last_use_time",
    ]  # fmt: skip
    assert secret.startswith(row[2]) and row[4:6] == ["2099-01-01T00:00:00Z", "no"]
    assert secret not in run("credentials", "list", name)

    environment = {"x-api-key": secret}
    in_force(
        lambda: hub.request("GET", "/v1/customers?page_size=1", headers=environment).status == 200
    )
    rotated = run("credentials", "rotate", name, row[0], "--overlap", "1h").strip()
    assert rotated != secret
    assert len(commands.table("credentials", "list", name)) == 3
    run("credentials", "revoke", name, row[0])
    by_id = {r[0]: r for r in commands.table("credentials", "list", name)}
    assert by_id[row[0]][5] == "yes"
    run("consumers", "update", name, "--inactive", "--no-claims", "--title", "Old ERP")
    got = json.loads(run("consumers", "get", name))
    assert "claims" not in got and got["active"] is False and got["roles"] == [name]
    assert "is held by" in commands.fails("roles", "delete", name)
    run("consumers", "update", name, "--no-roles")
    run("roles", "delete", name)
    run("consumers", "delete", name)
    assert "does not exist" in commands.fails("consumers", "get", name)


def test_a_role_goes_to_a_file_and_comes_back(commands: Commands, tmp_path: Path) -> None:
    run, name = commands.run, commands.name
    run("roles", "create", str(commands.file))
    text = run("roles", "get", name)
    again = json.loads(run("roles", "update", "-", input=text))
    assert {k: v for k, v in again.items() if k != "policy_revision"} == json.loads(text)
    assert [name, "Reads customers", "customers:read", ""] in commands.table("roles", "list")
    bad = tmp_path / "bad.toml"
    bad.write_text(commands.file.read_text().replace("email", "fax"))
    said = commands.fails("roles", "update", str(bad))
    assert "role.grants[0].field_masks[fax]: customers has no field 'fax'" in said
    bad.write_text("role_id = ")
    assert "cannot be read" in commands.fails("roles", "update", str(bad))
    bad.write_text('name = "x"')
    assert "not a role" in commands.fails("roles", "update", str(bad))
    now = commands.table("policy", "history", "--limit", "1")[1][0]
    stale = commands.fails("roles", "update", str(commands.file), "--if-revision", "1")
    assert f"the policy is at revision {now}" in stale


def test_history_and_why_from_the_command_line(commands: Commands) -> None:
    run, name, file = commands.run, commands.name, commands.file
    run("roles", "create", str(file), "--comment", "first")
    before = commands.table("policy", "history")[1]
    assert before[2:5] == ["admin", "", "first"]
    explained = run("policy", "explain", "customers", "--role", name)
    assert "may: read" in explained and f"  {name}: status = ACTIVE" in explained
    assert f"email\tpartial\t\trole {name} shows it partial: field_masks names email" in explained
    shown = json.loads(
        run("policy", "preview", "customers", "--role", name, "--limit", "3", "--format", "json",
            "--fields", "email,status", "--filter", "email:*")
    )  # fmt: skip
    assert len(shown) == 3
    assert all(r["status"] == "ACTIVE" and "***" in r["email"] for r in shown)
    assert len(commands.table("policy", "preview", "customers", "--role", name)) == 11
    file.write_text(file.read_text().replace('"partial"', '"hide"'))
    rehearsed = run("policy", "rehearse", str(file))
    assert rehearsed.splitlines() == [
        f"role {name}: customers.email partial -> hidden",
        "nothing would change for any consumer",
    ]
    run("roles", "update", str(file), "--dry-run")
    assert run("policy", "diff", before[0]).strip() == "the policy is the same"
    run("roles", "update", str(file), "--comment", "less")
    line = f"role {name}: customers.email partial -> hidden"
    assert run("policy", "diff", before[0]).strip() == line
    back = line.replace("partial -> hidden", "hidden -> partial")
    assert run("policy", "rollback", before[0], "--dry-run").strip() == back
    assert run("policy", "rollback", before[0], "--comment", "back").strip() == back
    assert run("policy", "diff", before[0]).strip() == "the policy is the same"
    newest = commands.table("policy", "history", "--limit", "1")[1]
    assert newest[2:5] == ["admin", "", "back"]
    document = json.loads(run("policy", "show", newest[0]))
    assert name in [r["role_id"] for r in document["roles"]]
    assert "give a file with a role" in commands.fails("policy", "rehearse")
    refused = commands.fails("policy", "explain", "customers", "--consumer", "bi", "--as", "crm")
    assert "access.read" in refused
