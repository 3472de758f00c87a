"""Rules for every command: the consumer it calls as, the place of options, the output of
results."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cli_runs import Run, prepare_runs
from penstock.client import cli
from penstock.client.cli import options
from penstock.client.cli.connection import hub_url
from penstock.client.cli.options import VARIABLES, Format, share_options, walk_commands
from penstock.client.cli.printing import print_document, print_rows
from penstock.client.cli.profiles import change_profiles, profiles_file, read_profiles

SHARED = {"--as", "--profile", "--url", "--format", "--ca-file", "--client-cert", "--client-key"}
#: Commands whose --format is a file format, with more choices.
OF_FILES = {("export",), ("import",)}
SOURCES = [
    *(Path(cli.__file__).parent.glob("*.py")),
    *(Path(cli.__file__).parents[3] / "penstockd").glob("cli*.py"),
]


@pytest.fixture
def run(
    hub: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command in a folder with a demo of the fake hub, without a chosen consumer."""
    run = prepare_runs(tmp_path, monkeypatch, capsys)
    secret = {"client_id": "admin", "client_secret": "s3cret"}
    (tmp_path / ".penstock").mkdir()
    demo = {"url": hub.url, "consumers": {"admin": secret}}
    (tmp_path / ".penstock" / "demo.json").write_text(json.dumps(demo))

    # Building the commands takes most of a run's time, and there are many runs.
    root = cli.build_app()
    monkeypatch.setattr(cli, "build_app", lambda: root)

    return run


def leaves() -> Iterator[tuple[tuple[str, ...], Any]]:
    for path, command in walk_commands(cli.build_app()):
        if not hasattr(command, "commands"):
            yield path, command


def words_of(command: Any) -> list[str]:
    """An argument for each one that the command requires."""
    words = []
    for parameter in command.params:
        if parameter.required and parameter.param_type_name == "argument":
            words.append("1")
        elif parameter.required:
            words += [parameter.opts[0], "restore" if "because" in parameter.opts[0] else "1"]
    return words


def test_every_command_takes_the_shared_options() -> None:
    seen = 0
    for path, command in walk_commands(cli.build_app()):
        options = [text for p in command.params for text in p.opts if text.startswith("--")]
        assert set(options) >= SHARED, path
        assert len(options) == len(set(options)), path
        seen += 1
    assert seen > 90


def test_the_shared_options_stand_before_or_after_any_command() -> None:
    given = ["--as", "crm", "--url", "http://h", "--format", "csv", "--ca-file", "x"]
    expected = {"consumer": "crm", "url": "http://h", "format": "csv", "ca_file": "x"}
    found: dict[str, str] = {}
    root, words = cli.build_app(), dict(leaves())
    for _, command in walk_commands(root):
        if not hasattr(command, "commands"):
            # Replaces the command: records what it would see.
            command.callback = lambda **_: found.update(
                {n: options.given_option(n) for n in expected}
            )
    for path, command in words.items():
        arguments = words_of(command)
        for line in (
            [*given, *path, *arguments],
            [*path, *arguments, *given],
            *([[*path[:1], *given, *path[1:], *arguments]] if len(path) > 1 else []),
        ):
            found.clear()
            root(line, prog_name="penstock", standalone_mode=False)
            if path in OF_FILES and line[0] != "--as":
                found["format"] = "csv"  # the command's own
            assert found == expected, line


def test_no_command_calls_unless_somebody_is_chosen(run: Run, hub: Any) -> None:
    """Each command that calls a hub ends with the question who calls, before any call."""
    asked = 0
    for path, command in leaves():
        module = command.callback.__module__
        if module.startswith("penstockd") or path in (("logout",), ("status",), ("login",)):
            continue
        if path[0] == "profiles":
            continue
        ran = run(*path, *words_of(command))
        assert ran.code in (1, 2) and "Traceback" not in ran.err, path
        asked += "say who calls" in ran.err
    assert asked > 50
    assert hub.requests == []


def test_what_a_command_prints_goes_through_the_printer() -> None:
    """Only printing.py and tables.py write to standard output; the bytes of files are not
    output."""
    for source in SOURCES:
        if source.name in ("printing.py", "tables.py"):
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("typer.echo", "print", "click.echo"):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("err") == "True", f"{source.name}:{node.lineno}"
            assert name != "sys.stdout.write", f"{source.name}:{node.lineno}"


def test_bytes_that_are_no_utf_8_are_an_error_of_a_line(run: Run) -> None:
    for path, command in leaves():
        ran = run(*path, *words_of(command), "f\udcfc")
        assert (ran.code, ran.out) == (1, ""), path
        assert ran.err == "error: the argument 'f\ufffd' is not UTF-8\n", path


