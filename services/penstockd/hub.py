"""The organs of one process, from which commands take what they need."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstockd.audit.checkpoint import CheckpointFile
from penstockd.audit.journal import Journal
from penstockd.audit.open_streams import OpenStreams
from penstockd.audit.refusals import UnknownCallers
from penstockd.auth.credentials import Credentials
from penstockd.auth.issuers import Issuers
from penstockd.auth.tickets import Tickets
from penstockd.auth.tokens import Tokens
from penstockd.auth.trust import Trust
from penstockd.auth.uses import CredentialUses
from penstockd.calls import Allowance
from penstockd.catalog import Catalog
from penstockd.exports.limits import ExportLimits
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.limits import Streams
from penstockd.keyring import KeyRing
from penstockd.metering.admission import Limiter
from penstockd.observe.monitor import NodeMonitor
from penstockd.policy.snapshot import Policy
from penstockd.query import PageTokens
from penstockd.store.announcements import Announcements
from penstockd.store.database import Database
from penstockd.store.places import Places
from penstockd.store.snapshots import Snapshots
from penstockd.store.states import States
from penstockd.store.writer import Writer
from penstockd.tasks import Tasks
from penstockd.webhooks.desk import WebhookDesk
from penstockd.webhooks.sign_ins import FailedSignIns
from penstockd.writes.arrival import ImportLimits


@dataclass(frozen=True)
class Hub:
    """The organs of one process, made in ``wiring``."""

    ring: KeyRing
    catalog: Catalog
    database: Database
    announcements: Announcements
    policy: Policy
    writer: Writer
    journal: Journal
    open_streams: OpenStreams
    refusals: UnknownCallers
    failed_sign_ins: FailedSignIns
    tokens: Tokens
    issuers: Issuers
    trust: Trust
    credentials: Credentials
    uses: CredentialUses
    page_tokens: PageTokens
    tickets: Tickets
    places: Places
    snapshots: Snapshots
    states: States
    exports: ExportLimits
    imports: ImportLimits
    feed: Broadcast
    streams: Streams
    webhooks: WebhookDesk
    audit_file: CheckpointFile
    public_url: str
    limiter: Limiter
    monitor: NodeMonitor
    tasks: Tasks = field(default_factory=Tasks)
    allowance: Allowance | None = None
