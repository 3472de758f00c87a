"""How nodes that share a database divide the work that one node does at a time.

Each node announces which tasks it takes. From that every node computes the same shares: each task
goes to the node that a hash of both names ranks first among those with room. So the shares are
even, and few tasks move when a node comes or goes. A share confers no right: only a lease does (see
``singletons``), and only its holder hands it over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from penstockd.store.database import Connection

#: Seconds that a node must live without a break before it is handed the tasks of its share, and
#: seconds before a task that was handed over and came back is handed over again.
SETTLED = 15.0
#: Seconds for which a task that nobody holds is reserved for the node in whose share it is.
HEAD_START = 2.0

_READ = """
SELECT node_id, host, extract(epoch FROM clock_timestamp() - start_time)::float8, takes, stands_by
FROM hub.node WHERE expire_time > clock_timestamp() ORDER BY start_time, node_id
"""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that has recently announced itself; ``age`` is how many seconds it has lived without a
    break. ``takes`` are the tasks that it does if it holds their leases."""

    node_id: str
    host: str
    age: float
    takes: Collection[str]
    stands_by: bool = False

    @property
    def settled(self) -> bool:
        """Whether it is likely to stay."""
        return self.age >= SETTLED


async def read_live_nodes(connection: Connection) -> list[LiveNode]:
    """All live nodes, the oldest first. Raises the driver's errors."""
    return [LiveNode(*row) for row in await connection.fetch(_READ)]


def share_out(nodes: Sequence[LiveNode]) -> Mapping[str, str]:
    """Map each task to the id of the node in whose share it is, except tasks that no node takes."""
    takers = [node for node in nodes if node.takes]
    names = sorted({name for node in takers for name in node.takes})
    room = {node.node_id: -(-len(names) // len(takers)) for node in takers}
    shares: dict[str, str] = {}
    for name in names:
        able = [node.node_id for node in takers if name in node.takes]
        able.sort(key=lambda node_id: _rank_node(name, node_id))
        chosen = next((node_id for node_id in able if room[node_id] > 0), able[0])
        room[chosen] -= 1
        shares[name] = chosen
    return shares


def with_node(own: LiveNode, nodes: Sequence[LiveNode]) -> list[LiveNode]:
    """The nodes, with this node's own state in place of its last announcement."""
    heard = next((node.age for node in nodes if node.node_id == own.node_id), own.age)
    return [replace(own, age=heard), *(node for node in nodes if node.node_id != own.node_id)]


def shares_elsewhere(nodes: Sequence[LiveNode], own_id: str) -> Mapping[str, LiveNode]:
    """Map each task in another node's share to that node; only this and settled nodes count."""
    counted = {n.node_id: n for n in nodes if n.settled or n.node_id == own_id}
    shares = share_out(list(counted.values()))
    return {name: counted[holder] for name, holder in shares.items() if holder != own_id}


def _rank_node(name: str, node_id: str) -> bytes:
    return hashlib.sha256(f"{name}\0{node_id}".encode()).digest()
