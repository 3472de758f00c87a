import type { Client } from "@connectrpc/connect";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Error as Meaning, Errors } from "@gen/penstock/hub/v1/errors_pb";
import type { TimeBucket } from "@gen/penstock/hub/v1/monitoring_pb";
import { grainOf, startsOf } from "../usage/range";
import { askAll, type UsageClient } from "../usage/report";
import { KINDS, kindOf, type Kind } from "./kinds";

/** The reason of errors, how often it came, and what it means. */
export interface Reason {
  reason: string;
  count: number;
  /** Undefined for a reason that this version of the hub does not have. */
  httpStatus: number | undefined;
  description: string;
}

/** The calls of the last hour, on all nodes. */
export interface Traffic {
  times: readonly number[];
  /** By the kind of the end, a number for each minute. */
  lines: Readonly<Record<Kind, readonly number[]>>;
  calls: number;
  faults: number;
  /** Refused because of a limit or a lack of rights: 401, 403 and 429. */
  refused: number;
  reasons: readonly Reason[];
}

/** By reason, what it means. */
export type Meanings = ReadonlyMap<string, Meaning>;

const HOUR = 3_600_000;
/** The surface of messages to webhooks, which are no calls. */
const MESSAGES = "WEBHOOK";

export async function readMeanings(
  errors: Client<typeof Errors>,
  signal: AbortSignal,
): Promise<Meanings> {
  const known = await errors.listErrors({}, { signal });
  return new Map(known.errors.map((error) => [error.reason, error]));
}

export async function readTraffic(
  usage: UsageClient,
  meanings: Meanings,
  signal: AbortSignal,
): Promise<Traffic> {
  const now = Date.now();
  const range = { from: now - HOUR, to: now };
  const grain = grainOf(range);
  const wanted = { groupBy: ["status", "surface", "minute"] };
  const found = await askAll(usage, { range, grain, consumer: "" }, wanted, signal);
  const rows = found.filter((row) => row.surface !== MESSAGES);
  const times = startsOf(range, grain);
  const places = new Map(times.map((time, i) => [time, i]));
  const lines = Object.fromEntries(KINDS.map((kind) => [kind, times.map(() => 0)])) as Record<
    Kind,
    number[]
  >;
  const counts = new Map<string, number>();
  for (const row of rows) {
    const at = row.time && places.get(timestampDate(row.time).getTime() / 1000);
    const add = (kind: Kind, count: number): void => {
      const line = lines[kind];
      if (at !== undefined) line[at] = (line[at] ?? 0) + count;
    };
    add("calls", Number(row.calls));
    const failed = Number(row.errors);
    if (failed === 0) continue;
    add(kindOf(row.status, meanings.get(row.status)), failed);
    counts.set(row.status, (counts.get(row.status) ?? 0) + failed);
  }
  const reasons = [...counts].map(([reason, count]) => ({
    reason,
    count,
    httpStatus: meanings.get(reason)?.httpStatus,
    description: meanings.get(reason)?.description ?? "",
  }));
  return {
    times,
    lines,
    calls: sum(lines.calls),
    faults: sum(lines["faults of the hub"]),
    refused: sum(lines.refused),
    reasons: reasons.sort((a, b) => b.count - a.count || a.reason.localeCompare(b.reason)),
  };
}

/** The share of calls that did not end by a fault of the hub; undefined without calls. */
export function availabilityOf({ calls, faults }: Traffic): number | undefined {
  return calls > 0 ? Math.max(0, 1 - faults / calls) : undefined;
}

/** The time within which a share of calls ended: the bound of a bucket; undefined without any. */
export function quantile(buckets: readonly TimeBucket[], share: number): number | undefined {
  const total = buckets.at(-1)?.count ?? 0;
  if (total === 0) return undefined;
  return buckets.find((bucket) => bucket.count >= share * total)?.seconds;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
