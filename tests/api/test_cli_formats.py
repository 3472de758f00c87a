"""Every command that prints prints every format, on a running hub."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from harness import RunningHub
from penstock.client.cli import build_app
from penstock.client.cli.failures import report_failures
from penstock.client.cli.options import Format, walk_commands

#: Commands that this walk leaves out, and why.
LEFT_OUT = {
    ("up",): "starts a hub",
    ("down",): "ends the hub",
    ("backup",): "takes a backup",
    ("restore",): "needs another folder",
    ("watch",): "never ends",
    ("webhooks", "listen"): "never ends",
    ("webhooks", "test"): "waits for a receiver",
    ("epoch", "new"): "would be an epoch for other tests",
    ("cursors", "rotate-key"): "other tests count the keys",
    ("keys", "rotate"): "other tests count the keys",
    ("secret", "rotate"): "other tests open cursors with the first secret",
    ("secret", "retire"): "other tests open cursors with the first secret",
    ("administrator",): "makes an administrator",
    ("monitoring", "rules"): "writes a file of Prometheus",
    ("monitoring", "dashboard"): "writes a file of Grafana",
    ("login",): "see test_commands",
    ("logout",): "see test_commands",
    ("profiles", "use"): "see test_commands",
    ("export",): "writes a file in the file's formats",
    ("audit", "export"): "writes a file",
}
#: Options that keep a command from changing what other tests see.
HARMLESS = ("--dry-run", "--validate-only")
#: A line of YAML as the printer writes it: names plain or quoted, values as in JSON.
_TEXT = r'"(\\.|[^"])*"'
YAML_LINE = re.compile(
    rf" *(- )*(([A-Za-z_]\w*|{_TEXT}):( |$))?({_TEXT}|-?[\d.e+-]+|true|false|null|\[\]|\{{\}})?"
)


class Walk:
    """Runs commands in this process, with arguments that name existing objects."""

    def __init__(self, hub: RunningHub, folder: Path) -> None:
        self.hub, self.root, self.folder = hub, build_app(), folder
        self.name = f"t-{uuid.uuid4().hex[:8]}"
        role = {"role_id": self.name, "description": "x"}
        (folder / "role.json").write_text(json.dumps(role))
        (folder / "rows.csv").write_text(f"customer_id,name\n{self.name},Ada\n")
        self.values: dict[str, str] = {
            "DATASET": "customers",
            "DATASET...": "customers",
            "DATASET|FOLDER": "customers",
            "KEY": "c00000001",
            "CONSUMER": "crm",
            "ROLE": "crm",
            "PLAN": "partner",
            "FILE": str(folder / "role.json"),
            "REVISION": "1",
            "NAME": self.name,
            "ISSUER": self.name,
            "URL": "https://example.com/hooks",
            "FILE|NAME": "crm-contacts",
            "SHAPE": "crm-contacts",
        }

    def run(self, *arguments: str, input: str = "") -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        more = {"XDG_CONFIG_HOME": str(self.folder)}
        with (
            mock.patch.dict(os.environ, {**self.hub.env(), **more}, clear=True),
            mock.patch("sys.stdin", io.StringIO(input)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                with report_failures():
                    self.root(list(arguments), prog_name="penstock", standalone_mode=False)
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
            except Exception as error:  # the library's way to report wrong usage
                if not hasattr(error, "exit_code"):
                    raise
                code = error.exit_code
        return code, out.getvalue(), err.getvalue()

    def made(self, *arguments: str, name: str) -> str:
        """The object that a command creates, by the member of the document that it prints."""
        code, out, err = self.run(*arguments, "--format", "json")
        assert code == 0, err
        found: Any = json.loads(out)
        for step in name.split("."):
            found = found[step]
        return str(found)

    def line(self, path: tuple[str, ...], command: Any) -> list[str]:
        words: list[str] = []
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                if parameter.required or parameter.metavar == "FILE":
                    words.append(self.values.get(parameter.metavar, "x"))
            elif parameter.required:
                words += [parameter.opts[0], self.values.get(parameter.opts[0], "2026-01-01")]
            elif parameter.opts[0] in HARMLESS:
                words.append(parameter.opts[0])
            elif parameter.opts[0] == "--consumer":
                words += ["--consumer", "crm"]
            elif parameter.opts[0] == "--data":
                words += ["--data", json.dumps({"customer_id": self.name, "name": "Ada"})]
        return [*path, *words]


@pytest.fixture
def walk(hub: RunningHub, tmp_path: Path) -> Iterator[Walk]:
    walk = Walk(hub, tmp_path)
    target = "https://example.com/hooks"
    webhook = walk.made(
        "webhooks", "create", target, "--dataset", "customers", name="webhook.webhook_id"
    )
    walk.run("subscriptions", "create", walk.name, "customers")
    receipt = walk.run("export", "customers", "-o", str(tmp_path / "c.csv"))[2].split()[-1]
    _, keys, _ = walk.run("credentials", "list", "crm", "--format", "ndjson")
    walk.values |= {
        "WEBHOOK": webhook,
        "ID": receipt,
        "CREDENTIAL": json.loads(keys.splitlines()[0])["credential_id"],
        "--to": str(tmp_path / "copy.db"),
        "--replica": str(tmp_path / "copy.db"),
    }
    yield walk
    walk.run("webhooks", "delete", webhook)
    walk.run("subscriptions", "delete", walk.name)


def check(form: Format, text: str) -> None:
    """Check that the text is in the format."""
    if form is Format.json:
        for document in text.splitlines() if text[:1] == "{" and text[1:2] == '"' else [text]:
            json.loads(document)
    elif form is Format.ndjson:
        for line in text.splitlines():
            json.loads(line)
    elif form is Format.csv:
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1, text
        assert all(rows[0]), text
    elif form is Format.yaml:
        for line in text.splitlines():
            assert line == "---" or YAML_LINE.fullmatch(line), line


def names_of(document: Any) -> Iterator[str]:
    """All names in a document, except in data: records, claims, masks."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield name
            if name not in ("data", "claims", "labels", "custom", "attributes"):
                yield from names_of(value)
    elif isinstance(document, list):
        for item in document:
            yield from names_of(item)


