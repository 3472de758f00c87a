import type { GetMonitoringResponse } from "@gen/penstock/hub/v1/monitoring_pb";

const GIB = 2 ** 30;
const DAY = 86_400;

/** Something that an operator should look at, and the first thing to do. */
export interface Warning {
  /** The name of the alert rule. */
  alert: string;
  what: string;
  advice: string;
}

/**
 * The conditions of the alert rules that ship with the hub, on one reading: `penstock monitoring
 * rules` has them for Prometheus, which also waits before it alerts.
 */
export function warningsOf(reading: GetMonitoringResponse): readonly Warning[] {
  const { processes, clients, tasks, lag, webhooks, database, machine } = reading;
  const silent = processes.filter((process) => !process.answers).map(({ name }) => name);
  const unheld = tasks.filter((task) => !task.held).map(({ name }) => name);
  const failing = tasks.filter((task) => task.failing).map(({ name }) => name);
  const organs = processes.flatMap(({ name, failing: f }) => f.map((part) => `${part} in ${name}`));
  const standbys = Object.entries(database?.standbys ?? {}).filter(([, behind]) => behind > GIB);
  const disabled = webhooks?.states["DISABLED"] ?? 0;
  const usable = database?.connectionsUsable;
  const checks: ReadonlyArray<Warning & { holds: boolean }> = [
    {
      alert: "PenstockProcessSilent",
      holds: silent.length > 0,
      what: `No readings of ${silent.join(", ")}.`,
      advice: "See penstock status and the log of the process.",
    },
    {
      alert: "PenstockWorkersMissing",
      holds: less(clients?.workersHealthy, clients?.workers),
      what: "Workers are missing.",
      advice: "See the log of the supervisor.",
    },
    {
      alert: "PenstockDatabaseSilent",
      holds: database?.answers === false,
      what: "The database does not answer.",
      advice: "See the database, and the log of the keeper.",
    },
    {
      alert: "PenstockTaskUnheld",
      holds: unheld.length > 0,
      what: `No node does ${unheld.join(", ")}.`,
      advice: "See penstock nodes: a keeper must run.",
    },
    {
      alert: "PenstockTaskFailing",
      holds: failing.length > 0,
      what: `Tasks fail: ${failing.join(", ")}.`,
      advice: "penstock nodes shows the error.",
    },
    {
      alert: "PenstockOrganFailing",
      holds: organs.length > 0,
      what: `Parts fail: ${organs.join(", ")}.`,
      advice: "The log of the process says why.",
    },
    {
      alert: "PenstockFeedsLate",
      holds: over(lag?.sequencerSeconds, 5),
      what: "Feeds are late.",
      advice: "See the task sequencer, and long transactions.",
    },
    {
      alert: "PenstockAuditUnsealed",
      holds: over(lag?.sealerSeconds, 30),
      what: "The audit is not sealed in time.",
      advice: "See the task audit-sealer.",
    },
    {
      alert: "PenstockCheckpointsLate",
      holds: over(lag?.checkpointSeconds, 300),
      what: "The audit has no new checkpoint.",
      advice: "See the task audit-sealer.",
    },
    {
      alert: "PenstockUsageLate",
      holds: over(lag?.usageEntries, 100_000),
      what: "Usage is behind.",
      advice: "See the task usage.",
    },
    {
      alert: "PenstockWebhookDisabled",
      holds: disabled > 0,
      what: `Disabled webhooks: ${disabled}.`,
      advice: "Their owners have a notice; webhooks of all consumers shows them.",
    },
    {
      alert: "PenstockWebhooksLate",
      holds: over(webhooks?.lagSeconds, 300),
      what: "Webhooks are late.",
      advice: "See the receivers, and the task webhooks.",
    },
    {
      alert: "PenstockDiskLow",
      holds: less(machine?.diskFreeBytes, machine?.diskReserveBytes),
      what: "The disk is nearly full.",
      advice: "Make room, or archive the audit.",
    },
    {
      alert: "PenstockConnectionsLow",
      holds: over(database?.connections, 0.9 * (usable ?? Infinity)),
      what: "The database has few connections left.",
      advice: "Raise max_connections, or run fewer workers.",
    },
    {
      alert: "PenstockTransactionOld",
      holds: over(database?.oldestTransactionSeconds, 7200),
      what: "A transaction is open for hours.",
      advice: "End it: it delays vacuum.",
    },
    {
      alert: "PenstockTablesBloated",
      holds: over(database?.deadRowsRatio, 0.5),
      what: "Tables hold many dead rows.",
      advice: "Let vacuum run, and see old transactions.",
    },
    {
      alert: "PenstockStandbyBehind",
      holds: standbys.length > 0,
      what: `Standbys are behind: ${standbys.map(([name]) => name).join(", ")}.`,
      advice: "See the network and the disk of the standby.",
    },
    {
      alert: "PenstockCertificateExpires",
      holds: under(machine?.certificateSeconds, 14 * DAY),
      what: "The certificate expires within 14 days.",
      advice: "Replace it: no restart is needed.",
    },
    {
      alert: "PenstockSigningKeyOld",
      holds: over(machine?.keyAgeSeconds, 1.1 * (machine?.keyMaxAgeSeconds ?? Infinity)),
      what: "The key of tokens was not replaced in time.",
      advice: "See the task signing-keys.",
    },
  ];
  return checks.filter(({ holds }) => holds);
}

// What was not read warns of nothing by itself; that a process is silent does.

function over(value: number | undefined, bound: number): boolean {
  return value !== undefined && value > bound;
}

function under(value: number | undefined, bound: number): boolean {
  return value !== undefined && value < bound;
}

function less(value: number | undefined, other: number | undefined): boolean {
  return other !== undefined && under(value, other);
}
