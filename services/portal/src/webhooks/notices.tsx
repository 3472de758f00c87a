import { useState } from "react";
import { Webhooks, type Notice } from "@gen/penstock/hub/v1/webhooks_pb";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { href } from "../place";
import { Button } from "../ui/button";
import { PageHead } from "../ui/head";
import { Table, type Column } from "../ui/table";
import { When } from "../ui/time";
import { Shown } from "../ui/told";

const COLUMNS: ReadonlyArray<Column<Notice>> = [
  { title: "Time", cell: (notice) => <When at={notice.createTime} /> },
  { title: "Type", cell: (notice) => notice.type },
  {
    title: "Webhook",
    cell: (notice) => <a href={href("webhooks", notice.webhookId)}>{notice.webhookId}</a>,
  },
  { title: "About", cell: (notice) => about(notice) },
];

/** The hub's notices about the webhooks, such as one that fails for days or was disabled. */
export function Notices() {
  const session = useSession();
  const [pages, setPages] = useState(1);
  const listed = useLoaded(
    async (signal) => {
      const notices: Notice[] = [];
      let pageToken = "";
      for (let page = 0; page < pages && (page === 0 || pageToken); page++) {
        const reply = await session.client(Webhooks).listNotices({ pageToken }, { signal });
        notices.push(...reply.notices);
        pageToken = reply.nextPageToken;
      }
      return { notices, next: pageToken };
    },
    [session, pages],
  );
  return (
    <>
      <PageHead
        title="Notices"
        about="What happened to your webhooks: one fails, or was disabled. Webhooks with the option for notices receive them as events, too."
        actions={<Button onClick={listed.again}>Refresh</Button>}
      />
      <Shown of={listed}>
        {({ notices, next }) => (
          <>
            <Table
              caption="Notices, the newest first"
              columns={COLUMNS}
              rows={notices}
              name={(notice) => `${notice.webhookId} ${notice.createTime?.seconds} ${notice.type}`}
              empty={<p>There are no notices.</p>}
            />
            {next ? <Button onClick={() => setPages(pages + 1)}>Show older</Button> : null}
          </>
        )}
      </Shown>
    </>
  );
}

function about(notice: Notice): string {
  return Object.entries(notice.data ?? {})
    .filter(([name]) => name !== "webhookId")
    .map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}
