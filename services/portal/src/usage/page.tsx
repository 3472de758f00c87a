import { useState } from "react";
import { Usage, type UsageRow } from "@gen/penstock/hub/v1/usage_pb";
import { useClient, useSession } from "../current";
import { useAction, useLoaded } from "../loading";
import { Button } from "../ui/button";
import { Chart } from "../ui/chart";
import { Choice, SuggestedField, TextField } from "../ui/field";
import { PageHead } from "../ui/head";
import { bytes, count, share, shortCount } from "../ui/numbers";
import { saveFile } from "../ui/save";
import { Table, type Column } from "../ui/table";
import { Tiles } from "../ui/tiles";
import { localTime, When } from "../ui/time";
import { ProblemLine, Shown } from "../ui/told";
import { Quotas } from "./quotas";
import { SPANS, ZONE, type Range } from "./range";
import {
  exportReport,
  GROUPS,
  MEASURES,
  nameOf,
  readConsumers,
  readReport,
  UNNAMED,
  type Group,
  type Measure,
  type Question,
  type Report,
} from "./report";

const TOPS = [
  [5, "5"],
  [10, "10"],
  [25, "25"],
  [100, "100"],
] as const;

/** What the page is asked for; `drawn` is a range in place of the last `span` milliseconds. */
interface View {
  span: number;
  drawn: Range | undefined;
  consumer: string;
  group: Group;
  measure: Measure;
  top: number;
}

/** What consumers used: one's own, or with the permission that of all. */
export default function UsagePage() {
  const session = useSession();
  const client = useClient(Usage);
  const everybody = session.permits("usage.read") || session.permits("audit.read");
  const [view, setView] = useState<View>(() => ({
    span: 86_400_000,
    drawn: undefined,
    consumer: everybody ? "" : session.consumer,
    group: everybody ? "consumer" : "",
    measure: "calls",
    top: 10,
  }));
  const [round, setRound] = useState(0);
  const { consumer, span, drawn } = view;
  const loaded = useLoaded(
    async (signal) => {
      const question = { ...view, range: rangeOf(view) };
      return { question, report: await readReport(client, question, signal) };
    },
    [client, view, round],
  );
  const consumers = useLoaded(
    async (signal) =>
      everybody ? readConsumers(client, rangeOf({ span, drawn }), signal) : [session.consumer],
    [client, everybody, span, drawn, round],
  );
  const change = (changed: Partial<View>): void => setView((old) => ({ ...old, ...changed }));
  const saving = useAction();
  const save = (): void => {
    if (loaded.value === undefined) return;
    const { question, report } = loaded.value;
    void saving.run(async () => {
      const pieces = await exportReport(client, report.asked, question.group);
      saveFile("usage.csv", "text/csv", pieces as BlobPart[]);
    });
  };
  return (
    <>
      <PageHead
        title="Usage"
        about={
          everybody
            ? "What consumers used of the hub, counted from the audit within seconds of each call."
            : "What you used of the hub, counted from the audit within seconds of each call."
        }
        actions={
          <>
            <Button onClick={() => setRound(round + 1)} busy={loaded.busy}>
              Refresh
            </Button>
            <Button onClick={save} busy={saving.busy}>
              Export CSV
            </Button>
          </>
        }
      />
      <ProblemLine problem={saving.problem} />
      <Filters view={view} change={change} consumers={everybody ? (consumers.value ?? []) : undefined} />
      <Shown of={loaded}>
        {({ question, report }) => (
          <Results question={question} report={report} change={change} everybody={everybody} />
        )}
      </Shown>
      {everybody && !consumer ? (
        <p className="quiet">Choose a consumer to see its limits.</p>
      ) : null}
      {consumer && (consumer === session.consumer || session.permits("plans.read")) ? (
        <Quotas key={consumer} consumer={consumer} round={round} />
      ) : null}
    </>
  );
}

interface FiltersProps {
  view: View;
  change: (changed: Partial<View>) => void;
  /** Undefined if the user may only see its own usage. */
  consumers: readonly string[] | undefined;
}

