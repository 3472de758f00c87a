import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  WebhookOptions_Body as Body,
  WebhookOptions_Envelope as Envelope,
  WebhookOptions_Ordering as Ordering,
  WebhookOptions_Signature as Signature,
  WebhookOptionsSchema,
  type Webhook,
  type WebhookSchema,
} from "@gen/penstock/hub/v1/webhooks_pb";
import type { Problem } from "../problem";

/** The selection from one dataset. */
export interface Wanted {
  dataset: string;
  /** Empty means all. */
  operations: readonly string[];
  filter: string;
  fields: string;
  /** The reference to a shape, such as contacts or contacts@2; or empty. */
  shape: string;
}

export interface Header {
  name: string;
  value: string;
}

/** A webhook in a form: numbers are the typed text. */
export interface Draft {
  url: string;
  title: string;
  selections: readonly Wanted[];
  /** Undefined: they stay unchanged, since their values are not shown again. */
  headers: readonly Header[] | undefined;
  envelope: Envelope;
  body: Body;
  thin: boolean;
  ordering: Ordering;
  batchSize: string;
  concurrency: string;
  rate: string;
  retrySeconds: string;
  notices: boolean;
  signature: Signature;
}

export const EMPTY: Draft = {
  url: "",
  title: "",
  selections: [],
  headers: [],
  envelope: Envelope.STANDARD,
  body: Body.JSON,
  thin: false,
  ordering: Ordering.NONE,
  batchSize: "1",
  concurrency: "16",
  rate: "0",
  retrySeconds: "",
  notices: false,
  signature: Signature.HMAC_SHA256,
};

export function draftOf(webhook: Webhook): Draft {
  const options = webhook.options ?? create(WebhookOptionsSchema);
  return {
    ...options,
    url: webhook.url,
    title: webhook.title,
    selections: webhook.selections,
    headers: undefined,
    batchSize: String(options.batchSize),
    concurrency: String(options.concurrency),
    rate: String(options.rate),
    retrySeconds: options.retrySeconds.join(", "),
  };
}

/** The webhook that a draft describes. */
export function webhookOf(draft: Draft): MessageInitShape<typeof WebhookSchema> {
  const { url, title, envelope, body, thin, ordering, notices, signature } = draft;
  return {
    url: url.trim(),
    title: title.trim(),
    selections: draft.selections.map(({ dataset, operations, filter, fields, shape }) => {
      const texts = { filter: filter.trim(), fields: fields.trim(), shape: shape.trim() };
      return { dataset, operations: [...operations], ...texts };
    }),
    headers: Object.fromEntries(
      (draft.headers ?? []).filter(({ name }) => name.trim()).map((h) => [h.name.trim(), h.value]),
    ),
    options: {
      ...{ envelope, body, thin, ordering, notices, signature },
      batchSize: whole(draft.batchSize),
      concurrency: whole(draft.concurrency),
      rate: whole(draft.rate),
      retrySeconds: draft.retrySeconds.split(/[\s,]+/).filter(Boolean).map(whole),
    },
  };
}

/** The fields that an update from a draft changes. */
export function maskOf(draft: Draft): string[] {
  const options = ["envelope", "body", "thin", "ordering", "batch_size", "concurrency", "rate"];
  return [
    ...["title", "url", "selections"],
    ...(draft.headers === undefined ? [] : ["headers"]),
    ...[...options, "retry_seconds", "notices"].map((name) => `options.${name}`),
  ];
}

/** A text that is not a whole number becomes one that the hub refuses and names. */
function whole(text: string): number {
  const number = Number(text);
  return text.trim() && Number.isInteger(number) && Math.abs(number) < 2 ** 31 ? number : -1;
}

/** Field of the form -> the hub's error about it. */
export type Faults = ReadonlyMap<string, string>;

/** The violations by fields of the form, and those that belong to no field. */
export function faultsOf(problem: Problem | undefined, draft: Draft): [Faults, string[]] {
  const faults = new Map<string, string>();
  const others: string[] = [];
  for (const [field, text] of problem?.fields ?? []) {
    const name = field.replace(/^webhook\./, "").replace(/^headers\[.*/s, "headers");
    if (/^(url|title|selections|headers|options)\b/.test(name)) faults.set(name, text);
    else others.push(`${field}: ${text}`);
  }
  // The refusal of a filter is that of a list: it does not name the selection.
  const filtered = draft.selections.flatMap((s, i) => (s.filter.trim() ? [i] : []));
  if (problem?.reason === "FILTER_INVALID" && filtered.length === 1) {
    faults.set(`selections[${filtered[0]}].filter`, problem.message);
  }
  return [faults, others];
}
