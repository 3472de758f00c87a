import {
  WebhookOptions_Body as Body,
  WebhookOptions_Envelope as Envelope,
  WebhookOptions_Ordering as Ordering,
  WebhookOptions_Signature as Signature,
} from "@gen/penstock/hub/v1/webhooks_pb";

type Choices<T> = ReadonlyArray<readonly [T, string]>;

export const ENVELOPES: Choices<Envelope> = [
  [Envelope.STANDARD, "Standard Webhooks"],
  [Envelope.CLOUDEVENTS_STRUCTURED, "CloudEvents 1.0, one document"],
  [Envelope.CLOUDEVENTS_BINARY, "CloudEvents 1.0, in headers"],
];

export const BODIES: Choices<Body> = [
  [Body.JSON, "JSON"],
  [Body.XML, "XML"],
];

export const ORDERINGS: Choices<Ordering> = [
  [Ordering.NONE, "none: as fast as possible"],
  [Ordering.KEY, "by record: one after another"],
];

export const SIGNATURES: Choices<Signature> = [
  [Signature.HMAC_SHA256, "HMAC-SHA256, a shared secret (v1)"],
  [Signature.ED25519, "Ed25519, a public key (v1a)"],
];

export function wordOf<T>(choices: Choices<T>, value: T | undefined): string {
  return choices.find(([choice]) => choice === value)?.[1] ?? "–";
}
