"""Hubs whose model has datasets other than the demo's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, message_factory

from harness import ROOT, Reply, RunningHub
from penstockd.catalog.load import load_catalog

#: Models for tables of other people.
MODELS = ROOT / "tests/models"
#: The fields that the hub writes into every record.
OUTPUT = {"createTime", "updateTime", "etag"}


class Workshop:
    """A copy of the model to which datasets are added, and a hub that uses it."""

    def __init__(self, tree: Path, data: Path) -> None:
        self.tree = tree
        for name in ("protos", "gen", "envoy"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "buf.yaml", tree)
        self.models = tree / "protos/penstock/model/v1"
        self.hub = RunningHub(
            data,
            customers=5,
            environment={
                "PENSTOCK_RESOURCES": str(tree),
                "PYTHONPATH": os.pathsep.join([str(tree / "gen"), *sys.path]),
                "PENSTOCK_WORKERS": "1",
            },
        )

    def generate(self, models: dict[str, str]) -> None:
        """Write the message files of datasets and run the generator."""
        for name, text in models.items():
            (self.models / f"{name}.proto").write_text(text)
        done = subprocess.run(
            [ROOT / "scripts" / "generate", "--root", self.tree],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def refused(self) -> str:
        """The error of a start that is refused."""
        arguments = ("up", "--demo", "--customers=5", "--detach")
        done = self.hub.command(*arguments, check=False)
        assert done.returncode == 1
        return done.stderr.decode()


class DatasetDoor:
    """An administrator's calls of one dataset of a workshop's hub; messages are made from its
    descriptors."""

    def __init__(self, made: Workshop, name: str) -> None:
        """Prepare calls of a dataset; its name must be one word."""
        self.hub, self.path = made.hub, f"/v1/{name}"
        self._catalog = load_catalog(made.tree / "gen/descriptors/hub.binpb")
        self._service = f"penstock.api.v1.{name.title()}"
        self.dataset = self._catalog[name]
        self.record_class = self.dataset.message_class
        self._find = self._catalog.pool.FindMessageTypeByName

    def message(self, name: str, **values: Any) -> Any:
        """A request by its name and proto JSON."""
        kind = message_factory.GetMessageClass(self._find(f"penstock.api.v1.{name}"))
        return json_format.ParseDict(values, kind())

    def call(self, verb: str, request: Any, reply: str) -> Any:
        """One call over gRPC; ``reply`` is the name of the response message."""
        with grpc.insecure_channel(f"127.0.0.1:{self.hub.port}") as channel:
            answer: bytes = channel.unary_unary(f"/{self._service}/{verb}")(
                request.SerializeToString(), metadata=self.hub.metadata("admin")
            )
        if reply == self.record_class.DESCRIPTOR.name:
            return self.record_class.FromString(answer)
        return self.message(reply).FromString(answer)

    def send(self, name: str, file: bytes, **query: Any) -> Reply:
        """Import a file of the named format."""
        options = {"format": name, **query}
        return self.hub.request(
            "POST", f"{self.path}:import", consumer="admin", body=file, query=options
        )

    def post(self, verb: str, path: str, body: Any) -> Reply:
        """One call over REST."""
        return self.hub.request(verb, path, consumer="admin", json_body=body)
