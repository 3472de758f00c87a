"""The file of checkpoints of one node, a witness of what was signed.

Each node keeps a file of its own, whichever node seals: a file that grew only while its node seals
would miss what was signed elsewhere meanwhile, and could not reveal a database that was rewritten
in that time.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog

from penstockd.audit.checkpoint import Checkpoint, CheckpointFile, CheckpointKind
from penstockd.audit.stored_checkpoints import read_checkpoint, read_checkpoints
from penstockd.store.fences import Transactions

#: How often a node looks for checkpoints that its file lacks, in seconds.
LOOK_INTERVAL = 1.0
#: How often a mismatch of file and database is logged, in seconds.
TELL_INTERVAL = 60.0
_DECLARE = "penstock epoch new --because restore"

_log = structlog.get_logger(__name__)


class CheckpointWitness:
    """Appends to a file the checkpoints of the database that follow its last one."""

    def __init__(self, database: Transactions, file: CheckpointFile) -> None:
        self._database, self._file = database, file
        self._filed: Checkpoint | None = None
        self._told: dict[str, float] = {}  # when each event was logged last

    async def run(self) -> None:
        """Look every LOOK_INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_INTERVAL)

    async def look(self) -> None:
        """Append the checkpoints that the file lacks. If that fails, the next look tries again."""
        try:
            if self._filed is None:
                filed = self._file.last()
                await self._check_filed(filed)
                self._filed = filed  # only now: a check that failed is repeated
            if not await self._is_behind():
                return
            missing = await self._missing()
            if missing:
                self._file.append(missing)
                self._filed = missing[-1]
        except OSError as exc:
            self._tell("checkpoints_not_filed", path=str(self._file.path), error=str(exc))

    async def _check_filed(self, filed: Checkpoint | None) -> None:
        """Begin a new epoch if the database lacks the checkpoint with which the file ends."""
        if filed is None:
            return
        async with self._database.transaction() as connection:
            if filed in await read_checkpoints(connection, after=filed.number - 1):
                return
            await connection.execute(
                "SELECT hub.notice_lost_checkpoint($1, $2)", list(filed.epochs), filed.digest
            )
        self._tell("checkpoints_missing", filed=filed.number, advice=_DECLARE)

    async def _is_behind(self) -> bool:
        if self._filed is None:
            return True
        async with self._database.transaction() as connection:
            newest = await connection.fetchval("SELECT max(number) FROM hub.audit_checkpoint")
        return bool(newest and newest > self._filed.number)

    async def _missing(self) -> list[Checkpoint]:
        """The checkpoints after the file's last; only the newest if the file is empty.

        Returns none if they do not follow it: then the database is no longer the same.
        """
        filed = self._filed
        async with self._database.transaction(isolation="repeatable_read") as connection:
            epochs = tuple(await connection.fetchval("SELECT hub.epoch_chain()"))
            if filed is None:
                newest = await read_checkpoint(connection)
                return [replace(newest, epochs=epochs)] if newest is not None else []
            read = await read_checkpoints(connection, after=filed.number)
        found = [replace(checkpoint, epochs=epochs) for checkpoint in read]
        for at, checkpoint in enumerate(found):
            if _continues_file(checkpoint, filed):
                return found[at:]
        if found:
            await self._check_filed(filed)
            self._tell("checkpoints_do_not_follow_the_file", filed=filed.number, advice=_DECLARE)
        return []

    def _tell(self, event: str, **facts: object) -> None:
        """Log a lasting error at most every TELL_INTERVAL; looks are far more frequent."""
        now = time.monotonic()
        if now - self._told.get(event, -TELL_INTERVAL) >= TELL_INTERVAL:
            self._told[event] = now
            _log.error(event, **facts)


def _continues_file(checkpoint: Checkpoint, filed: Checkpoint) -> bool:
    """Whether a checkpoint continues a file. A declared restore continues every file whose end it
    undoes, also that of another node than the one where it was declared."""
    undone = (
        checkpoint.kind is CheckpointKind.RESTORE
        and checkpoint.sequence < filed.number < checkpoint.number
    )
    return undone or checkpoint.previous == filed.digest
