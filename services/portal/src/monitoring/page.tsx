import { useRef, useState, type ReactNode } from "react";
import { Errors } from "@gen/penstock/hub/v1/errors_pb";
import { Monitoring, type GetMonitoringResponse } from "@gen/penstock/hub/v1/monitoring_pb";
import { Usage } from "@gen/penstock/hub/v1/usage_pb";
import { useClient, useSession } from "../current";
import { useEvery, useLoaded } from "../loading";
import { Button } from "../ui/button";
import { Chart } from "../ui/chart";
import { PageHead } from "../ui/head";
import { count, share, shortCount } from "../ui/numbers";
import { Table, type Column } from "../ui/table";
import { Tiles, type Tile } from "../ui/tiles";
import { When } from "../ui/time";
import { Shown } from "../ui/told";
import {
  availabilityOf,
  quantile,
  readMeanings,
  readTraffic,
  type Meanings,
  type Reason,
  type Traffic,
} from "./calls";
import { KINDS } from "./kinds";
import { Readings, timed } from "./readings";
import { warningsOf } from "./warnings";

/** Seconds between two readings; the hub itself reads every 5 seconds at most. */
const INTERVAL = 10;
/** Of all answers, 99.9 % shall be no fault of the hub. */
const OBJECTIVE = 0.999;

/** How the hub is, refreshed by itself while the page is visible. */
export default function MonitoringPage() {
  const session = useSession();
  const monitoring = useClient(Monitoring);
  const usage = useClient(Usage);
  const errors = useClient(Errors);
  const [running, setRunning] = useState(true);
  const counts = session.permits("usage.read") || session.permits("audit.read");
  const node = useLoaded((signal) => monitoring.getMonitoring({}, { signal }), [monitoring]);
  const meanings = useRef<Meanings>(undefined);
  const traffic = useLoaded(
    async (signal) => {
      if (!counts) return undefined;
      meanings.current ??= await readMeanings(errors, signal);
      return readTraffic(usage, meanings.current, signal);
    },
    [usage, errors, counts],
  );
  const again = (): void => {
    // A new load ends one under way: a slow hub would never be shown.
    if (!node.busy) node.again();
    if (!traffic.busy) traffic.again();
  };
  useEvery(INTERVAL, running, again);
  return (
    <>
      <PageHead
        title="Monitoring"
        about={
          <>
            How the hub is. Read{" "}
            {node.value === undefined ? "…" : <When at={node.value.readTime} />}
            {running ? `, again every ${INTERVAL} seconds.` : "; it is not read again."}
          </>
        }
        actions={
          <>
            <Button onClick={() => setRunning(!running)}>{running ? "Pause" : "Continue"}</Button>
            <Button onClick={again}>Refresh</Button>
          </>
        }
      />
      <Shown of={node}>
        {(reading) => (node.problem ? null : <Warnings reading={reading} />)}
      </Shown>
      <h2>Calls</h2>
      {counts ? (
        <Shown of={traffic}>
          {(found) => (found ? <Calls traffic={found} reading={node.value} /> : null)}
        </Shown>
      ) : (
        <p className="note">
          Calls and their errors are shown with the permission <code>usage.read</code>.
        </p>
      )}
      {node.value === undefined ? null : <Readings reading={node.value} />}
    </>
  );
}

function Warnings({ reading }: { reading: GetMonitoringResponse }) {
  const warnings = warningsOf(reading);
  return (
    <section aria-live="polite" aria-label="State">
      {warnings.length === 0 ? (
        <p className="note good">
          <strong>Everything works.</strong> No condition of the alert rules holds.
        </p>
      ) : (
        <div className="note bad">
          <strong>
            {warnings.length === 1 ? "1 thing needs" : `${warnings.length} things need`} a look
          </strong>
          <ul>
            {warnings.map(({ alert, what, advice }) => (
              <li key={alert}>
                {what} <span className="quiet">{advice}</span>
              </li>
            ))}
          </ul>
        </div>
      )}
    </section>
  );
}

interface CallsProps {
  traffic: Traffic;
  reading: GetMonitoringResponse | undefined;
}

function Calls({ traffic, reading }: CallsProps): ReactNode {
  const availability = availabilityOf(traffic);
  const latency = reading?.calls?.latency ?? [];
  const tiles: readonly Tile[] = [
    {
      name: "Availability",
      value: availability === undefined ? "–" : share(availability),
      more: "no fault of the hub; target 99.9 %",
      bad: availability !== undefined && availability < OBJECTIVE,
    },
    { name: "Calls", value: count(traffic.calls), more: "in the last hour" },
    { name: "Refused", value: count(traffic.refused), more: "401, 403 and 429" },
    {
      name: "Faults of the hub",
      value: count(traffic.faults),
      more: "internal, unavailable, unknown or data loss",
      bad: traffic.faults > 0,
    },
    {
      name: "Latency p50",
      value: atMost(quantile(latency, 0.5)),
      more: "on this node, since it began",
    },
    { name: "Latency p99", value: atMost(quantile(latency, 0.99)), more: "target 250 ms" },
  ];
  return (
    <>
      <Tiles label="Calls" of={tiles} />
      <div className="charts">
        <Chart
          title="Calls and errors of the last hour"
          times={traffic.times}
          lines={KINDS.map((name) => ({ name, values: traffic.lines[name] }))}
          format={count}
          short={shortCount}
        />
      </div>
      <Table
        caption="Errors of the last hour by reason, on all nodes"
        columns={REASONS}
        rows={traffic.reasons}
        name={({ reason }) => reason}
        empty={<p>No call ended with an error.</p>}
      />
    </>
  );
}

const REASONS: ReadonlyArray<Column<Reason>> = [
  { title: "Reason", cell: ({ reason }) => <code className="whole">{reason}</code> },
  { title: "Errors", numeric: true, cell: (found) => count(found.count) },
  { title: "HTTP", numeric: true, cell: ({ httpStatus }) => httpStatus ?? "–" },
  { title: "Meaning", cell: ({ description }) => firstSentence(description) },
];

function firstSentence(text: string): string {
  return /^.*?[.:](?=\s|$)/s.exec(text)?.[0].replace(/:$/, ".") ?? text;
}

function atMost(seconds: number | undefined): string {
  if (seconds === undefined) return "–";
  return Number.isFinite(seconds) ? `≤ ${timed(seconds)}` : "> 60 s";
}
