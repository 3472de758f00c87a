"""Writes the files of ``tests/unit/formats/written``: RECORDS as other tools write them.

Run it by hand, ``python tests/written_files.py FOLDER``, where pandas, polars, DuckDB, openpyxl and
XlsxWriter are installed: the files are committed, so that the tests need none of these tools. The
name of a file says who wrote it and how; "local" is for times without a zone, in Europe/Berlin.
"""

from __future__ import annotations

import csv
import importlib
import json
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

LOCAL = "Europe/Berlin"
RECORDS: list[dict[str, Any]] = [
    {
        "thing_id": "a", "title": "one, two; three\tfour", "remark": None, "flag": True,
        "large": 2**53 + 1, "weight": 0.1, "price": Decimal("12.34"), "day": date(2024, 2, 29),
        "seen_at": datetime(2024, 7, 1, 10, 0, 0, 250_000, tzinfo=UTC),
    },
    {
        "thing_id": "b", "title": 'a "quoted" line\nand another', "remark": "NULL", "flag": False,
        "large": -5, "weight": -1.5e-7, "price": Decimal("-0.05"), "day": date(1969, 12, 31),
        "seen_at": datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
    },
    {
        "thing_id": "c", "title": " Zoë 😀 山 ", "remark": "x", "flag": False,
        "large": None, "weight": 123456789.125, "price": None, "day": None, "seen_at": None,
    },
]  # fmt: skip
NAMES = list(RECORDS[0])


