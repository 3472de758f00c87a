"""Closes the change log if the new model cannot read its images, or reads them differently.

The same holds for queued events of webhooks, which outlive the log's changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from penstockd.catalog import Dataset
from penstockd.catalog.comparison import FieldMatches, ShapeComparison
from penstockd.catalog.manifest import Manifest, StoredDataset, StoredField
from penstockd.store.step import Consent, Step


def unreadable_images(
    dataset: Dataset, matches: FieldMatches, shapes: ShapeComparison, history: Sequence[Manifest]
) -> Iterator[str]:
    """The fields whose images in the log the new model cannot read, or reads differently."""
    for old, new in matches.kept:
        renumbered = old.numbers and old.numbers != new.numbers
        if renumbered or not shapes.same_kinds(old.shape, new.shape):
            yield f"{dataset.name}.{new.path}"
        elif _revives_members(dataset.name, old, new, shapes, history):
            yield f"former members of {dataset.name}.{new.path}"
    for new in matches.added:
        for manifest in history:
            stored = manifest.datasets.get(dataset.name, StoredDataset(()))
            then = ShapeComparison(manifest.messages, shapes.after)
            if not all(then.read_alike(earlier, new) for earlier in stored.fields):
                yield f"a former field with the number of {dataset.name}.{new.path}"


def _revives_members(
    dataset: str,
    old: StoredField,
    new: StoredField,
    shapes: ShapeComparison,
    history: Sequence[Manifest],
) -> bool:
    """Whether messages in a list or map gain a member with the number of another, former one."""
    gained = shapes.gained_members(old.shape, new.shape)
    if not gained:
        return False
    return any(
        ShapeComparison(then.messages, shapes.after).revives_members(field.shape, new.shape, gained)
        for then in history
        for field in then.datasets.get(dataset, StoredDataset(())).fields
        if field.numbers == new.numbers
    )


def closing_steps(connection: Connection, images: Sequence[tuple[str, str]]) -> Iterator[Step]:
    """The steps that close the log and expire queued events of webhooks, if they hold images of
    these datasets. ``images`` are pairs of a dataset and the words for what of it cannot be
    read."""
    datasets = sorted({dataset for dataset, _ in images})
    held = [words for dataset, words in images if _log_holds(connection, dataset)]
    if held:
        yield Step(
            f"the change log up to now is closed, since its images of {', '.join(held)} cannot"
            " be read with the new model: feeds answer CURSOR_EXPIRED once, and"
            " consumers take a snapshot",
            Consent.COMMAND,
            functools.partial(_close_log, datasets=datasets),
        )
    queued = [words for dataset, words in images if _queue_holds(connection, dataset)]
    if queued:
        yield Step(
            f"queued events of webhooks are no longer sent, since their images of"
            f" {', '.join(queued)} cannot be read with the new model: their deliveries become"
            " dead letters (EVENT_EXPIRED)",
            Consent.COMMAND,
            functools.partial(_expire_events, datasets=datasets),
        )


def _log_holds(connection: Connection, dataset: str) -> bool:
    """Whether the log has images of a dataset's records."""
    sql = (
        "SELECT EXISTS (SELECT FROM hub.change AS c WHERE dataset = :dataset AND ("
        " EXISTS (SELECT FROM hub.log_transaction AS t WHERE t.revision = c.revision)"
        " OR EXISTS (SELECT FROM hub.pending AS p WHERE p.revision = c.revision)))"
    )
    return bool(connection.execute(text(sql), {"dataset": dataset}).scalar_one())


def _queue_holds(connection: Connection, dataset: str) -> bool:
    """Whether webhooks have queued, retried or dead events with images of a dataset's records."""
    sql = (
        "SELECT EXISTS (SELECT FROM hub.webhook_event"
        " WHERE dataset = :dataset AND after IS NOT NULL)"
    )
    return bool(connection.execute(text(sql), {"dataset": dataset}).scalar_one())


def _expire_events(connection: Connection, datasets: Sequence[str]) -> None:
    """Mark the images as those of no View: before they are sent they are read again, and the log
    no longer has them."""
    connection.execute(
        text(
            "UPDATE hub.webhook_event SET view_id = ''"
            " WHERE dataset = ANY (:datasets) AND after IS NOT NULL"
        ),
        {"datasets": list(datasets)},
    )


def _close_log(connection: Connection, datasets: Sequence[str]) -> None:
    """Prune all changes of the log, as if they were past retention; events of the datasets that
    webhooks have queued until now count as expired, too."""
    # While another session stamps, stamp() does nothing: it must have ended.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('penstock.sequencer'))"))
    while connection.execute(text("SELECT EXISTS (SELECT FROM hub.pending)")).scalar_one():
        connection.execute(text("SELECT hub.stamp()"))
    connection.execute(text("SELECT hub.prune_log(last_number) FROM hub.log_head"))
    _expire_events(connection, datasets)
