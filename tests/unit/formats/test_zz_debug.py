import hashlib
from penstock.client.canonical import canonical
from .test_digest import sample, digests, messages, writable
async def test_dbg(shelf, things):
    fields, rows = writable(things), sample(things, 400)
    await shelf.fill(rows, fields)
    found = await digests(shelf, fields)
    bad = [r for (k, d), m, r in zip(found, messages(things, fields, rows), rows) if d != hashlib.sha256(canonical(m)).digest()]
    print("BAD", len(bad))
    row = bad[0]
    async def differs(some):
        picked = [row[fields.index(x)] for x in some]
        await shelf.fill([picked], some)
        ((k, d),) = await digests(shelf, some)
        return d != hashlib.sha256(canonical(messages(things, some, [picked])[0])).digest()
    some = fields
    for f in fields:
        less = tuple(x for x in some if x is not f)
        if f is not things.key and await differs(less):
            some = less
    picked = [row[fields.index(x)] for x in some]
    print("MIN", [f.path for f in some], picked, canonical(messages(things, some, [picked])[0]))
