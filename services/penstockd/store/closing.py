"""Closes the change log if the new model cannot read its images, or reads them differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, text

from penstockd.catalog import Dataset
from penstockd.catalog.comparison import FieldMatches, ShapeComparison
from penstockd.catalog.manifest import Manifest, StoredDataset
from penstockd.store.step import Consent, Step


def unreadable_images(
    dataset: Dataset, matches: FieldMatches, shapes: ShapeComparison, history: Sequence[Manifest]
) -> Iterator[str]:
    """The fields whose images in the log the new model cannot read, or reads differently."""
    for old, new in matches.kept:
        renumbered = old.numbers and old.numbers != new.numbers
        if renumbered or not shapes.same_kinds(old.shape, new.shape):
            yield f"{dataset.name}.{new.path}"
    for new in matches.added:
        for manifest in history:
            stored = manifest.datasets.get(dataset.name, StoredDataset(()))
            then = ShapeComparison(manifest.messages, shapes.after)
            if not all(then.read_alike(earlier, new) for earlier in stored.fields):
                yield f"a former field of the number of {dataset.name}.{new.path}"


def closing_steps(connection: Connection, images: Sequence[tuple[str, str]]) -> Iterator[Step]:
    """The step that closes the log, if it holds such images: pairs of a dataset and the words for
    what of it cannot be read."""
    held = [words for dataset, words in images if _log_holds(connection, dataset)]
    if held:
        yield Step(
            f"the change log up to now is closed, since its images of {', '.join(held)} cannot"
            " be read with the new model: feeds answer CURSOR_EXPIRED once, and"
            " consumers take a snapshot",
            Consent.COMMAND,
            _close_log,
        )


def _log_holds(connection: Connection, dataset: str) -> bool:
    """Whether the log has images of a dataset's records."""
    sql = (
        "SELECT EXISTS (SELECT FROM hub.change AS c WHERE dataset = :dataset AND ("
        " EXISTS (SELECT FROM hub.log_transaction AS t WHERE t.revision = c.revision)"
        " OR EXISTS (SELECT FROM hub.pending AS p WHERE p.revision = c.revision)))"
    )
    return bool(connection.execute(text(sql), {"dataset": dataset}).scalar_one())


def _close_log(connection: Connection) -> None:
    """Prune all changes of the log, as if they were past retention."""
    while connection.execute(text("SELECT hub.stamp()")).scalar_one():
        pass
    connection.execute(text("SELECT hub.prune_log(last_number) FROM hub.log_head"))
