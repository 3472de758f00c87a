import { Plans, type Plan } from "@gen/penstock/hub/v1/plans_pb";
import { useClient, useSession } from "../current";
import { useLoaded } from "../loading";
import { href } from "../place";
import type { Session } from "../session";
import { Badge } from "../ui/badge";
import { Table, type Column } from "../ui/table";
import { Shown } from "../ui/told";
import { listConsumers } from "./consumer_list";
import { describeLimits, planDraftOf } from "./draft";

interface Row {
  plan: Plan;
  /** Undefined if the user may not see consumers. */
  consumers: number | undefined;
}

/** All plans, each with what it allows and how many consumers have it. */
export function PlanList() {
  const session = useSession();
  const client = useClient(Plans);
  const loaded = useLoaded(
    async (signal) => {
      const [plans, consumers] = await Promise.all([
        client.listPlans({ pageSize: 1000 }, { signal }),
        countConsumers(session, signal),
      ]);
      return plans.plans.map((plan) => ({
        plan,
        consumers: consumers && (consumers.get(plan.planId) ?? 0),
      }));
    },
    [session, client],
  );
  return (
    <Shown of={loaded}>
      {(rows) => (
        <Table
          caption="Plans, in order of id"
          columns={COLUMNS}
          rows={rows}
          name={({ plan }) => plan.planId}
          empty={<p>There are no plans yet: nothing limits the consumers.</p>}
        />
      )}
    </Shown>
  );
}

const COLUMNS: ReadonlyArray<Column<Row>> = [
  {
    title: "Plan",
    cell: ({ plan }) => (
      <>
        <a className="strong" href={href("plans", "plan", plan.planId)}>
          {plan.planId}
        </a>{" "}
        {plan.shadow ? <Badge tone="muted">shadow</Badge> : null}
        {plan.description ? <div className="quiet">{plan.description}</div> : null}
      </>
    ),
  },
  { title: "Limits", cell: ({ plan }) => <Limits plan={plan} /> },
  { title: "Time zone", cell: ({ plan }) => plan.timeZone || "UTC" },
  { title: "Consumers", numeric: true, cell: ({ consumers }) => consumers ?? "–" },
];

function Limits({ plan }: { plan: Plan }) {
  const parts = [...describeLimits(planDraftOf(plan))];
  if (parts.length === 0) return <>none</>;
  return (
    <>
      {parts.map(([part, text]) => (
        <div key={part}>
          <span className="quiet">{part}:</span> {text}
        </div>
      ))}
    </>
  );
}

async function countConsumers(
  session: Session,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number> | undefined> {
  if (!session.permits("access.read")) return undefined;
  const counts = new Map<string, number>();
  for (const { plan } of await listConsumers(session, signal)) {
    counts.set(plan, (counts.get(plan) ?? 0) + 1);
  }
  return counts;
}
