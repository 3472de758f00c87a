"""Runs SQL scripts of several statements, which prepared statements cannot hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection


def run_script(connection: Connection, sql: str) -> None:
    """Run ``sql`` (no parameters) in the connection's transaction, with the simple protocol."""
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: driver.execute(sql))
