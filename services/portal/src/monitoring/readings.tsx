import type {
  GetMonitoringResponse,
  ProcessReading,
  TaskReading,
} from "@gen/penstock/hub/v1/monitoring_pb";
import { Badge } from "../ui/badge";
import { bytes, count, share } from "../ui/numbers";
import { Table, type Column } from "../ui/table";
import { Tiles, type Tile } from "../ui/tiles";
import { spanOf } from "../ui/time";
import { Facts } from "../ui/told";
import { quantile } from "./calls";

/** What one node read of itself: feeds and audit, webhooks, database, processes, tasks. */
export function Readings({ reading }: { reading: GetMonitoringResponse }) {
  return (
    <>
      <Part title="Feeds, audit and usage" tiles={lagTiles(reading)} />
      <Part title="Webhooks" tiles={webhookTiles(reading)} />
      <Part title="Database" tiles={databaseTiles(reading)} />
      <Part title="Machine" tiles={machineTiles(reading)} />
      <h2>Processes</h2>
      <Table
        caption={`Of the node ${reading.node}`}
        columns={PROCESSES}
        rows={reading.processes}
        name={({ name }) => name}
        empty={<p>No process gave its readings.</p>}
      />
      <h2>Keeper</h2>
      <p className="quiet">Tasks that one node does for all.</p>
      {reading.tasks.length === 0 ? <p className="empty">The database was not read yet.</p> : null}
      <Facts of={reading.tasks.map((task) => [task.name, <TaskState key={task.name} task={task} />])} />
    </>
  );
}

function Part({ title, tiles }: { title: string; tiles: readonly Tile[] }) {
  return (
    <>
      <h2>{title}</h2>
      <Tiles label={title} of={tiles} />
    </>
  );
}

export function timed(seconds: number | undefined): string {
  return seconds === undefined ? "–" : spanOf(seconds);
}

function counted(value: number | undefined): string {
  return value === undefined ? "–" : count(value);
}

function sized(value: number | undefined): string {
  return value === undefined ? "–" : bytes(value);
}

function lagTiles({ lag, calls, clients }: GetMonitoringResponse): readonly Tile[] {
  return [
    {
      name: "Feed lag",
      value: timed(lag?.sequencerSeconds),
      more: "oldest change without a number",
      bad: (lag?.sequencerSeconds ?? 0) > 5,
    },
    { name: "Feed delay p95", value: timed(quantile(calls?.feedDelay ?? [], 0.95)), more: "commit to stream" },
    { name: "Open streams", value: counted(calls?.streams) },
    { name: "Connections", value: counted(clients?.connections), more: "of clients" },
    {
      name: "Audit unsealed",
      value: timed(lag?.sealerSeconds),
      bad: (lag?.sealerSeconds ?? 0) > 30,
    },
    {
      name: "Last checkpoint",
      value: timed(lag?.checkpointSeconds),
      more: "ago",
      bad: (lag?.checkpointSeconds ?? 0) > 300,
    },
    { name: "Usage behind", value: counted(lag?.usageEntries), more: "entries" },
  ];
}

function webhookTiles({ webhooks }: GetMonitoringResponse): readonly Tile[] {
  const { states = {}, attempts = {} } = webhooks ?? {};
  const delivered = attempts["delivered"] ?? 0;
  const failed = attempts["failed"] ?? 0;
  const rate = delivered + failed > 0 ? share(delivered / (delivered + failed)) : "–";
  return [
    { name: "Active", value: counted(states["ACTIVE"]) },
    { name: "Paused", value: counted(states["PAUSED"]) },
    {
      name: "Disabled",
      value: counted(states["DISABLED"]),
      bad: (states["DISABLED"] ?? 0) > 0,
    },
    { name: "Delivered", value: rate, more: `of ${count(delivered + failed)} attempts since the keeper began` },
    { name: "Waiting", value: counted(webhooks?.waiting), more: "deliveries" },
    {
      name: "Late by",
      value: timed(webhooks?.lagSeconds),
      bad: (webhooks?.lagSeconds ?? 0) > 300,
    },
  ];
}

function databaseTiles({ database }: GetMonitoringResponse): readonly Tile[] {
  const { answers, connections, connectionsUsable } = database ?? {};
  const behind = Math.max(0, ...Object.values(database?.standbys ?? {}));
  const standbys = Object.keys(database?.standbys ?? {}).length;
  return [
    {
      name: "Answers",
      value: answers === undefined ? "–" : answers ? "yes" : "no",
      bad: answers === false,
    },
    { name: "Size", value: sized(database?.sizeBytes) },
    {
      name: "Connections",
      value: counted(connections),
      more: `of ${counted(connectionsUsable)}`,
      bad: (connections ?? 0) > 0.9 * (connectionsUsable ?? Infinity),
    },
    { name: "Waiting for locks", value: counted(database?.waitingLocks) },
    { name: "Oldest transaction", value: timed(database?.oldestTransactionSeconds) },
    {
      name: "Dead rows",
      value: database?.deadRowsRatio === undefined ? "–" : share(database.deadRowsRatio),
    },
    { name: "Standbys", value: count(standbys), more: standbys > 0 ? `${bytes(behind)} behind` : "none" },
    { name: "Nodes", value: counted(database?.nodes) },
  ];
}

function machineTiles({ machine }: GetMonitoringResponse): readonly Tile[] {
  const { diskFreeBytes, diskReserveBytes, certificateSeconds } = machine ?? {};
  return [
    {
      name: "Disk free",
      value: sized(diskFreeBytes),
      more: `warns below ${sized(diskReserveBytes)}`,
      bad: (diskFreeBytes ?? Infinity) < (diskReserveBytes ?? 0),
    },
    {
      name: "Certificate",
      value: timed(certificateSeconds),
      more: certificateSeconds === undefined ? "no TLS on this node" : "until it expires",
    },
    {
      name: "Key of tokens",
      value: timed(machine?.keyAgeSeconds),
      more: `old; replaced at ${timed(machine?.keyMaxAgeSeconds)}`,
    },
  ];
}

const PROCESSES: ReadonlyArray<Column<ProcessReading>> = [
  { title: "Process", cell: ({ name }) => <strong>{name}</strong> },
  {
    title: "State",
    cell: ({ answers, failing }) =>
      !answers ? (
        <Badge tone="bad">silent</Badge>
      ) : failing.length > 0 ? (
        <Badge tone="bad">parts fail</Badge>
      ) : (
        <Badge tone="good">works</Badge>
      ),
  },
  { title: "Memory", numeric: true, cell: ({ memoryBytes }) => sized(memoryBytes) },
  { title: "Failing parts", cell: ({ failing }) => failing.join(", ") || "–" },
];

function TaskState({ task }: { task: TaskReading }) {
  if (task.failing) return <Badge tone="bad">fails</Badge>;
  return task.held ? <Badge tone="good">held</Badge> : <Badge tone="bad">not held</Badge>;
}
