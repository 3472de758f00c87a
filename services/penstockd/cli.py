"""The server's commands of ``penstock``: up, down, migrate. Registered by entry point.

Each command imports what it needs when it runs: ``penstock --help`` must not wait for the server.
"""

from __future__ import annotations

import enum
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.client.cli.audit import group_of
from penstock.client.cli.printing import print_outcome
from penstockd.cli_audit import add_audit_commands
from penstockd.cli_backups import back_up_hub, format_epoch, restore_hub
from penstockd.cli_monitoring import add_monitoring_commands
from penstockd.cli_secrets import add_secret_commands
from penstockd.cli_settings import load_settings
from penstockd.cli_usage import add_usage_commands

if TYPE_CHECKING:
    from penstockd.config import Settings
    from penstockd.store.sharing import LiveNode
    from penstockd.store.singleton_rows import Singleton
    from penstockd.store.step import Step

#: A JSON line of the supervisor, or one that it passes on from another process.
_MACHINE_LINE = re.compile(r"([a-z0-9-]+: )?\{")

#: Seconds that a detached start may take: a demo with millions of customers takes minutes.
START_SECONDS = 3600


class Because(enum.StrEnum):
    """The reason why a database has gone back in time."""

    RESTORE = "restore"
    FAILOVER = "failover"


def commands(app: typer.Typer) -> None:
    """Add the server's commands to the command line."""
    app.command("up")(start_hub)
    app.command("down")(stop_hub)
    app.command("migrate")(migrate_database)
    app.command("administrator")(make_administrator)
    app.command("nodes")(show_nodes)
    app.command("backup")(back_up_hub)
    app.command("restore")(restore_hub)
    add_audit_commands(group_of(app))
    epochs = typer.Typer(
        no_args_is_help=True, help="Declare that the database was restored or failed over."
    )
    epochs.callback()(_describe_epochs)
    epochs.command("new")(new_epoch)
    app.add_typer(epochs, name="epoch")
    cursors = typer.Typer(no_args_is_help=True, help="The keys that seal cursors.")
    cursors.callback()(_describe_cursors)
    cursors.command("rotate-key")(rotate_cursor_key)
    app.add_typer(cursors, name="cursors")
    add_monitoring_commands(app)
    add_secret_commands(app)
    add_usage_commands(app)


def start_hub(
    demo: Annotated[bool, typer.Option(help="Create the demo company first.")] = False,
    customers: Annotated[int, typer.Option(min=1, help="Customers of the demo company.")] = 5000,
    detach: Annotated[bool, typer.Option(help="Return when the hub is ready.")] = False,
) -> None:
    """Start the hub: database, workers, keeper and Envoy; Ctrl-C stops it cleanly."""
    settings = load_settings()
    if detach:
        _start_detached(settings, demo, customers)
        return
    import asyncio

    from penstockd.up import StartRefused, run_node

    try:
        asyncio.run(run_node(settings, demo_customers=customers if demo else None))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc


def stop_hub() -> None:
    """Stop the hub that runs on this data folder."""
    from penstockd.node import lock

    settings = load_settings()
    stopped = lock.stop_supervisor(settings.data_dir)
    text = [] if stopped else f"no hub runs on {settings.data_dir}"
    print_outcome({"stopped": stopped, "data_dir": str(settings.data_dir)}, text)


def migrate_database(
    apply: Annotated[
        bool, typer.Option(help="Also apply changes that convert or remove values.")
    ] = False,
) -> None:
    """Show how the database differs from the model, and with --apply bring it to it."""
    import asyncio

    from penstockd.up import StartRefused, migrate_store

    try:
        steps = asyncio.run(migrate_store(load_settings(), apply=apply))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    document = {
        "applied": apply,
        "steps": [{"consent": s.consent.value, "description": s.description} for s in steps],
    }
    print_outcome(document, _format_plan(steps, apply))


def _format_plan(steps: Sequence[Step], applied: bool) -> Iterator[str]:
    """A migration's steps for people."""
    yield from (f"{step.consent.value:8}  {step.description}" for step in steps)
    if not steps:
        yield "the database is as the model wants it"
    elif applied:
        yield f"{len(steps)} changes applied"
    else:
        yield _explain_consent(steps)


def _explain_consent(steps: Sequence[Step]) -> str:
    if any(step.consent.name == "NEVER" for step in steps):
        return (
            "nothing was changed; nothing can be applied while a change is refused: correct these"
            " values with the previous model, or change the new model"
        )
    if all(step.additive for step in steps):
        return "nothing was changed; the next start applies these steps"
    return "nothing was changed; apply with: penstock migrate --apply"


def make_administrator(
    consumer: Annotated[str, typer.Argument(metavar="CONSUMER", help="The consumer's id.")],
    create: Annotated[
        bool, typer.Option("--create", help="Create the consumer if it does not exist.")
    ] = False,
) -> None:
    """Let a consumer change access, and print a new client secret for it.

    This is the way into a new hub, and back in when no other administrator is left. It works on the
    database itself, whether the hub runs or not; the policy's history records it.
    """
    import asyncio

    from penstockd.up import StartRefused, let_administer

    try:
        issued = asyncio.run(let_administer(load_settings(), consumer, create=create))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    typer.echo(f"{consumer} may change access; its client secret, shown this once:", err=True)
    print_outcome({"consumer_id": consumer, "client_secret": issued.secret}, issued.secret)


