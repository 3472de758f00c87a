"""The statement that merges staged rows into a dataset's table and logs what it changed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.model import KEY_COLUMN
from penstockd.store.tables import DATA_SCHEMA, key_ddl, key_text, sql_type

# $1: log rows the transaction has so far, $2: dataset, $3: CREATED, $4: UPDATED. Staged rows that
# existed (before is not NULL) are locked; a key that did not exist may since have been inserted by
# another transaction: it is left alone and returned as lost.
_MERGE = """
WITH {stage}updated AS (
    UPDATE {table} AS t SET {assignments}
    FROM {source} AS s WHERE s."~before" IS NOT NULL AND t.{key} = s.{key}
), inserted AS (
    INSERT INTO {table} ({columns})
    SELECT {columns} FROM {source} WHERE "~before" IS NULL ORDER BY {key}
    ON CONFLICT ({key}) DO NOTHING RETURNING {key}
), logged AS (
    INSERT INTO hub.change (ordinal, dataset, key, operation, before, after)
    SELECT $1::bigint + row_number() OVER (ORDER BY "~ordinal") - 1, $2::text, {key},
           CASE WHEN "~before" IS NULL THEN $3::smallint ELSE $4::smallint END,
           "~before", "~after"
    FROM {source}
    WHERE "~before" IS NOT NULL OR {key} IN (SELECT {key} FROM inserted)
)
SELECT {key} FROM {source} WHERE "~before" IS NULL
EXCEPT ALL SELECT {key} FROM inserted
"""

# Staged rows that exist and need no change: the file's values equal the stored ones to the last
# byte, except for trailing zeros of decimals. Some of the others need no change either; comparing
# values decides that.
_UNCHANGED = """
WITH locked AS MATERIALIZED ({lock})
SELECT l."~key" FROM locked AS l JOIN {stage} AS s ON s.{key} = l."~key"
WHERE l."~visible" AND l."etag" <> s."etag" AND record_image_eq(ROW({here}), ROW({staged}))
"""

_DELETE = """
WITH deleted AS (
    DELETE FROM {table} WHERE {key} = $1
)
INSERT INTO hub.change (ordinal, dataset, key, operation, before)
VALUES ($2, $3, $1, $4, $5)
"""

_EXTRA = (("~ordinal", "bigint"), ("~before", "bytea"), ("~after", "bytea"))


@dataclass(frozen=True, slots=True)
class Merge:
    """The SQL texts of one dataset's writes; they contain names only, never a value."""

    columns: tuple[str, ...]
    stage: str
    stage_columns: tuple[str, ...]
    create_stage: str
    clear_stage: str
    from_stage: str
    from_arrays: str
    delete: str
    present: str

    @classmethod
    @functools.cache
    def of(cls, dataset: Dataset) -> Merge:
        """The statements of a dataset, created once."""
        table, stage = f'{DATA_SCHEMA}."{dataset.name}"', f"stage_{dataset.name}"
        names = [f.column for f in dataset.fields]
        types = [sql_type(f) for f in dataset.fields]
        staged = [*_EXTRA, *zip(names, types, strict=True)]
        common = {
            "table": table,
            "key": f'"{dataset.key.column}"',
            "columns": ", ".join(f'"{n}"' for n in names),
            "assignments": ", ".join(f'"{n}" = s."{n}"' for n in names),
        }
        arrays = (
            "arrays AS MATERIALIZED (SELECT * FROM unnest("
            + ", ".join(f"${i}::{t}[]" for i, (_, t) in enumerate(staged, 5))
            + ") AS a ("
            + ", ".join(f'"{n}"' for n, _ in staged)
            + ")), "
        )
        if dataset.joins_key:
            made = f'{key_text(dataset)} AS "{KEY_COLUMN}"'
            arrays = arrays.replace("SELECT *", f"SELECT *, {made}", 1)
        columns = ", ".join(
            f'"{n}" {t}' + (' COLLATE "C"' if t == "text" else "") for n, t in staged
        )
        if dataset.joins_key:
            columns += f", {key_ddl(dataset)}"
        return cls(
            columns=tuple(names),
            stage=stage,
            stage_columns=tuple(n for n, _ in staged),
            create_stage=f'CREATE TEMPORARY TABLE "{stage}" ({columns}) ON COMMIT DROP',
            clear_stage=f'TRUNCATE pg_temp."{stage}"',
            from_stage=_MERGE.format(stage="", source=f'pg_temp."{stage}"', **common),
            from_arrays=_MERGE.format(stage=arrays, source="arrays", **common),
            delete=_DELETE.format(table=table, key=common["key"]),
            present="SELECT {key} FROM {table} WHERE {key} = ANY($1::text[])".format(**common),
        )


def unchanged_sql(dataset: Dataset, fields: Sequence[Field], lock: str) -> str:
    """SQL for the keys of staged rows that exist with the same values of ``fields``. It embeds a
    guard's ``lock`` and takes its parameters. Rows that the transaction itself wrote are
    excluded."""
    return _UNCHANGED.format(
        lock=lock,
        stage=f'pg_temp."{Merge.of(dataset).stage}"',
        key=f'"{dataset.key.column}"',
        here=", ".join(_compared_column(f, "l") for f in fields),
        staged=", ".join(_compared_column(f, "s") for f in fields),
    )


def _compared_column(field: Field, row: str) -> str:
    column = f'{row}."{field.column}"'
    return f"trim_scale({column})" if field.kind is Kind.DECIMAL else column
