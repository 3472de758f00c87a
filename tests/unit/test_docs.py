"""Everything is documented: settings, commands, folders, the methods of a dataset."""

from __future__ import annotations

import re
from pathlib import Path

from model_changes import KINDS
from penstock.client.cli import build_app
from penstock.client.cli.options import VARIABLES
from penstockd.config import Settings
from worlds import compiled

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    documented = set(re.findall(r"PENSTOCK_[A-Z_]+", README))
    settings = {f"PENSTOCK_{name.upper()}" for name in Settings.model_fields}
    assert documented == settings | set(VARIABLES.values())


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_no_setting_that_is_secret_is_shown() -> None:
    shown = repr(Settings(secret="s" * 40, database_url="postgresql://u:password@h/d"))
    assert "sss" not in shown
    assert "password" not in shown


def test_every_command_is_in_the_readme() -> None:
    commands = set(build_app().commands)
    sentence = next(line for line in README.splitlines() if line.startswith("`penstock --help`"))
    assert set(re.findall(r"`(\w+)`", sentence)) == commands


def test_every_folder_of_the_server_is_in_the_readme() -> None:
    folders = {p.parent.name for p in (ROOT / "services/penstockd").glob("*/__init__.py")}
    described = set(re.findall(r"^  (\w+)/ ", README, re.MULTILINE))
    assert folders == described


def test_every_script_is_in_the_readme() -> None:
    scripts = {p.name for p in (ROOT / "scripts").iterdir() if p.is_file() and p.name != "env"}
    mentioned = set(re.findall(r"scripts/(\w+)", README)) | {
        name.strip() for name in re.findall(r"^scripts/ +(.*)$", README, re.MULTILINE)[0].split(",")
    }
    assert scripts <= mentioned


def test_the_example_of_a_dataset_is_one(tmp_path: Path) -> None:
    """It compiles together with customers, to which it refers."""
    text = README.split("```proto\n")[1].split("```")[0]
    tickets = compiled(tmp_path, text, "tickets", "customers")["tickets"]
    assert [f.path for f in tickets.fields][:4] == ["ticket_id", "customer_id", "subject", "fee"]
    assert tickets.references["customer"].reference is not None


def test_the_table_of_model_changes_says_what_the_catalogue_shows() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in README.split("| change | no records |")[1].split("\n\n")[0].splitlines()[2:]
    ]
    documented = {
        name: (set(none.split(", ")), set(some.split(", "))) for name, none, some, *_ in rows
    }
    shown = {}
    for name, changes in KINDS.items():
        none = {c.empty.value if c.empty else "additive" for c in changes.values()}
        some = {c.full.value if c.full else "additive" for c in changes.values() if c.values}
        if (
            any(c.refused for c in changes.values()) or name == "a oneof"
        ):  # a test of its own tries this
            some.add("refused")
        shown[name] = (none, some)
    assert documented == shown
    for name, _, _, log, *_ in rows:
        closes = {c.closes for c in KINDS[name].values()}
        assert closes != {log == "kept"}, name