def show_nodes() -> None:
    """Show the nodes that share the database, and which tasks each of them does for all.

    It exits with 1 while a task has no holder, or fails.
    """
    import asyncio

    from penstockd.up import StartRefused, survey_nodes

    try:
        living, tasks = asyncio.run(survey_nodes(load_settings()))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    document = {
        "nodes": [
            {"node_id": n.node_id, "host": n.host, "age": n.age, "stands_by": n.stands_by}
            for n in living
        ],
        "tasks": [
            {"name": t.name, "node_id": None if t.free else t.node_id, "term": t.term}
            for t in sorted(tasks, key=lambda task: task.name)
        ],
    }
    print_outcome(document, _format_holders(living, tasks))
    if free := sorted(task.name for task in tasks if task.free):
        typer.echo(f"no node runs: {', '.join(free)}", err=True)
    if failing := sorted(task.name for task in tasks if task.fail_time is not None):
        typer.echo(f"fails: {', '.join(failing)}", err=True)
    if free or failing:
        raise typer.Exit(1)


def _format_holders(living: Sequence[LiveNode], tasks: Sequence[Singleton]) -> Iterator[str]:
    """The nodes, each with the tasks it holds; a node that is gone but holds a lease is silent."""
    known = {node.holder for node in living}
    held = sorted((task for task in tasks if not task.free), key=lambda task: task.name)
    for node in living:
        stands_by = ", stands by: its settings differ" if node.stands_by else ""
        twin = f", has the same node-id as a node on {node.twin}" if node.twin else ""
        yield f"{node.host} ({node.node_id}), up for {node.age:.0f} s{stands_by}{twin}"
        yield from (f"  {_describe_task(t)}" for t in held if t.holder == node.holder)
    for task in held:
        if task.holder not in known:
            yield f"{task.host} ({task.node_id}), silent: {_describe_task(task)}"


def _describe_task(task: Singleton) -> str:
    """A task with its term, and since when it fails, if it does."""
    if task.fail_time is None:
        return f"{task.name}, term {task.term}"
    since = task.fail_time.isoformat(timespec="seconds")
    return f"{task.name}, term {task.term}, fails since {since}: {task.failure}"


def _describe_epochs() -> None:
    """Declare that the database was restored or failed over."""


def new_epoch(
    because: Annotated[Because, typer.Option(help="The reason: a restored backup or a failover.")],
) -> None:
    """Declare that the database has gone back in time, so that the audit goes on from there.

    It signs a checkpoint that says which checkpoints in this host's file were undone. It works on
    the database itself, whether the hub runs or not.
    """
    import asyncio

    from penstockd.up import StartRefused, begin_epoch

    try:
        epoch = asyncio.run(begin_epoch(load_settings(), because.value))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    checkpoint = epoch.checkpoint
    document = {"epoch": epoch.number, "last_number": epoch.last_number} | (
        {} if checkpoint is None else {"checkpoint": checkpoint.number}
    )
    print_outcome(document, format_epoch(epoch))


def _describe_cursors() -> None:
    """The keys that seal cursors."""


def rotate_cursor_key() -> None:
    """Let a new key seal cursors, starting in one minute.

    Cursors that clients hold stay valid for as long as the log is kept. It works on the database
    itself, whether the hub runs or not.
    """
    import asyncio

    from penstockd.up import StartRefused, let_cursor_key_follow

    try:
        number = asyncio.run(let_cursor_key_follow(load_settings()))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    print_outcome(
        {"key": number},
        f"key {number} seals cursors in a minute; the previous opens as long as the log is kept",
    )


def _start_detached(settings: Settings, demo: bool, customers: int) -> None:
    """Start the hub in a session of its own and wait until it is ready."""
    from penstockd.node.private import keep_files_private
    from penstockd.node.process import DETACHED_LOG, set_aside

    log = settings.data_dir / DETACHED_LOG
    argv = [sys.executable, "-m", "penstock.client.cli", "up", f"--customers={customers}"]
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        keep_files_private(settings.data_dir)
        set_aside(log)
        output = log.open("ab")
    except OSError as exc:
        typer.echo(f"penstock: the data folder cannot be written: {exc}", err=True)
        raise typer.Exit(1) from exc
    with output:
        start = output.tell()
        child = subprocess.Popen(
            [*argv, *(["--demo"] if demo else [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    ready = settings.ready_file
    deadline = time.monotonic() + START_SECONDS
    seen = start
    while time.monotonic() < deadline and child.poll() is None:
        seen = _pass_on_progress(log, seen)
        if ready.exists() and ready.read_text() == str(child.pid):
            print_outcome({"url": settings.url, "pid": child.pid}, _read_since(log, start))
            return
        time.sleep(0.05)
    child.terminate()
    child.wait()
    typer.echo(_read_since(log, start), err=True)
    typer.echo(f"penstock: the hub did not start; see {log}", err=True)
    raise typer.Exit(1)


def _pass_on_progress(log: Path, start: int) -> int:
    """Repeat a log's whole lines about progress on standard error; return where they end."""
    from penstockd.output import PROGRESS

    with log.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if line.startswith(PROGRESS):
            typer.echo(line, err=True)
    return start + len(whole)


def _read_since(log: Path, start: int) -> str:
    """The text of a log from a position on, without lines about progress or meant for machines."""
    from penstockd.output import PROGRESS

    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(
        line for line in lines if not _MACHINE_LINE.match(line) and not line.startswith(PROGRESS)
    )
