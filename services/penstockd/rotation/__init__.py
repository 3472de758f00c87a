"""``penstock secret``: the root secret is rotated while the hub runs.

First every node is given the new secret beside the old one, and opens with both. Then the store
says from when on the new one seals (``switch``). What the store keeps sealed is sealed again at
once; what others hold goes on being opened with the old secret until it has ended or was used
again, and then the old one is retired (``retire``).
"""
