/**
 * Deliveries of Penstock's webhooks, verified in one call:
 *
 *     import { verify } from "./webhooks.ts";
 *
 *     const event = await verify(request.headers, await request.text(), "whsec_…");
 *
 * It depends on WebCrypto alone, and so runs in Node 18 or newer, Deno, Bun, browsers and workers.
 */

/** How far the clocks of sender and receiver may differ, in seconds. */
export const TOLERANCE = 300;

/** Bytes of an Ed25519 public key. */
const PUBLIC_BYTES = 32;

/** A delivery did not come from the hub, or is not recent; the message tells which. */
export class VerificationFailed extends Error {
  override name = "VerificationFailed";
}

/** Headers in the form of `fetch`, Node's `http` or a plain object. */
export type HeadersLike =
  | { get(name: string): string | null }
  | Record<string, string | string[] | undefined>;

/** `tolerance` is in seconds; `now` is in seconds since 1970, by default the current time. */
export interface Options {
  tolerance?: number;
  now?: number;
}

/**
 * The event of a delivery, parsed if it is JSON, otherwise as text.
 *
 * `body` is the request's body, byte for byte. `secret` is the `whsec_…` or `whpk_…` that the hub
 * issued. Throws VerificationFailed if no signature matches or the timestamp is too far from now,
 * and TypeError if the secret is malformed. Whatever headers and body contain, they cause no other
 * errors.
 * A runtime without Ed25519 throws its NotSupportedError for a `whpk_…`.
 */
export async function verify(
  headers: HeadersLike,
  body: string | Uint8Array,
  secret: string,
  options: Options = {},
): Promise<unknown> {
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature");
  if (!/^[0-9]{1,15}$/.test(timestamp)) {
    throw new VerificationFailed("the timestamp is not a number");
  }
  const now = options.now ?? Date.now() / 1000;
  if (Math.abs(now - Number(timestamp)) > (options.tolerance ?? TOLERANCE)) {
    throw new VerificationFailed("the timestamp is too far from now");
  }
  const data = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const content = new Uint8Array(head.length + data.length);
  content.set(head);
  content.set(data, head.length);
  if (!(await signed(content, signatures, secret))) {
    throw new VerificationFailed("no signature matches");
  }
  const text = new TextDecoder().decode(data);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function signed(content: Uint8Array, signatures: string, secret: string): Promise<boolean> {
  const [kind, text] = split(secret, "_");
  const raw = decoded(text);
  const usable = kind === "whpk" ? raw?.length === PUBLIC_BYTES : kind === "whsec";
  if (raw === undefined || !usable) {
    throw new TypeError("the secret is not whsec_… or whpk_… and base64");
  }
  const version = kind === "whsec" ? "v1" : "v1a";
  const subtle = globalThis.crypto?.subtle ?? (await import("node:crypto")).webcrypto.subtle;
  const algorithm = kind === "whsec" ? { name: "HMAC", hash: "SHA-256" } : { name: "Ed25519" };
  const key = await subtle.importKey("raw", raw, algorithm, false, ["verify"]);
  let fits = false;
  for (const one of signatures.split(" ")) {
    const [given, signature] = split(one, ",");
    const bytes = given === version ? decoded(signature) : undefined;
    if (bytes !== undefined && (await subtle.verify(algorithm.name, key, bytes, content))) {
      fits = true;
    }
  }
  return fits;
}

function header(headers: HeadersLike, name: string): string {
  let found: string | string[] | null | undefined;
  if (typeof (headers as { get?: unknown }).get === "function") {
    found = (headers as { get(name: string): string | null }).get(name);
  } else {
    const entries = Object.entries(headers as Record<string, string | string[] | undefined>);
    found = entries.find(([key]) => key.toLowerCase() === name)?.[1];
  }
  if (typeof found !== "string") {
    throw new VerificationFailed(`there is no ${name}`);
  }
  return found;
}

function split(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

function decoded(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text) || text.length % 4 !== 0) {
    return undefined;
  }
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