def test_variables_that_are_no_utf_8(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the client, and any of the server's settings: a command reads them all."""
    for name in (*VARIABLES.values(), "PENSTOCK_DATA_DIR", "PENSTOCK_SECRET", "PENSTOCK_HOST"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "f\udcfc")
            for words in (["whoami"], ["nodes"], ["profiles", "list"]):
                ran = run(*words)
                assert (ran.code, ran.out) == (1, ""), (name, words)
                assert ran.err == f"error: the variable {name} is not UTF-8\n"


def test_the_version_in_every_format(run: Run) -> None:
    number = version("penstock-hub")
    assert run("--version").out == f"penstock {number}\n"
    for words in (["--version", "--format", "json"], ["--format", "json", "--version"]):
        assert json.loads(run(*words).out) == {"version": number}
    assert run("--version", "--format", "csv").out == f"version\n{number}\n"
    ran = run("--format", "json")
    assert (ran.code, ran.out) == (2, "") and "Missing command" in ran.err


def test_input_that_is_no_utf_8(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b'{"name": "f\xfc"}')
    for words in (
        ["create", "customers"],
        ["update", "customers", "c1"],
        ["issuers", "create", "i"],
        ["roles", "create", str(wrong)],
        ["roles", "create", "-"],
        ["import", "--mapping", str(wrong)],
        ["watch", "customers", "--cursor-file", str(wrong)],
    ):
        with wrong.open(encoding="utf-8") as file:
            monkeypatch.setattr(sys, "stdin", file)
            ran = run(*words, "--as", "admin")
        assert ran.code == 1 and ran.err.count("\n") == 1, (words, ran)
        assert ran.err.startswith("error: "), words


def test_every_format_shows_the_same_values(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"name": 'Ü\n"x"', "active": True, "roles": ["a", "b"], "inner": {"m": 1}},
        {"name": "", "active": False, "roles": [], "inner": {"m": None}},
    ]
    columns = ["name", "active", "roles", "inner.m"]
    said = {}
    for form in Format:
        monkeypatch.setenv("PENSTOCK_FORMAT", form)
        print_rows(rows, columns)
        said[form] = capsys.readouterr().out
    assert json.loads(said[Format.json]) == rows
    assert [json.loads(line) for line in said[Format.ndjson].splitlines()] == rows
    assert said[Format.table] == ('name\tactive\troles\tinner.m\nÜ "x"\tyes\ta, b\t1\n\tno\t\t\n')
    assert said[Format.csv] == (
        'name,active,roles,inner.m\n"Ü\n""x""",true,"[""a"", ""b""]",1\n,false,[],\n'
    )
    assert said[Format.yaml] == (
        '- name: "Ü\\n\\"x\\""\n  active: true\n  roles:\n    - "a"\n    - "b"\n'
        "  inner:\n    m: 1\n"
        '- name: ""\n  active: false\n  roles: []\n  inner:\n    m: null\n'
    )
    monkeypatch.setenv("PENSTOCK_FORMAT", "table")
    print_document(rows[0])
    assert "inner.m\t1" in capsys.readouterr().out
    monkeypatch.setenv("PENSTOCK_FORMAT", "html")
    assert "unknown format 'html'" in run("profiles", "list").err


def test_yaml_escapes_what_yaml_does_not_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_FORMAT", "yaml")
    print_document({"no": "\x7f\u2028\U0001f600", "a b": {"x:": [[1, 2], {}]}})
    assert capsys.readouterr().out == (
        '"no": "\\u007f\\u2028\U0001f600"\n"a b":\n  "x:":\n    - - 1\n      - 2\n    - {}\n'
    )


# --- profiles ---


def test_a_profile_is_who_calls_from_the_login_on(run: Run, hub: Any, tmp_path: Path) -> None:
    assert "penstock login --as" in run("datasets").err
    ran = run("login", "--as", "admin")
    assert ran.code == 0, ran
    assert f"logged in at {hub.url}" in ran.out
    assert profiles_file().stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in run("profiles", "list", "--format", "json").out
    (tmp_path / ".penstock" / "demo.json").unlink()
    assert run("token").out.startswith("token-")
    who = json.loads(run("whoami", "--format", "json").out)
    assert who["consumer_id"] == "admin" and who["source"] == "the profile admin"
    assert who["datasets"] == {"customers": ["get", "list"]}
    assert "unknown profile 'other'; there are: admin" in run("token", "--profile", "other").err
    assert "give either --as" in run("token", "--profile", "admin", "--as", "admin").err
    profiles_file().chmod(0o644)
    assert "other users can read" in run("token").err
    profiles_file().chmod(0o600)
    assert run("logout").code == 0
    assert "say who calls" in run("token").err
    assert "no profile is in use" in run("logout").err


