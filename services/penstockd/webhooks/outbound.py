"""What webhooks need of a worker."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.egress import EgressGuard
from penstockd.webhooks.signing import Seal


@dataclass(frozen=True, slots=True)
class Outbound:
    """What webhooks need of a worker: the seal of their secrets, and where they may lead."""

    seal: Seal
    guard: EgressGuard
