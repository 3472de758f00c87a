"""One record by key, tuned by hand: a pool, a prepared statement, JSON made by the database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_SQL = "SELECT row_to_json(c)::text FROM data.customers AS c WHERE customer_id = $1"


@contextlib.asynccontextmanager
async def _pool(app: Starlette) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE"], min_size=16, max_size=16) as pool:
        app.state.pool = pool
        yield


async def _get(request: Request) -> Response:
    async with request.app.state.pool.acquire() as connection:
        found = await connection.fetchval(_SQL, request.path_params["key"])
    if found is None:
        return Response("{}", 404, media_type="application/json")
    return Response(found, media_type="application/json")


app = Starlette(routes=[Route("/v1/customers/{key}", _get)], lifespan=_pool)
