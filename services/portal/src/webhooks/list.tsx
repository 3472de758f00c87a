import { Code, ConnectError } from "@connectrpc/connect";
import { useState } from "react";
import { Webhooks, type Webhook, type WebhookMetrics } from "@gen/penstock/hub/v1/webhooks_pb";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { href } from "../place";
import type { Session } from "../session";
import { Button } from "../ui/button";
import { Check } from "../ui/field";
import { PageHead } from "../ui/head";
import { Table, type Column } from "../ui/table";
import { Shown } from "../ui/told";
import { span } from "../ui/time";
import { eventsOf, nameOf, percent, placeOf, WebhookBadge } from "./words";

/** The number of webhooks whose figures are requested at once. */
const PAGE = 50;

interface Row {
  webhook: Webhook;
  metrics: WebhookMetrics | undefined;
}

interface Listed {
  rows: readonly Row[];
  next: string;
}

export function WebhookList() {
  const session = useSession();
  const [everybody, setEverybody] = useState(false);
  const [pages, setPages] = useState(1);
  const listed = useLoaded(
    (signal) => list(session, everybody, pages, signal),
    [session, everybody, pages],
  );
  return (
    <>
      <PageHead
        title="Webhooks"
        about="A webhook posts changes of the records that you may see to a URL. The hub signs each message, tries again for days, and can send it once more later."
        actions={
          <>
            <Button onClick={listed.again} busy={listed.busy}>
              Refresh
            </Button>
            {session.permits("webhooks.write") ? (
              <a className="button primary" href={href("webhooks", "new")}>
                New webhook
              </a>
            ) : null}
          </>
        }
      />
      {session.permits("access.write") ? (
        <Check
          label="Webhooks of all consumers"
          checked={everybody}
          onChange={(checked) => {
            setEverybody(checked);
            setPages(1);
          }}
        />
      ) : null}
      <Shown of={listed}>
        {({ rows, next }) => (
          <>
            <Table
              caption="Webhooks, with figures of the last 24 hours"
              columns={columns(everybody)}
              rows={rows}
              name={(row) => row.webhook.webhookId}
              empty={<Nothing />}
            />
            {next ? <Button onClick={() => setPages(pages + 1)}>Show more</Button> : null}
          </>
        )}
      </Shown>
    </>
  );
}

function Nothing() {
  return (
    <>
      <p>There are no webhooks yet.</p>
      <p className="quiet">
        Create one for a URL, or receive events on your own machine with{" "}
        <code>penstock webhooks listen --forward-to http://localhost:3000</code>
      </p>
    </>
  );
}

async function list(
  session: Session,
  everybody: boolean,
  pages: number,
  signal: AbortSignal,
): Promise<Listed> {
  const found: Webhook[] = [];
  let pageToken = "";
  for (let page = 0; page < pages && (page === 0 || pageToken); page++) {
    const request = { everybody, pageSize: PAGE, pageToken };
    const reply = await session.client(Webhooks).listWebhooks(request, { signal });
    found.push(...reply.webhooks);
    pageToken = reply.nextPageToken;
  }
  const rows = await Promise.all(
    found.map(async (webhook) => ({ webhook, metrics: await figures(session, webhook, signal) })),
  );
  return { rows, next: pageToken };
}

/** Undefined for a webhook that was deleted meanwhile. */
async function figures(
  session: Session,
  webhook: Webhook,
  signal: AbortSignal,
): Promise<WebhookMetrics | undefined> {
  const { webhookId } = webhook;
  try {
    return await session.client(Webhooks).getWebhookMetrics({ webhookId }, { signal });
  } catch (error) {
    if (ConnectError.from(error).code === Code.NotFound) return undefined;
    throw error;
  }
}

function columns(everybody: boolean): ReadonlyArray<Column<Row>> {
  const owner: Column<Row> = { title: "Consumer", cell: ({ webhook }) => webhook.consumerId };
  return [
    { title: "Webhook", cell: ({ webhook }) => <Name webhook={webhook} /> },
    ...(everybody ? [owner] : []),
    { title: "State", cell: ({ webhook }) => <WebhookBadge webhook={webhook} /> },
    { title: "Events", cell: ({ webhook }) => <Events webhook={webhook} /> },
    { title: "Success", numeric: true, cell: ({ metrics }) => percent(metrics?.successRate) },
    {
      title: "Oldest undelivered",
      numeric: true,
      cell: ({ metrics }) => span(metrics?.oldestAge),
    },
    { title: "Dead", numeric: true, cell: ({ metrics }) => String(metrics?.deadCount ?? "–") },
  ];
}

function Name({ webhook }: { webhook: Webhook }) {
  return (
    <>
      <a className="strong" href={href("webhooks", webhook.webhookId)}>
        {nameOf(webhook)}
      </a>
      {webhook.title ? <div className="quiet breaking">{placeOf(webhook)}</div> : null}
    </>
  );
}

function Events({ webhook }: { webhook: Webhook }) {
  return (
    <>
      {webhook.selections.map((selection) => (
        <div key={selection.dataset}>
          {selection.dataset} <span className="quiet">{eventsOf(selection.operations)}</span>
        </div>
      ))}
    </>
  );
}