def test_every_command_prints_in_every_format(walk: Walk) -> None:
    printed, failed = set(), {}
    # Commands that delete come last: others need the objects.
    for path, command in sorted(walk_commands(walk.root), key=lambda c: "delete" in c[0]):
        if hasattr(command, "commands") or path in LEFT_OUT:
            continue
        line = walk.line(path, command)
        option = "--report" if path == ("import",) else "--format"
        if path == ("import",):
            line[2] = str(walk.folder / "rows.csv")
        for form in Format:
            code, out, err = walk.run(*line, option, form)
            assert code in (0, 1, 2) and "Traceback" not in err, (line, err)
            if code:
                failed[path] = err
            elif out:
                printed.add(path)
                try:
                    check(form, out)
                    if form is Format.json and out[0] == "[":
                        wrong = [n for n in names_of(json.loads(out)) if re.search("[a-z][A-Z]", n)]
                        assert wrong == []
                except (AssertionError, ValueError) as error:
                    raise AssertionError(f"{line} {form}: {error}\n{out}") from error
    assert "RECORD_NOT_FOUND" in failed.pop(("issuers", "get"))  # there is none
    reading = {"list", "get", "show", "history", "diff", "explain", "preview", "metrics", "notices"}
    assert {path: err for path, err in failed.items() if path[-1] in reading} == {}
    assert len(printed) >= 40, (sorted(printed), failed)


def test_the_check_catches_another_format() -> None:
    for form, text in (
        (Format.json, "may: read\n"),
        (Format.csv, "a,b\n1\n"),
        (Format.yaml, "sees: all rows\n"),
    ):
        with pytest.raises((AssertionError, ValueError)):
            check(form, text)
