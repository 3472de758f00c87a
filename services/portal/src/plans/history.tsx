import { useState } from "react";
import type { PolicyDifference, PolicyRevision } from "@gen/penstock/hub/v1/access_pb";
import { Plans } from "@gen/penstock/hub/v1/plans_pb";
import { useClient, useSession } from "../current";
import { useAction, useLoaded } from "../loading";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { TextField } from "../ui/field";
import { Table, type Column } from "../ui/table";
import { When } from "../ui/time";
import { ProblemLine, Shown } from "../ui/told";
import { Differences } from "./preview";

/** A revision with the one before it, if the list has it. */
interface Row {
  revision: PolicyRevision;
  before: bigint | undefined;
  latest: boolean;
}

type Opened = { kind: "compare" | "rollback"; row: Row } | undefined;

/** The revisions that changed plans, with what each changed, and the way back. */
export function PlanHistory() {
  const session = useSession();
  const client = useClient(Plans);
  const [pages, setPages] = useState(1);
  const [opened, setOpened] = useState<Opened>();
  const loaded = useLoaded(
    async (signal) => {
      const revisions: PolicyRevision[] = [];
      let pageToken = "";
      for (let page = 0; page < pages && (page === 0 || pageToken); page++) {
        const reply = await client.listPlanRevisions({ pageSize: 50, pageToken }, { signal });
        revisions.push(...reply.revisions);
        pageToken = reply.nextPageToken;
      }
      return { rows: rowsOf(revisions), next: pageToken };
    },
    [client, pages],
  );
  const close = (changed: boolean): void => {
    setOpened(undefined);
    if (changed) loaded.again();
  };
  return (
    <>
      <Shown of={loaded}>
        {({ rows, next }) => (
          <>
            <Table
              caption="Revisions that changed plans or which consumer has which, the newest first"
              columns={columns(setOpened, session.permits("plans.write"))}
              rows={rows}
              name={({ revision }) => String(revision.revision)}
              empty={<p>No plan was changed yet.</p>}
            />
            {next ? <Button onClick={() => setPages(pages + 1)}>Show older</Button> : null}
          </>
        )}
      </Shown>
      {opened?.kind === "compare" ? <Compare row={opened.row} onClose={() => close(false)} /> : null}
      {opened?.kind === "rollback" ? <Rollback row={opened.row} onClose={close} /> : null}
    </>
  );
}

function rowsOf(revisions: readonly PolicyRevision[]): Row[] {
  return revisions.map((revision, i) => ({
    revision,
    before: revisions[i + 1]?.revision,
    latest: i === 0,
  }));
}

function columns(open: (opened: Opened) => void, writes: boolean): ReadonlyArray<Column<Row>> {
  return [
    { title: "Revision", cell: ({ revision }) => <strong>{String(revision.revision)}</strong> },
    { title: "Time", cell: ({ revision }) => <When at={revision.createTime} /> },
    {
      title: "By",
      cell: ({ revision }) => revision.consumerId || revision.databaseUser || "–",
    },
    { title: "Comment", cell: ({ revision }) => revision.comment || "–" },
    {
      title: "Actions",
      cell: (row) => (
        <div className="actions">
          {row.before === undefined ? null : (
            <Button
              kind="plain"
              label={`What revision ${row.revision.revision} changed`}
              onClick={() => open({ kind: "compare", row })}
            >
              What changed
            </Button>
          )}
          {row.latest || !writes ? null : (
            <Button
              kind="plain"
              label={`Roll back to revision ${row.revision.revision}`}
              onClick={() => open({ kind: "rollback", row })}
            >
              Roll back …
            </Button>
          )}
        </div>
      ),
    },
  ];
}

function Compare({ row, onClose }: { row: Row; onClose: () => void }) {
  const client = useClient(Plans);
  const { revision, before } = row;
  const loaded = useLoaded(
    (signal) => {
      const request = { fromRevision: before ?? 0n, toRevision: revision.revision };
      return client.comparePlanRevisions(request, { signal });
    },
    [client, revision, before],
  );
  return (
    <Dialog title={`What revision ${revision.revision} changed`} onClose={onClose} wide>
      <Shown of={loaded}>
        {({ differences }) => (
          <Differences of={differences.map(told)} empty="Nothing that concerns plans." />
        )}
      </Shown>
      <div className="actions">
        <Button onClick={onClose}>Close</Button>
      </div>
    </Dialog>
  );
}

function Rollback({ row, onClose }: { row: Row; onClose: (changed: boolean) => void }) {
  const client = useClient(Plans);
  const { revision } = row.revision;
  const action = useAction();
  const [comment, setComment] = useState("");
  const preview = useLoaded(
    (signal) => client.rollbackPlans({ revision, validateOnly: true }, { signal }),
    [client, revision],
  );
  const rollBack = async (previewed: bigint): Promise<void> => {
    // The preview names the revision that it would make: the one after that which it was made for.
    const policyRevision = previewed - 1n;
    const done = await action.run(async () => {
      await client.rollbackPlans({ revision, comment, policyRevision });
      onClose(true);
    });
    if (!done) preview.again();
  };
  return (
    <Dialog title={`Roll back to revision ${revision}`} onClose={() => onClose(false)} wide>
      <p>
        The plans become those of that revision, and consumers get back the plans they had. This is a
        new revision: the history stays.
      </p>
      <Shown of={preview}>
        {({ differences, revision: previewed }) => (
          <>
            <Differences of={differences.map(told)} empty="Nothing would change." />
            {differences.length === 0 ? null : (
              <TextField label="Comment for the history" value={comment} onChange={setComment} />
            )}
            <ProblemLine problem={action.problem} />
            <div className="actions">
              <Button onClick={() => onClose(false)}>Cancel</Button>
              {differences.length === 0 ? null : (
                <Button kind="primary" onClick={() => void rollBack(previewed)} busy={action.busy || preview.busy}>
                  Roll back
                </Button>
              )}
            </div>
          </>
        )}
      </Shown>
    </Dialog>
  );
}

function told({ subject, part, before, after }: PolicyDifference) {
  return { part: part ? `${subject}: ${part}` : subject, before, after };
}
