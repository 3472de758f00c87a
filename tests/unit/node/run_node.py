"""A node with miniature workers: ``python run_node.py DATA PORT [WORKER]``.

Prints a JSON line for each event. The workers get the database URL as DATABASE_URL.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))

from penstockd import resources
from penstockd.node.envoy import Edge
from penstockd.node.errors import NodeError
from penstockd.node.supervisor import Node, supervise_node

FAKE_HUB = Path(__file__).parents[2] / "fake_hub.py"
SLEEPER = "import signal; signal.pause()"


def tell(event: str, **more: object) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def worker(socket: Path) -> list[str]:
    program = sys.argv[3:] or [sys.executable, str(FAKE_HUB)]
    return [*program, str(socket)]


async def prepare(url: str) -> None:
    tell("prepare", url=url)


async def ready() -> None:
    tell("ready")


def main() -> None:
    data = Path(sys.argv[1])
    node = Node(
        data=data,
        database_url=os.environ.get("TEST_DATABASE_URL"),
        workers=2,
        connections=8,
        worker=worker,
        keeper=[sys.executable, "-S", "-c", SLEEPER],
        environment=lambda url: {"DATABASE_URL": url},
        template=resources.envoy_templates() / "sidecar.yaml.j2",
        inputs=resources.envoy_inputs(),
        descriptors=resources.door_descriptors(),
        portal=resources.find_portal(),
        edge=Edge(host="127.0.0.1", port=int(sys.argv[2]), public_url="http://127.0.0.1"),
        issuer="penstock",
        audience="penstock",
    )
    try:
        asyncio.run(supervise_node(node, prepare, ready))
    except NodeError as error:
        tell("failed", error=type(error).__name__, text=str(error))
        sys.exit(1)
    tell("ended")


if __name__ == "__main__":
    main()