def test_a_login_with_id_and_secret(
    run: Run, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    (tmp_path / "empty").write_text("")
    for name, code in (("empty", 1), ("secret", 0)):
        with (tmp_path / name).open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            ran = run("login", "work", "--client-id", "admin", "--url", hub.url)
        assert ran.code == code, ran
    assert run("token", "--profile", "work").code == 0
    for path in (tmp_path / "config" / "penstock").iterdir():
        assert path == profiles_file()
    # Another address in the environment does not get a profile's secret.
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:9")
    assert run("token").code == 0
    profiles_file().write_text("{")
    assert "is damaged" in run("token").err


def test_a_stored_secret_goes_to_its_own_hub(
    run: Run, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("login", "--as", "admin").code == 0
    assert run("token", "--url", f"{hub.url.replace('http', 'HTTP')}/").code == 0
    for url in (
        "http://127.0.0.1:9",
        "https://h",
        "http://127.evil.example",
        "unix:/x",
        "http://[",
    ):
        ran = run("token", "--url", url)
        assert ran.code == 1 and "its secret goes nowhere else" in ran.err, url
    # The demo may be on another port of this machine; no other machine gets its credentials.
    assert "cannot reach" in run("token", "--as", "admin", "--url", "http://127.0.0.1:9").err
    for name in ("--url", "PENSTOCK_URL"):
        monkeypatch.setenv(name, "http://127.evil.example")
        given = ("--url", "http://127.evil.example") if name == "--url" else ()
        assert "and this machine, not for" in run("token", "--as", "admin", *given).err
    monkeypatch.delenv("PENSTOCK_URL")
    # Commands that need no secret may go anywhere.
    assert "not reachable" in run("status", "--url", "http://127.0.0.1:9").out
    for url in ("http://hub.example.com", "http://127.evil.example"):
        stored = json.loads(profiles_file().read_text())
        stored["profiles"]["admin"]["url"] = url
        profiles_file().write_text(json.dumps(stored))
        assert f"by https only, not to {url}" in run("token").err
        assert f"by https only, not to {url}" in run("datasets").err
        assert hub_url() == url  # its health needs no secret


def test_a_login_over_plain_http_is_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with (tmp_path / "secret").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        ran = run("login", "--client-id", "admin", "--url", "http://hub.example.com")
    assert "by https only" in ran.err and not profiles_file().exists()


def test_changes_of_profiles_at_one_time_are_all_kept(run: Run, tmp_path: Path) -> None:
    folder = profiles_file().parent
    folder.mkdir(parents=True)
    left = folder / f"profiles.json.{os.getpid()}.part"  # left by a login that was killed
    left.write_text('{"client_secret": "s3cret"}')
    change = (
        "import sys\n"
        "from penstock.client.cli.profiles import change_profiles\n"
        "for number in range(20):\n"
        "    with change_profiles() as profiles:\n"
        "        profiles.profiles[f'{sys.argv[1]}-{number}'] = {'url': 'https://h'}\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", change, str(n)]) for n in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert len(read_profiles().profiles) == 60
    assert list(folder.iterdir()) == [profiles_file()]
    # A failed command changes nothing and leaves nothing.
    with pytest.raises(TypeError), change_profiles() as profiles:
        profiles.profiles["x"] = {"url": object()}  # type: ignore[dict-item]
    assert list(folder.iterdir()) == [profiles_file()] and len(read_profiles().profiles) == 60


# --- completion ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("penstock li", "list"),
        ("penstock list cust", "customers"),
        ("penstock list customers --as ad", "admin"),
        ("penstock subscriptions list --format ya", "yaml"),
    ],
)
def test_the_shell_completes_commands_and_values(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert expected in run().out.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [("penstock li", "list"), ("penstock list cust", "customers"), ("penstock --as ad", "admin")],
)
def test_zsh_completes_by_its_own_protocol(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    out = run().out
    assert out.startswith("_arguments '*: :((") and f'"{expected}"' in out.replace("\\:", ":")


def test_the_script_for_zsh_defines_a_completion(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PENSTOCK_COMPLETE", "source_zsh")
    out = run().out
    assert out.lstrip().startswith("#compdef penstock") and "_PENSTOCK_COMPLETE=complete_zsh" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["penstock", "li"], "list"), (["penstock", "profiles", ""], "use")],
)
def test_bash_completes_with_the_script_that_it_is_given(
    tmp_path: Path, words: list[str], expected: str
) -> None:
    """Completion as users have it: bash reads the script, which asks the installed command."""
    folder = Path(sys.executable).parent
    clean = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    script = (
        'source <(_PENSTOCK_COMPLETE=source_bash penstock); COMP_WORDS=("$@");'
        ' COMP_CWORD=$(($# - 1)); _penstock_completion penstock; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in done.stdout.split(), done


def test_the_walk_sees_a_command_without_the_options() -> None:
    """The negative control: a command that was added past the walk lacks the options."""
    import typer

    app = typer.Typer()
    app.command("one")(lambda: None)
    app.command("two")(lambda: None)
    root = typer.main.get_command(app)
    assert not any(SHARED & set(p.opts) for _, c in walk_commands(root) for p in c.params)
    share_options(root)
    assert all({o for p in c.params for o in p.opts} >= SHARED for _, c in walk_commands(root))