function Filters({ view, change, consumers }: FiltersProps) {
  const { from, to } = rangeOf(view);
  const narrow = (range: Partial<Range>): void => {
    const drawn = { from, to, ...range };
    if (drawn.from < drawn.to) change({ drawn });
  };
  const spans = [...SPANS, ...(view.drawn ? [[0, "the range below"] as const] : [])];
  const groups = GROUPS.filter(([group]) => consumers !== undefined || group !== "consumer");
  return (
    <div className="filters" role="search" aria-label="What to report">
      <Choice
        label="Time"
        value={view.drawn ? 0 : view.span}
        choices={spans}
        onChange={(span) => (span > 0 ? change({ span, drawn: undefined }) : undefined)}
      />
      {consumers === undefined ? null : (
        <SuggestedField
          label="Consumer"
          value={view.consumer}
          suggestions={consumers}
          placeholder="all consumers"
          onChange={(consumer) => change({ consumer })}
        />
      )}
      <Choice
        label="Group by"
        value={view.group}
        choices={groups}
        onChange={(group) => change({ group })}
      />
      {view.group === "" ? null : (
        <>
          <Choice
            label="The largest by"
            value={view.measure}
            choices={MEASURES}
            onChange={(measure) => change({ measure })}
          />
          <Choice
            label="How many"
            value={view.top}
            choices={TOPS}
            onChange={(top) => change({ top })}
          />
        </>
      )}
      <TextField
        label="From"
        value={localTime(new Date(from))}
        onChange={(text) => narrow({ from: timeOf(text, from) })}
        input={{ type: "datetime-local" }}
      />
      <TextField
        label="Before"
        value={localTime(new Date(to))}
        onChange={(text) => narrow({ to: timeOf(text, to) })}
        input={{ type: "datetime-local" }}
      />
    </div>
  );
}

interface ResultsProps {
  question: Question;
  report: Report;
  change: (changed: Partial<View>) => void;
  everybody: boolean;
}

function Results({ question, report, change, everybody }: ResultsProps) {
  const { total, times, series, asked, fresh } = report;
  const { period, zone } = asked.grain;
  const chart = (title: string, measure: Measure) => (
    <Chart
      title={title}
      times={times}
      lines={series.map(({ name, values }) => ({ name, values: values[measure] }))}
      format={measure === "bytes" ? bytes : count}
      short={measure === "bytes" ? bytes : shortCount}
      onRange={(from, to) => change({ drawn: { from: from * 1000, to: to * 1000 } })}
    />
  );
  return (
    <>
      <Tiles
        label="Totals"
        of={[
          { name: "Calls", value: count(total?.calls ?? 0n) },
          {
            name: "Errors",
            value: count(total?.errors ?? 0n),
            more: `${share(total?.errorRate ?? 0)} of calls`,
          },
          { name: "Records", value: count(total?.records ?? 0n) },
          { name: "Bytes", value: bytes(total?.bytes ?? 0n) },
        ]}
      />
      <p className="quiet">
        By {period}
        {zone === ZONE ? "" : ` of ${zone}`}. Calls that were answered before <When at={fresh} /> are counted. Draw across a
        chart to look closer.
      </p>
      {total === undefined ? (
        <div className="empty">
          <p>Nothing was used in this time.</p>
        </div>
      ) : (
        <div className="charts">
          {chart("Calls", "calls")}
          {chart("Errors", "errors")}
          {chart("Records", "records")}
          {chart("Bytes", "bytes")}
        </div>
      )}
      {question.group ? (
        <Table
          caption={`The largest by ${question.measure}, in groups by ${question.group}; charts show five of them`}
          columns={columns(question, everybody ? change : undefined)}
          rows={report.groups}
          name={(row) => nameOf(row, question.group)}
          empty={<p>There are no groups.</p>}
        />
      ) : null}
    </>
  );
}

function columns(
  { group }: Question,
  change: ((changed: Partial<View>) => void) | undefined,
): ReadonlyArray<Column<UsageRow>> {
  const name = (row: UsageRow) => {
    const shown = nameOf(row, group);
    if (group !== "consumer" || change === undefined || shown === UNNAMED) {
      return <span className="breaking">{shown}</span>;
    }
    return (
      <Button kind="plain" onClick={() => change({ consumer: shown, group: "method" })}>
        {shown}
      </Button>
    );
  };
  return [
    { title: group.charAt(0).toUpperCase() + group.slice(1), cell: name },
    { title: "Calls", numeric: true, cell: (row) => count(row.calls) },
    { title: "Errors", numeric: true, cell: (row) => count(row.errors) },
    { title: "Error rate", numeric: true, cell: (row) => share(row.errorRate) },
    { title: "Records", numeric: true, cell: (row) => count(row.records) },
    { title: "Bytes", numeric: true, cell: (row) => bytes(row.bytes) },
  ];
}

function rangeOf({ span, drawn }: Pick<View, "span" | "drawn">): Range {
  const now = Date.now();
  return drawn ?? { from: now - span, to: now };
}

function timeOf(text: string, otherwise: number): number {
  const time = new Date(text).getTime();
  return Number.isNaN(time) ? otherwise : time;
}
