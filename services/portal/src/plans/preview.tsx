import { Limits } from "@gen/penstock/hub/v1/plans_pb";
import type { Session } from "../session";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { bytes, count } from "../ui/numbers";
import { Table, type Column } from "../ui/table";
import { Shown } from "../ui/told";
import { listConsumers } from "./consumer_list";
import type { Difference, LimitsDraft } from "./draft";

const COLUMNS: ReadonlyArray<Column<Difference>> = [
  { title: "Part", cell: (found) => <strong>{found.part}</strong> },
  { title: "Before", cell: (found) => found.before ? <del>{found.before}</del> : "–" },
  { title: "After", cell: (found) => found.after ? <ins>{found.after}</ins> : "–" },
];

/** What differs between before and after. */
export function Differences({ of, empty }: { of: readonly Difference[]; empty: string }) {
  return (
    <Table
      caption="What changes"
      columns={COLUMNS}
      rows={of}
      name={(found) => found.part}
      empty={<p>{empty}</p>}
    />
  );
}

interface Affected {
  consumerId: string;
  title: string;
  /** Quotas of the draft that it has used up already. */
  over: readonly string[];
}

/** Consumers whose use is compared with the new quotas: more would be many calls. */
const COMPARED = 20;

const AFFECTED: ReadonlyArray<Column<Affected>> = [
  { title: "Consumer", cell: ({ consumerId }) => <strong>{consumerId}</strong> },
  { title: "Title", cell: ({ title }) => title || "–" },
  {
    title: "Already over the new quotas",
    cell: ({ over }) => (over.length > 0 ? <span className="warning">{over.join("; ")}</span> : "no"),
  },
];

/** The consumers on a plan, and which of them the draft would stop at once. */
export function AffectedConsumers({ plan, draft }: { plan: string; draft: LimitsDraft }) {
  const session = useSession();
  const loaded = useLoaded(
    async (signal) => findAffected(session, plan, draft, signal),
    [session, plan, draft],
  );
  if (!session.permits("access.read")) {
    return (
      <p className="note">
        Which consumers have this plan is shown with the permission <code>access.read</code>.
      </p>
    );
  }
  return (
    <Shown of={loaded}>
      {(found) => (
        <Table
          caption={
            found.length === 1 ? "1 consumer is affected" : `${found.length} consumers are affected`
          }
          columns={AFFECTED}
          rows={found}
          name={({ consumerId }) => consumerId}
          empty={<p>No consumer has this plan: nobody is affected.</p>}
        />
      )}
    </Shown>
  );
}

async function findAffected(
  session: Session,
  plan: string,
  draft: LimitsDraft,
  signal: AbortSignal,
): Promise<readonly Affected[]> {
  if (!session.permits("access.read")) return [];
  const consumers = (await listConsumers(session, signal)).filter((found) => found.plan === plan);
  return Promise.all(
    consumers.map(async ({ consumerId, title }, i) => ({
      consumerId,
      title,
      over: i < COMPARED ? await findOver(session, consumerId, draft, signal) : [],
    })),
  );
}

/** Only what is counted today can be compared: quotas that are new begin with nothing used. */
async function findOver(
  session: Session,
  consumer: string,
  draft: LimitsDraft,
  signal: AbortSignal,
): Promise<string[]> {
  const { limits } = await session.client(Limits).getLimits({ consumer }, { signal });
  const used = new Map(limits.map((limit) => [limit.name, limit.used]));
  return draft.quotas.flatMap(({ what, per, of, limit, unlimited }) => {
    // As the hub names it: a method without its package.
    const reach = of.trim().replace(/^\/.*\./, "");
    const name = `${what}-per-${per}${reach ? `:${reach}` : ""}`;
    const spent = used.get(name) ?? 0n;
    if (unlimited || !/^\d+$/.test(limit.trim()) || spent <= BigInt(limit.trim())) return [];
    const said = what === "bytes" ? bytes(spent) : count(spent);
    return [`${said} ${what.replace("_", " ")} used this ${per}`];
  });
}
