"""The subject of an explanation or a preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import RecordNotFound, ValueInvalid, Violation
from penstockd.policy.checks import check_claims
from penstockd.policy.model import Principal


@dataclass(frozen=True, slots=True)
class Subject:
    """A consumer by its id, or anyone with some roles; its claims override the consumer's own."""

    consumer_id: str = ""
    roles: Sequence[str] = ()
    claims: Mapping[str, tuple[str, ...]] | None = None

    def principal(self, call: Call) -> tuple[Principal, bool]:
        """The subject as it would call, and whether it is active.

        Raises RecordNotFound for an unknown consumer or role, ValueInvalid for both or neither.
        """
        claims = dict(self.claims or {})
        check_claims(claims)
        call.asked(consumer_id=self.consumer_id, roles=sorted(self.roles), claims=claims)
        if bool(self.consumer_id) == bool(self.roles):
            text = "give either a consumer_id or roles"
            raise ValueInvalid(text, violations=[Violation("consumer_id", text)])
        if not self.consumer_id:
            for role in self.roles:
                if role not in call.policy.permissions:
                    raise RecordNotFound(f"role '{role}' does not exist")
            return Principal("", "", frozenset(self.roles), claims), True
        consumer = call.policy.consumers.get(self.consumer_id)
        if consumer is None:
            raise RecordNotFound(f"consumer '{self.consumer_id}' does not exist")
        claims = {**consumer.claims, **claims}
        return Principal(self.consumer_id, "", consumer.roles, claims), consumer.active


def find_dataset(catalog: Catalog, call: Call, name: str) -> Dataset:
    """The dataset with a name, which is noted in the audit entry. Raises ValueInvalid."""
    if name not in catalog:
        problem = "is required" if not name else f"there is no dataset '{name}'"
        raise ValueInvalid(f"dataset: {problem}", violations=[Violation("dataset", problem)])
    call.entry.dataset = name
    return catalog[name]