def local(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its time as a clock in LOCAL shows it."""
    seen = record["seen_at"]
    shown = seen.astimezone(ZoneInfo(LOCAL)).replace(tzinfo=None) if seen else None
    return record | {"seen_at": shown}


def write_pandas(folder: Path) -> None:
    pd: Any = importlib.import_module("pandas")

    def frame(records: list[dict[str, Any]]) -> Any:
        made = pd.DataFrame(records)
        made["large"] = pd.array([r["large"] for r in records], dtype="Int64")
        made["seen_at"] = pd.to_datetime(made["seen_at"])
        return made

    zoned, naive = frame(RECORDS), frame([local(r) for r in RECORDS])
    zoned.to_csv(folder / "pandas.csv", index=False)
    zoned.to_csv(folder / "pandas-index.csv")
    zoned.to_csv(folder / "pandas-semicolon.csv", sep=";", index=False)
    zoned.to_csv(folder / "pandas-tab.csv", sep="\t", index=False)
    zoned.to_csv(folder / "pandas-pipe.csv", sep="|", index=False)
    zoned.to_csv(folder / "pandas-utf16.csv", encoding="utf-16", index=False)
    zoned.to_csv(folder / "pandas-mark.csv", encoding="utf-8-sig", index=False)
    zoned.to_csv(folder / "pandas-quoted.csv", quoting=csv.QUOTE_NONNUMERIC, index=False)
    zoned.to_csv(folder / "pandas-crlf.csv", lineterminator="\r\n", index=False)
    zoned.to_csv(folder / "pandas.csv.gz", index=False)
    naive.to_csv(folder / "pandas-local.csv", index=False)
    zoned.to_parquet(folder / "pandas.parquet")
    zoned.set_index(pd.Index([7, 9, 11])).to_parquet(folder / "pandas-index.parquet")
    naive.to_parquet(folder / "pandas-local.parquet")
    zoned.to_feather(folder / "pandas.arrow")
    texts = zoned.assign(day=[r["day"] and str(r["day"]) for r in RECORDS])
    texts.to_json(folder / "pandas.json", orient="records", date_format="iso")
    texts.to_json(folder / "pandas.ndjson", orient="records", lines=True, date_format="iso")
    naive.to_excel(folder / "pandas-openpyxl-local.xlsx", index=False, engine="openpyxl")
    naive.to_excel(folder / "pandas-xlsxwriter-local.xlsx", index=False, engine="xlsxwriter")


def write_polars(folder: Path) -> None:
    pl: Any = importlib.import_module("polars")
    types = {"price": pl.Decimal(20, 6), "seen_at": pl.Datetime("us", "UTC"), "day": pl.Date}
    zoned = pl.DataFrame(RECORDS, schema_overrides=types)
    types["seen_at"] = pl.Datetime("us")
    naive = pl.DataFrame([local(r) for r in RECORDS], schema_overrides=types)
    zoned.write_csv(folder / "polars.csv")
    zoned.write_csv(folder / "polars-semicolon.csv", separator=";")
    zoned.write_csv(folder / "polars-quoted.csv", quote_style="always")
    naive.write_csv(folder / "polars-local.csv")
    zoned.write_parquet(folder / "polars.parquet")
    naive.write_parquet(folder / "polars-local.parquet")
    zoned.write_ipc(folder / "polars.arrow")
    zoned.write_ipc_stream(folder / "polars.arrows")
    naive.write_ndjson(folder / "polars-local.ndjson")
    naive.write_json(folder / "polars-local.json")


def write_duckdb(folder: Path) -> None:
    db: Any = importlib.import_module("duckdb").connect()
    db.execute("SET TimeZone = 'UTC'")
    kinds = {"flag": "boolean", "large": "bigint", "weight": "double", "price": "decimal(20,6)",
             "day": "date", "seen_at": "timestamptz"}  # fmt: skip
    columns = ", ".join(f"{n} {kinds.get(n, 'text')}" for n in NAMES)
    db.execute(f"CREATE TABLE zoned ({columns})")
    db.execute(f"CREATE TABLE naive ({columns.replace('timestamptz', 'timestamp')})")
    for record in RECORDS:
        for table, row in (("zoned", record), ("naive", local(record))):
            db.execute(f"INSERT INTO {table} VALUES (?,?,?,?,?,?,?,?,?)", list(row.values()))
    for name, table, options in (
        ("duckdb.csv", "zoned", "HEADER"),
        ("duckdb-semicolon.csv", "zoned", "HEADER, DELIMITER ';'"),
        ("duckdb-tab.csv", "zoned", "HEADER, DELIMITER '\t'"),
        ("duckdb-quoted.csv", "zoned", "HEADER, FORCE_QUOTE (title, remark)"),
        ("duckdb-local.csv", "naive", "HEADER"),
        ("duckdb.csv.gz", "zoned", "HEADER"),
        ("duckdb.ndjson", "zoned", "FORMAT json"),
        ("duckdb-local.json", "naive", "FORMAT json, ARRAY true"),
        ("duckdb.parquet", "zoned", "FORMAT parquet"),
        ("duckdb-zstd.parquet", "zoned", "FORMAT parquet, COMPRESSION zstd"),
        ("duckdb-local.parquet", "naive", "FORMAT parquet"),
    ):
        db.execute(f"COPY {table} TO '{folder / name}' ({options})")


def write_sheets(folder: Path) -> None:
    rows = [list(local(r).values()) for r in RECORDS]
    openpyxl: Any = importlib.import_module("openpyxl")
    book = openpyxl.Workbook()
    for row in [NAMES, *rows]:
        book.active.append([float(v) if isinstance(v, Decimal) else v for v in row])
    book.active["E2"] = str(RECORDS[0]["large"])  # a sheet keeps fifteen digits of a number
    book.save(folder / "openpyxl-local.xlsx")
    writer: Any = importlib.import_module("xlsxwriter")
    for name, calendar in (("xlsxwriter-local.xlsx", False), ("xlsxwriter-1904-local.xlsx", True)):
        made = writer.Workbook(folder / name, {"date_1904": calendar})
        sheet = made.add_worksheet()
        day = made.add_format({"num_format": "dd/mm/yyyy"})
        time = made.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
        for i, row in enumerate([NAMES, *rows]):
            for j, value in enumerate(row):
                if isinstance(value, datetime):
                    sheet.write_datetime(i, j, value, time)
                elif isinstance(value, date):
                    text = calendar or value.year < 1970
                    sheet.write(i, j, str(value) if text else value, None if text else day)
                elif isinstance(value, int) and abs(value) > 10**15:
                    sheet.write_string(i, j, str(value))
                else:
                    sheet.write(i, j, value)
        made.close()


def write_databases(folder: Path) -> None:
    """What PostgreSQL and MySQL print, which are not installed where this runs."""
    postgres = (
        "thing_id,title,remark,flag,large,weight,price,day,seen_at\n"
        'a,"one, two; three\tfour",,t,9007199254740993,0.1,12.34,2024-02-29,'
        "2024-07-01 10:00:00.25+00\n"
        'b,"a ""quoted"" line\nand another",NULL,f,-5,-1.5e-07,-0.05,1969-12-31,'
        "1999-12-31 23:59:59+00\n"
        "c, Zoë 😀 山 ,x,f,,123456789.125,,,\n"
    )
    (folder / "postgresql.csv").write_text(postgres)
    (folder / "postgresql-offset.csv").write_text(
        postgres.replace("10:00:00.25+00", "15:30:00.25+05:30")
    )
    (folder / "postgresql-local.csv").write_text(
        postgres.replace("2024-07-01 10:00:00.25+00", "2024-07-01 12:00:00.25").replace(
            "1999-12-31 23:59:59+00", "2000-01-01 00:59:59"
        )
    )
    lines = []
    for record in RECORDS:
        seen, day = record["seen_at"], record["day"]
        shown = record | {
            "price": None if record["price"] is None else float(record["price"]),
            "day": day and day.isoformat(),
            "seen_at": seen and seen.isoformat().replace(".250000", ".25"),
        }
        lines.append(json.dumps(shown, ensure_ascii=False))
    (folder / "postgresql-json.ndjson").write_text("\n".join(lines) + "\n")
    # MySQL has no zone in its times; its JSON functions and Workbench write booleans so.
    mysql = (
        '"thing_id";"title";"remark";"flag";"large";"weight";"price";"day";"seen_at"\n'
        '"a";"one, two; three\tfour";;"true";9007199254740993;0.1;12.34;"2024-02-29";'
        '"2024-07-01 12:00:00.250000"\n'
        '"b";"a ""quoted"" line\nand another";"NULL";"false";-5;-1.5e-7;-0.05;"1969-12-31";'
        '"2000-01-01 00:59:59.000000"\n'
        '"c";" Zoë 😀 山 ";"x";"false";;123456789.125;;;\n'
    )
    (folder / "mysql-workbench-local.csv").write_text(mysql)
    rows = [
        {**json.loads(line), "seen_at": seen}
        for line, seen in zip(
            lines, ["2024-07-01 12:00:00.250000", "2000-01-01 00:59:59.000000", None], strict=True
        )
    ]
    (folder / "mysql-local.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for write in (write_pandas, write_polars, write_duckdb, write_sheets, write_databases):
        write(target)
