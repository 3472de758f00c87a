"""Whether a stream's Views are still those that it began with."""

from __future__ import annotations

from penstockd.commands.context import Call, Hub
from penstockd.errors import ViewChanged
from penstockd.feed.source import Source
from penstockd.policy.lens import Lens
from penstockd.policy.standing import Standing
from penstockd.store.subscriptions import Terms


class Sight:
    """The Views of a subscription's source, against what the policy says by now."""

    def __init__(self, hub: Hub, call: Call, source: Source, terms: Terms) -> None:
        assert call.principal is not None, "the auth interceptor lets nobody in without one"
        self._hub, self._terms = hub, terms
        self._standings = [
            (Standing(hub.policy, call.policy, call.principal, lens.view), lens)
            for lens in source.lenses.values()
        ]

    def check(self) -> int:
        """The policy's revision, by which all is as it was.

        Raises AccessRevoked, AccessChanged, ViewChanged and PolicyStale.
        """
        revision = self._hub.policy.current.revision
        for standing, lens in self._standings:
            standing.check()
            if standing.view is not lens.view:
                terms = self._terms
                now = Lens(
                    standing.view, self._hub.catalog, fields=terms.fields, filter=terms.filter
                )
                if now.view_id != lens.view_id:
                    raise ViewChanged(f"what you may see of {lens.dataset.name} has changed")
        return revision
