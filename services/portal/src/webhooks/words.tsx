import {
  Delivery_State,
  Webhook_Kind,
  Webhook_State,
  type Delivery,
  type Webhook,
} from "@gen/penstock/hub/v1/webhooks_pb";
import { Badge } from "../ui/badge";

const WEBHOOK_STATES = {
  [Webhook_State.STATE_UNSPECIFIED]: ["unknown", "muted"],
  [Webhook_State.ACTIVE]: ["active", "good"],
  [Webhook_State.PAUSED]: ["paused", "muted"],
  [Webhook_State.DISABLED]: ["disabled", "bad"],
} as const;

const DELIVERY_STATES = {
  [Delivery_State.STATE_UNSPECIFIED]: ["unknown", "muted"],
  [Delivery_State.PENDING]: ["pending", "waiting"],
  [Delivery_State.SENDING]: ["sending", "waiting"],
  [Delivery_State.PARKED]: ["parked", "waiting"],
  [Delivery_State.DELIVERED]: ["delivered", "good"],
  [Delivery_State.DEAD]: ["dead", "bad"],
} as const;

/** The states of deliveries that a list can be narrowed to. */
export const DELIVERY_CHOICES: ReadonlyArray<readonly [Delivery_State, string]> = [
  [Delivery_State.STATE_UNSPECIFIED, "any"],
  [Delivery_State.PENDING, "pending"],
  [Delivery_State.SENDING, "sending"],
  [Delivery_State.PARKED, "parked"],
  [Delivery_State.DELIVERED, "delivered"],
  [Delivery_State.DEAD, "dead"],
];

export function WebhookBadge({ webhook }: { webhook: Webhook }) {
  const failing = webhook.state === Webhook_State.ACTIVE && webhook.failingTime !== undefined;
  const [word, tone] = failing ? (["failing", "bad"] as const) : WEBHOOK_STATES[webhook.state];
  return <Badge tone={tone}>{word}</Badge>;
}

export function DeliveryBadge({ delivery }: { delivery: Delivery }) {
  const [word, tone] = DELIVERY_STATES[delivery.state];
  return <Badge tone={tone}>{word}</Badge>;
}

/** The name of a webhook without a title. */
export function nameOf(webhook: Webhook): string {
  return webhook.title || placeOf(webhook);
}

export function placeOf(webhook: Webhook): string {
  return webhook.kind === Webhook_Kind.LISTEN ? "penstock webhooks listen" : webhook.url;
}

export function eventsOf(operations: readonly string[]): string {
  return operations.length === 0 ? "all events" : operations.join(", ").replaceAll("_", " ");
}

export function percent(rate: number | undefined): string {
  if (rate === undefined) return "–";
  // Rounded down, so that one failure among thousands still shows.
  return `${Math.floor(rate * 1000) / 10} %`;
}

/** Whether a delivery changes by itself within a minute. */
export function isMoving(delivery: Delivery): boolean {
  if (delivery.state === Delivery_State.SENDING) return true;
  if (delivery.state !== Delivery_State.PENDING) return false;
  const next = delivery.nextTime;
  return next === undefined || Number(next.seconds) * 1000 < Date.now() + 60_000;
}
