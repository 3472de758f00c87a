import { useState } from "react";
import { Webhooks, type Delivery } from "@gen/penstock/hub/v1/webhooks_pb";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { Button } from "../ui/button";
import { TextField } from "../ui/field";
import { PageHead } from "../ui/head";
import { typedTime } from "../ui/time";
import { Shown } from "../ui/told";
import { DeliveryTable } from "./deliveries";

const PAGE = 50;

/** The dead letters of all the user's webhooks. */
export function DeadLetters() {
  const session = useSession();
  const [reason, setReason] = useState("");
  const [since, setSince] = useState("");
  const [pages, setPages] = useState(1);
  const listed = useLoaded(
    async (signal) => {
      const startTime = typedTime(since);
      const deliveries: Delivery[] = [];
      let pageToken = "";
      for (let page = 0; page < pages && (page === 0 || pageToken); page++) {
        const request = {
          reason: reason.trim().toUpperCase(),
          ...(startTime && { startTime }),
          pageSize: PAGE,
          pageToken,
        };
        const reply = await session.client(Webhooks).listDeadLetters(request, { signal });
        deliveries.push(...reply.deliveries);
        pageToken = reply.nextPageToken;
      }
      return { deliveries, next: pageToken };
    },
    [session, reason, since, pages],
  );
  return (
    <>
      <PageHead
        title="Dead letters"
        about="Deliveries of your webhooks that the hub has given up. Send one again from its page, or recover all of a time range on the page of their webhook."
        actions={<Button onClick={listed.again}>Refresh</Button>}
      />
      <div className="filters" role="search" aria-label="Filter the dead letters">
        <TextField
          label="Reason"
          value={reason}
          onChange={setReason}
          input={{ placeholder: "GONE" }}
        />
        <TextField
          label="From"
          value={since}
          onChange={setSince}
          input={{ type: "datetime-local" }}
        />
      </div>
      <Shown of={listed}>
        {({ deliveries, next }) => (
          <>
            <DeliveryTable deliveries={deliveries} empty="No delivery was given up." mixed />
            {next ? <Button onClick={() => setPages(pages + 1)}>Show older</Button> : null}
          </>
        )}
      </Shown>
    </>
  );
}
