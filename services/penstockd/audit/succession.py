"""Decides which keys to trust for which checkpoints, after a rotation of the root secret.

The last checkpoint of the earlier key (ROTATE) states the next key. So a verifier that trusts the
earlier key trusts the next one from then on. A verifier that trusts only the next key trusts
everything up to that checkpoint: the next key signed a checkpoint that names it by digest, and it
names all before it. A key that has handed over is trusted for nothing later, whoever has its secret
then.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from penstockd.audit.checkpoint import Checkpoint, CheckpointKind

#: A number that no checkpoint has.
_NO_END = 2**63


def trust_keys(
    keys: Collection[bytes], checkpoints: Sequence[Checkpoint], witnesses: Iterable[Checkpoint]
) -> Mapping[bytes, int]:
    """Each trusted key, with the number of the last checkpoint for which it is trusted.

    ``witnesses`` are checkpoints from elsewhere. They may state the next key, but do not end the
    trust in the previous one: a restore may have undone what they state.
    """
    own = {c.digest for c in checkpoints}
    known = {c.digest: c for c in (*checkpoints, *witnesses)}
    # A key that hands over to itself hands over nothing.
    rotations = [
        c
        for c in known.values()
        if c.kind is CheckpointKind.ROTATE and c.hash != c.public_key and c.signed_by(c.public_key)
    ]
    named = {(c.previous, c.public_key): c for c in known.values()}
    trusted = dict.fromkeys(keys, _NO_END)
    before: Mapping[bytes, int] = {}
    while before != trusted:
        before = dict(trusted)
        for rotation in rotations:
            earlier, later = rotation.public_key, rotation.hash
            if rotation.number <= trusted.get(earlier, -1):
                trusted.setdefault(later, _NO_END)
                if rotation.digest in own:
                    trusted[earlier] = rotation.number
            elif earlier not in trusted and later in trusted:
                follower = named.get((rotation.digest, later))
                if follower is not None and follower.signed_by(later):
                    trusted[earlier] = rotation.number
    return trusted
