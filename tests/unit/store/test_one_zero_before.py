"""Floats that were stored before revision 0026, when zeros kept their sign."""

from __future__ import annotations

import asyncpg

from penstockd.store.migrations.versions import v0026_one_zero as revision


async def test_negative_zeros_become_zero_and_the_rest_stays(empty_url: str) -> None:
    connection = await asyncpg.connect(empty_url)
    try:
        await connection.execute(
            'CREATE SCHEMA data; CREATE TABLE data."odd name" (key text, "the wide" float8,'
            " narrow real, other numeric); CREATE TABLE data.plain (key text);"
            " CREATE TABLE public.other (wide float8); INSERT INTO public.other VALUES ('-0')"
        )
        await connection.execute(
            "INSERT INTO data.\"odd name\" VALUES ('a', '-0', '-0', 1), ('b', '-0', NULL, 0),"
            " ('c', 'NaN', '-Infinity', 0), ('d', 5e-324, 3.4028235e38, 0), ('e', 0, 0.1, 0)"
        )
        places = "SELECT key, ctid::text FROM data.\"odd name\" WHERE key IN ('c', 'd', 'e')"
        before = await connection.fetch(places)
        await connection.execute(revision.SETTLE)
        rows = await connection.fetch(
            'SELECT key, "the wide"::text, narrow::text FROM data."odd name" ORDER BY key'
        )
        assert [tuple(row) for row in rows] == [
            ("a", "0", "0"),
            ("b", "0", None),
            ("c", "NaN", "-Infinity"),
            ("d", "5e-324", "3.4028235e+38"),
            ("e", "0", "0.1"),
        ]
        assert await connection.fetch(places) == before, "rows without such a zero are untouched"
        assert await connection.fetchval("SELECT wide::text FROM public.other") == "-0"
    finally:
        await connection.close()
