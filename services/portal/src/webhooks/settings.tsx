import type { Webhook, WebhookSecret } from "@gen/penstock/hub/v1/webhooks_pb";
import { WebhookOptions_Signature as Signature } from "@gen/penstock/hub/v1/webhooks_pb";
import { Table, type Column } from "../ui/table";
import { spanOf, When } from "../ui/time";
import { Facts } from "../ui/told";
import { ENVELOPES, BODIES, ORDERINGS, SIGNATURES, wordOf } from "./options";
import { eventsOf, placeOf } from "./words";

/** The settings of a webhook, and its secrets without their values. */
export function Settings({ webhook }: { webhook: Webhook }) {
  const { options } = webhook;
  return (
    <section aria-labelledby="settings">
      <h2 id="settings">Settings</h2>
      <Facts
        of={[
          ["Destination", <span className="breaking">{placeOf(webhook)}</span>],
          ["Owner", webhook.consumerId],
          ["Events", <Selections webhook={webhook} />],
          ["Headers", Object.keys(webhook.headers).join(", ") || "–"],
          ["Envelope", wordOf(ENVELOPES, options?.envelope)],
          ["Body", wordOf(BODIES, options?.body)],
          ["Thin", options?.thin ? "yes: the record's key, not its fields" : "no"],
          ["Batch", `${options?.batchSize ?? 1} at most`],
          ["Ordering", wordOf(ORDERINGS, options?.ordering)],
          ["Concurrency", `${options?.concurrency ?? 0} messages in flight at one time`],
          ["Rate", options?.rate ? `${options.rate} a second` : "no limit"],
          ["Retries after", (options?.retrySeconds ?? []).map(spanOf).join(", ")],
          ["Notices of other webhooks", options?.notices ? "yes" : "no"],
          ["Scopes", webhook.scopes.join(" ") || "–"],
          ["Created", <When at={webhook.createTime} />],
          ["Changed", <When at={webhook.updateTime} />],
        ]}
      />
      <h2>Secrets</h2>
      <Table
        caption="Secrets that sign, the newest first"
        columns={SECRETS}
        rows={webhook.secrets}
        name={(secret) => secret.secretId}
        empty={<p>There are no secrets.</p>}
      />
    </section>
  );
}

const SECRETS: ReadonlyArray<Column<WebhookSecret>> = [
  { title: "Secret", cell: (secret) => <code>{secret.secretId}</code> },
  { title: "Signature", cell: (secret) => wordOf(SIGNATURES, secret.signature) },
  {
    title: "Public key",
    cell: (secret) =>
      secret.signature === Signature.ED25519 ? (
        <code className="breaking">{secret.publicKey}</code>
      ) : (
        "–"
      ),
  },
  { title: "Created", cell: (secret) => <When at={secret.createTime} /> },
  {
    title: "Signs until",
    cell: (secret) =>
      secret.expireTime === undefined ? "it is rotated" : <When at={secret.expireTime} />,
  },
];

function Selections({ webhook }: { webhook: Webhook }) {
  return (
    <>
      {webhook.selections.map((selection) => (
        <div key={selection.dataset}>
          {selection.dataset}: {eventsOf(selection.operations)}
          {selection.filter ? (
            <>
              {" where "}
              <code>{selection.filter}</code>
            </>
          ) : null}
          {selection.fields ? (
            <>
              {", only "}
              <code>{selection.fields}</code>
            </>
          ) : null}
          {selection.shape ? (
            <>
              {", in the shape "}
              <code>{selection.shape}</code>
            </>
          ) : null}
        </div>
      ))}
    </>
  );
}
