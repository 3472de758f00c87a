"""One record by key in the style of tutorials: a session, a mapped class, a response model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import ConfigDict, create_model
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.store.tables import Tables

_table = Tables(load_catalog(find_descriptors()))["customers"]
_fields = {c.name.replace(".", "_"): c for c in _table.columns}


class _Base(DeclarativeBase):
    metadata = _table.metadata


_Customer: Any = type("_Customer", (_Base,), {"__table__": _table, **_fields})
_Reply: Any = create_model(
    "Customer",
    __config__=ConfigDict(from_attributes=True),
    **{name: (Any, None) for name in _fields},
)

_url = make_url(os.environ["DATABASE"]).set(drivername="postgresql+asyncpg")
_sessions = async_sessionmaker(
    create_async_engine(_url, pool_size=16, max_overflow=0), expire_on_commit=False
)


async def _session() -> AsyncIterator[AsyncSession]:
    async with _sessions() as session:
        yield session


app = FastAPI()


@app.get("/v1/customers/{key}", response_model=_Reply)
async def _get(key: str, session: Annotated[AsyncSession, Depends(_session)]) -> Any:
    found = await session.get(_Customer, key)
    if found is None:
        raise HTTPException(404)
    return found
