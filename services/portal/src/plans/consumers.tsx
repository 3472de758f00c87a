import { useState } from "react";
import { Consumers, type Consumer } from "@gen/penstock/hub/v1/access_pb";
import { Plans, type Plan } from "@gen/penstock/hub/v1/plans_pb";
import { useClient, useSession } from "../current";
import { useLoaded } from "../loading";
import { go, href } from "../place";
import { Badge } from "../ui/badge";
import { Choice } from "../ui/field";
import { Table, type Column } from "../ui/table";
import { Shown } from "../ui/told";
import { Quotas } from "../usage/quotas";
import { listConsumers } from "./consumer_list";
import {
  describeLimits,
  differencesOf,
  faultsOf,
  limitsDraftOf,
  limitsOf,
  type LimitsDraft,
} from "./draft";
import { LimitsForm } from "./limits_form";
import { Differences } from "./preview";
import { ReviewForm } from "./review";

/** Which consumer has which plan, and limits of its own. */
export function ConsumerPlans() {
  const session = useSession();
  const loaded = useLoaded((signal) => listConsumers(session, signal), [session]);
  return (
    <Shown of={loaded}>
      {(consumers) => (
        <Table
          caption="Consumers, in order of id"
          columns={COLUMNS}
          rows={consumers}
          name={({ consumerId }) => consumerId}
          empty={<p>There are no consumers.</p>}
        />
      )}
    </Shown>
  );
}

const COLUMNS: ReadonlyArray<Column<Consumer>> = [
  {
    title: "Consumer",
    cell: ({ consumerId, title, active }) => (
      <>
        <a className="strong" href={href("plans", "consumers", consumerId)}>
          {consumerId}
        </a>{" "}
        {active ? null : <Badge tone="muted">inactive</Badge>}
        {title ? <div className="quiet">{title}</div> : null}
      </>
    ),
  },
  { title: "Plan", cell: ({ plan }) => plan || "none" },
  {
    title: "Limits of its own",
    cell: ({ limits }) =>
      [...describeLimits(limitsDraftOf(limits))]
        .map(([part, text]) => `${part}: ${text}`)
        .join("; ") || "–",
  },
];

/** The plan of one consumer, and limits of its own in place of the plan's. */
export function ConsumerPlan({ id }: { id: string }) {
  const consumers = useClient(Consumers);
  const plans = useClient(Plans);
  const loaded = useLoaded(
    async (signal) => {
      const [consumer, listed] = await Promise.all([
        consumers.getConsumer({ consumerId: id }, { signal }),
        plans.listPlans({ pageSize: 1000 }, { signal }),
      ]);
      return { consumer, plans: listed.plans };
    },
    [consumers, plans, id],
  );
  return (
    <>
      <p className="trail">
        <a href={href("plans")}>Plans</a> / <a href={href("plans", "consumers")}>Consumers</a>
      </p>
      <h1>Plan of {id}</h1>
      <Shown of={loaded}>{(found) => <Editing {...found} />}</Shown>
      <Quotas consumer={id} round={0} />
    </>
  );
}

function Editing({ consumer, plans }: { consumer: Consumer; plans: readonly Plan[] }) {
  const session = useSession();
  const client = useClient(Consumers);
  const { consumerId, policyRevision } = consumer;
  const [plan, setPlan] = useState(consumer.plan);
  const [draft, setDraft] = useState<LimitsDraft>(() => limitsDraftOf(consumer.limits));
  const differences = differencesOf(
    new Map([["plan", consumer.plan || "none"], ...describeLimits(limitsDraftOf(consumer.limits))]),
    new Map([["plan", plan || "none"], ...describeLimits(draft)]),
  );
  const choices = [["", "none"], ...plans.map(({ planId }) => [planId, planId] as const)] as const;
  return (
    <ReviewForm
      back={href("plans", "consumers")}
      writes={session.permits("access.write")}
      needs="access.write"
      send={(terms) =>
        client.updateConsumer({
          consumer: { consumerId, plan, limits: limitsOf(draft) },
          updateMask: { paths: ["plan", "limits"] },
          policyRevision,
          ...terms,
        })
      }
      onDone={() => go("plans", "consumers")}
      review={<Differences of={differences} empty="Nothing changes." />}
    >
      {(problem) => (
        <>
          <fieldset>
            <legend>Plan</legend>
            <Choice
              label="Plan"
              value={plan}
              choices={choices}
              onChange={setPlan}
              error={faultsOf(problem).get("plan")}
              hint="What follows is for this consumer alone, in place of the plan's limits for the same."
            />
          </fieldset>
          <LimitsForm
            draft={draft}
            change={(changed) => setDraft((old) => ({ ...old, ...changed }))}
            faults={faultsOf(problem)}
            own
          />
        </>
      )}
    </ReviewForm>
  );
}
