import { useState } from "react";
import {
  Webhooks,
  Delivery_State,
  type Delivery,
  type ListDeliveriesResponse,
} from "@gen/penstock/hub/v1/webhooks_pb";
import { useSession } from "../current";
import { useLoaded, useWatching } from "../loading";
import { href } from "../place";
import type { Session } from "../session";
import { Button } from "../ui/button";
import { Choice, TextField } from "../ui/field";
import { Table, type Column } from "../ui/table";
import { Shown } from "../ui/told";
import { typedTime, When } from "../ui/time";
import { DELIVERY_CHOICES, DeliveryBadge, isMoving } from "./words";

const PAGE = 50;

interface Wanted {
  state: Delivery_State;
  reason: string;
  eventType: string;
  key: string;
  since: string;
  until: string;
}

const ALL: Wanted = {
  state: Delivery_State.STATE_UNSPECIFIED,
  reason: "",
  eventType: "",
  key: "",
  since: "",
  until: "",
};

interface Props {
  id: string;
  /** Whether pending deliveries are being sent, and so change. */
  sending: boolean;
  /** A change of this value reloads the list. */
  round: number;
}

/** The deliveries of a webhook, newest first, with filters. */
export function Deliveries({ id, sending, round }: Props) {
  const session = useSession();
  const [wanted, setWanted] = useState(ALL);
  const [pages, setPages] = useState(1);
  const listed = useLoaded(
    (signal) => list(session, id, wanted, pages, signal),
    [session, id, wanted, pages, round],
  );
  useWatching(sending && (listed.value?.deliveries.some(isMoving) ?? false), listed.again);
  const narrow = (changed: Partial<Wanted>): void => {
    setWanted({ ...wanted, ...changed });
    setPages(1);
  };
  return (
    <section aria-labelledby="deliveries">
      <div className="head">
        <h2 id="deliveries">Deliveries</h2>
        <Button onClick={listed.again}>Refresh</Button>
      </div>
      <Filters wanted={wanted} narrow={narrow} />
      <Shown of={listed}>
        {({ deliveries, nextPageToken }) => (
          <>
            <DeliveryTable deliveries={deliveries} empty="No delivery matches." />
            {nextPageToken ? <Button onClick={() => setPages(pages + 1)}>Show older</Button> : null}
          </>
        )}
      </Shown>
    </section>
  );
}

function Filters(props: { wanted: Wanted; narrow: (changed: Partial<Wanted>) => void }) {
  const { wanted, narrow } = props;
  return (
    <div className="filters" role="search" aria-label="Filter the deliveries">
      <Choice
        label="State"
        value={wanted.state}
        choices={DELIVERY_CHOICES}
        onChange={(state) => narrow({ state })}
      />
      <TextField
        label="Event type"
        value={wanted.eventType}
        onChange={(eventType) => narrow({ eventType })}
        input={{ placeholder: "customer.created" }}
      />
      <TextField
        label="Reason"
        value={wanted.reason}
        onChange={(reason) => narrow({ reason })}
        input={{ placeholder: "STATUS" }}
      />
      <TextField label="Record" value={wanted.key} onChange={(key) => narrow({ key })} />
      <TextField
        label="From"
        value={wanted.since}
        onChange={(since) => narrow({ since })}
        input={{ type: "datetime-local" }}
      />
      <TextField
        label="Before"
        value={wanted.until}
        onChange={(until) => narrow({ until })}
        input={{ type: "datetime-local" }}
      />
    </div>
  );
}

async function list(
  session: Session,
  webhookId: string,
  wanted: Wanted,
  pages: number,
  signal: AbortSignal,
): Promise<Pick<ListDeliveriesResponse, "deliveries" | "nextPageToken">> {
  const { state, since, until } = wanted;
  const [startTime, endTime] = [typedTime(since), typedTime(until)];
  const deliveries: Delivery[] = [];
  let pageToken = "";
  for (let page = 0; page < pages && (page === 0 || pageToken); page++) {
    const reply = await session.client(Webhooks).listDeliveries(
      {
        webhookId,
        state,
        reason: wanted.reason.trim().toUpperCase(),
        eventType: wanted.eventType.trim(),
        key: wanted.key.trim(),
        ...(startTime && { startTime }),
        ...(endTime && { endTime }),
        pageSize: PAGE,
        pageToken,
      },
      { signal },
    );
    deliveries.push(...reply.deliveries);
    pageToken = reply.nextPageToken;
  }
  return { deliveries, nextPageToken: pageToken };
}

interface TableProps {
  deliveries: readonly Delivery[];
  empty: string;
  /** Whether they belong to several webhooks. */
  mixed?: boolean;
}

export function DeliveryTable({ deliveries, empty, mixed = false }: TableProps) {
  return (
    <Table
      caption="Deliveries, the newest first"
      columns={columns(mixed)}
      rows={deliveries}
      name={(delivery) => delivery.deliveryId}
      empty={<p>{empty}</p>}
    />
  );
}

function columns(mixed: boolean): ReadonlyArray<Column<Delivery>> {
  const webhook: Column<Delivery> = {
    title: "Webhook",
    cell: (d) => <a href={href("webhooks", d.webhookId)}>{d.webhookId}</a>,
  };
  return [
    {
      title: "Delivery",
      cell: (d) => (
        <a className="mono" href={href("webhooks", d.webhookId, "deliveries", d.deliveryId)}>
          {d.deliveryId}
        </a>
      ),
    },
    ...(mixed ? [webhook] : []),
    { title: "Event", cell: (d) => <Event delivery={d} /> },
    { title: "State", cell: (d) => <DeliveryBadge delivery={d} /> },
    { title: "Reason", cell: (d) => d.reason || "–" },
    { title: "Attempts", numeric: true, cell: (d) => d.attemptCount },
    { title: "Queued", cell: (d) => <When at={d.createTime} /> },
    { title: "Next try", cell: (d) => <When at={d.nextTime} /> },
  ];
}

function Event({ delivery }: { delivery: Delivery }) {
  const many = delivery.eventCount > 1 ? `${delivery.eventCount} events` : "";
  const cause = delivery.cause === "EVENT" ? "" : delivery.cause.toLowerCase();
  const more = [delivery.key, many, cause].filter(Boolean).join(" · ");
  return (
    <>
      {delivery.eventType}
      {more ? <div className="quiet breaking">{more}</div> : null}
    </>
  );
}
