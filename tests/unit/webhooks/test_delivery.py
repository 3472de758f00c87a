"""From the log to the receiver: what arrives, how it is signed, and what becomes of it."""

from __future__ import annotations

import json

from standardwebhooks import Webhook as Verifier

from webhook_rig import START, Receiver, Rig, customer


async def test_a_change_arrives_signed(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1", name="Ada")))
    assert await rig.deliver() == 1
    (request,) = receiver.requests
    # The timestamp is that of the test's clock, which the verifier has no tolerance for.
    verifier = Verifier(rig.keys[name].text)
    expected = verifier.sign(request.id, START, request.body.decode())
    assert request.headers["webhook-signature"] == expected
    event = json.loads(request.body)
    assert event["type"] == "customer.created"
    assert event["data"]["record"]["customerId"] == "c1"
    assert event["data"]["record"]["name"] == "Ada"
    assert "previousRevision" not in event["data"]
    assert await rig.states(name) == [("DELIVERED", "")]
