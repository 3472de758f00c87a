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
from penstockd.store.singleton_rows import Holder

#: Seconds that a node must live without a break before it is handed the tasks of its share, and
#: seconds before a task that was handed over and came back is handed over again.
SETTLED = 15.0
#: Seconds for which a task that nobody holds is reserved for the node in whose share it is.
HEAD_START = 2.0

_READ = """
SELECT node_id, instance, host, extract(epoch FROM clock_timestamp() - start_time)::float8, takes,
       stands_by, twin, root_secret_ids
FROM hub.node WHERE expire_time > clock_timestamp() ORDER BY start_time, node_id, instance
"""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that has recently announced itself; ``age`` is how many seconds it has lived without a
    break. ``takes`` are the tasks that it does if it holds their leases. ``twin`` is the host of
    another live node with the same id, if there is one. ``secrets`` are the ids of the root secrets
    that it knows."""

    node_id: str
    instance: str
    host: str
    age: float
    takes: Collection[str]
    stands_by: bool = False
    twin: str = ""
    secrets: Collection[str] = ()

    @property
    def holder(self) -> Holder:
        """The node as a holder of leases."""
        return Holder(self.node_id, self.instance)

    @property
    def settled(self) -> bool:
        """Whether it is likely to stay."""
        return self.age >= SETTLED


async def read_live_nodes(connection: Connection) -> list[LiveNode]:
    """All live nodes, the oldest first. Raises the driver's errors."""
    return [LiveNode(*row) for row in await connection.fetch(_READ)]


def share_out(nodes: Sequence[LiveNode]) -> Mapping[str, Holder]:
    """Map each task to the node in whose share it is, except tasks that no node takes."""
    takers = [node for node in nodes if node.takes]
    names = sorted({name for node in takers for name in node.takes})
    room = {node.holder: -(-len(names) // len(takers)) for node in takers}
    shares: dict[str, Holder] = {}
    for name in names:
        able = [node.holder for node in takers if name in node.takes]
        able.sort(key=lambda holder: _rank_node(name, holder))
        chosen = next((holder for holder in able if room[holder] > 0), able[0])
        room[chosen] -= 1
        shares[name] = chosen
    return shares


def with_node(own: LiveNode, nodes: Sequence[LiveNode]) -> list[LiveNode]:
    """The nodes, with this node's own state in place of its last announcement."""
    heard = next((node.age for node in nodes if node.holder == own.holder), own.age)
    return [replace(own, age=heard), *(node for node in nodes if node.holder != own.holder)]


def shares_elsewhere(nodes: Sequence[LiveNode], own: Holder) -> Mapping[str, LiveNode]:
    """Map each task in another node's share to that node; only this and settled nodes count."""
    counted = {n.holder: n for n in nodes if n.settled or n.holder == own}
    shares = share_out(list(counted.values()))
    return {name: counted[holder] for name, holder in shares.items() if holder != own}


def _rank_node(name: str, holder: Holder) -> tuple[bytes, str]:
    """By the node's id, which a restart does not change; the instance tells twins apart."""
    return hashlib.sha256(f"{name}\0{holder.node_id}".encode()).digest(), holder.instance
