import { useState } from "react";
import { Plans, type Plan } from "@gen/penstock/hub/v1/plans_pb";
import { useClient, useSession } from "../current";
import { useAction, useLoaded } from "../loading";
import { go, href } from "../place";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Check, TextField } from "../ui/field";
import { ProblemLine, Shown } from "../ui/told";
import {
  describePlan,
  differencesOf,
  faultsOf,
  limitsOf,
  NEW_PLAN,
  planDraftOf,
  type PlanDraft,
} from "./draft";
import { LimitsForm } from "./limits_form";
import { AffectedConsumers, Differences } from "./preview";
import { ReviewForm } from "./review";

export function NewPlan() {
  const client = useClient(Plans);
  return (
    <>
      <Trail />
      <h1>New plan</h1>
      <PlanForm
        before={undefined}
        send={(draft, terms) => client.createPlan({ plan: messageOf(draft), ...terms })}
      />
    </>
  );
}

export function EditPlan({ id }: { id: string }) {
  const session = useSession();
  const client = useClient(Plans);
  const loaded = useLoaded((signal) => client.getPlan({ planId: id }, { signal }), [client, id]);
  const [deleting, setDeleting] = useState(false);
  const writes = session.permits("plans.write");
  return (
    <>
      <Trail />
      <div className="head">
        <h1>Plan {id}</h1>
        {writes && loaded.value ? (
          <Button kind="danger" onClick={() => setDeleting(true)}>
            Delete …
          </Button>
        ) : null}
      </div>
      <Shown of={loaded}>
        {(plan) => (
          <PlanForm
            key={String(plan.policyRevision)}
            before={plan}
            send={(draft, terms) =>
              client.updatePlan({
                plan: messageOf(draft),
                updateMask: { paths: FIELDS },
                policyRevision: plan.policyRevision,
                ...terms,
              })
            }
          />
        )}
      </Shown>
      {deleting && loaded.value ? (
        <DeleteDialog plan={loaded.value} onClose={() => setDeleting(false)} />
      ) : null}
    </>
  );
}

const FIELDS = ["description", "time_zone", "shadow", "rates", "concurrent", "quotas"];

function messageOf(draft: PlanDraft) {
  const { planId, description, timeZone, shadow } = draft;
  const texts = { planId: planId.trim(), description: description.trim() };
  return { ...texts, timeZone: timeZone.trim(), shadow, ...limitsOf(draft) };
}

interface FormProps {
  /** Undefined for a new plan. */
  before: Plan | undefined;
  send: (draft: PlanDraft, terms: { comment: string; validateOnly: boolean }) => Promise<unknown>;
}

/** Edits a plan: the fields, then a review of what changes and whom it affects. */
function PlanForm({ before, send }: FormProps) {
  const session = useSession();
  const [draft, setDraft] = useState(() => (before ? planDraftOf(before) : NEW_PLAN));
  const change = (changed: Partial<PlanDraft>): void => setDraft((old) => ({ ...old, ...changed }));
  const differences = differencesOf(
    before ? describePlan(planDraftOf(before)) : new Map(),
    describePlan(draft),
  );
  return (
    <ReviewForm
      back={href("plans")}
      writes={session.permits("plans.write")}
      needs="plans.write"
      send={(terms) => send(draft, terms)}
      onDone={() => go("plans")}
      review={
        <>
          <Differences of={differences} empty="Nothing changes." />
          {before ? <AffectedConsumers plan={before.planId} draft={draft} /> : null}
        </>
      }
    >
      {(problem) => <PlanFields draft={draft} change={change} faults={faultsOf(problem)} fresh={!before} />}
    </ReviewForm>
  );
}

interface FieldsProps {
  draft: PlanDraft;
  change: (changed: Partial<PlanDraft>) => void;
  faults: ReadonlyMap<string, string>;
  fresh: boolean;
}

function PlanFields({ draft, change, faults, fresh }: FieldsProps) {
  return (
    <>
      <fieldset>
        <legend>Plan</legend>
        {fresh ? (
          <TextField
            label="Id"
            value={draft.planId}
            onChange={(planId) => change({ planId })}
            error={faults.get("plan_id")}
            hint="Lower-case letters, digits, -, _ and ., such as gold."
            input={{ required: true, spellCheck: false }}
          />
        ) : null}
        <TextField
          label="Description"
          value={draft.description}
          onChange={(description) => change({ description })}
          error={faults.get("description")}
        />
        <TextField
          label="Time zone"
          value={draft.timeZone}
          onChange={(timeZone) => change({ timeZone })}
          error={faults.get("time_zone")}
          hint="In which hours, days and months of quotas begin, such as Europe/Berlin. Empty: UTC."
          input={{ spellCheck: false }}
        />
        <Check
          label="Shadow: rates count what they would refuse, and refuse nothing"
          checked={draft.shadow}
          onChange={(shadow) => change({ shadow })}
        />
      </fieldset>
      <LimitsForm draft={draft} change={change} faults={faults} own={false} />
    </>
  );
}

function DeleteDialog({ plan, onClose }: { plan: Plan; onClose: () => void }) {
  const client = useClient(Plans);
  const action = useAction();
  const { planId, policyRevision } = plan;
  const remove = (): void => {
    void action.run(async () => {
      await client.deletePlan({ planId, policyRevision });
      go("plans");
    });
  };
  return (
    <Dialog title="Delete the plan" onClose={onClose}>
      <p>
        The plan <strong>{planId}</strong> is deleted, unless a consumer has it. The history keeps it.
      </p>
      <ProblemLine problem={action.problem} />
      <div className="actions">
        <Button onClick={onClose}>Cancel</Button>
        <Button kind="danger" onClick={remove} busy={action.busy}>
          Delete
        </Button>
      </div>
    </Dialog>
  );
}

function Trail() {
  return (
    <p className="trail">
      <a href={href("plans")}>Plans</a>
    </p>
  );
}
