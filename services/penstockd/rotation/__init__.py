"""``penstock secret``: rotates the root secret while the hub runs.

First every node gets the new secret beside the old one, and opens with both. Then the store sets
the time from which the new one seals (``switch``). Content that the store keeps sealed is sealed
again at once. Content that others hold can still be opened with the old secret until it has expired
or was used again, and then the old secret is retired (``retire``).
"""
