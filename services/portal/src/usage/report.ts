import { timestampDate, timestampFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type {
  ReportUsageRequest,
  ReportUsageResponse,
  Usage,
  UsageRow,
} from "@gen/penstock/hub/v1/usage_pb";
import { problemOf } from "../problem";
import { coarseGrainOf, grainOf, startsOf, widened, type Grain, type Range } from "./range";

export type UsageClient = Client<typeof Usage>;

/** What usage is grouped by, with a name for people. */
export const GROUPS = [
  ["", "nothing"],
  ["consumer", "consumer"],
  ["credential", "credential"],
  ["plan", "plan"],
  ["method", "method"],
  ["surface", "surface"],
  ["dataset", "dataset"],
  ["status", "status"],
] as const;

export type Group = (typeof GROUPS)[number][0];

export const MEASURES = [
  ["calls", "calls"],
  ["errors", "errors"],
  ["records", "records"],
  ["bytes", "bytes"],
] as const;

export type Measure = (typeof MEASURES)[number][0];

/** A report as asked for on the page. */
export interface Question {
  range: Range;
  /** Empty: all that the user may see. */
  consumer: string;
  group: Group;
  measure: Measure;
  /** How many groups to list. */
  top: number;
}

export interface Series {
  name: string;
  /** By measure, a number for each time. */
  values: Readonly<Record<Measure, readonly number[]>>;
}

export interface Report {
  total: UsageRow | undefined;
  groups: readonly UsageRow[];
  times: readonly number[];
  series: readonly Series[];
  /** The range and the periods that it covers, which may be coarser than wanted. */
  asked: Asked;
  fresh: Timestamp | undefined;
}

/** Lines of a chart: more cannot be told apart. */
const LINES = 5;
/** The groups that calls without credentials, plans or datasets belong to cannot be asked for. */
export const UNNAMED = "(none)";

/** Everything that the page shows, of one range, as finely as the hub still has it. */
export async function readReport(
  client: UsageClient,
  question: Question,
  signal: AbortSignal,
): Promise<Report> {
  try {
    return await readGrain(client, question, grainOf(question.range), signal);
  } catch (error) {
    // The hub no longer has the counts that so fine a report needs.
    if (!problemOf(error).fields.has("start_time")) throw error;
    return readGrain(client, question, coarseGrainOf(question.range), signal);
  }
}

async function readGrain(
  client: UsageClient,
  question: Question,
  grain: Grain,
  signal: AbortSignal,
): Promise<Report> {
  const { consumer, group, measure, top } = question;
  const asked = { consumer, grain, range: widened(question.range, grain, Date.now()) };
  const [total, grouped] = await Promise.all([
    ask(client, asked, {}, signal),
    group
      ? ask(client, asked, { groupBy: [group], orderBy: measure, pageSize: top }, signal)
      : undefined,
  ]);
  const groups = grouped?.rows ?? [];
  const named = groups.map((row) => nameOf(row, group)).filter((name) => name !== UNNAMED);
  const lines = group ? named.slice(0, LINES) : [""];
  const times = startsOf(asked.range, grain);
  const series = await Promise.all(
    lines.map(async (name) => {
      const only = group ? { [group]: name } : {};
      const rows = await askAll(client, asked, { ...only, groupBy: [grain.period] }, signal);
      return { name: name || "total", values: spread(rows, times) };
    }),
  );
  return { total: total.rows[0], groups, times, series, asked, fresh: total.freshTime };
}

/** The consumers with usage in a range, the busiest first. */
export async function readConsumers(
  client: UsageClient,
  range: Range,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const grain = coarseGrainOf(range);
  const asked = { consumer: "", grain, range: widened(range, grain, Date.now()) };
  const wanted = { groupBy: ["consumer"], orderBy: "calls", pageSize: 200 };
  const { rows } = await ask(client, asked, wanted, signal);
  return rows.map((row) => row.consumer).filter(Boolean);
}

/** A report by groups as a file of the hub, in CSV. */
export async function exportReport(
  client: UsageClient,
  asked: Asked,
  group: Group,
): Promise<Uint8Array[]> {
  const groups = group ? [group] : [];
  const request = { ...sought(asked), groupBy: [...groups, asked.grain.period], format: "CSV" };
  const pieces: Uint8Array[] = [];
  for await (const body of client.exportUsage(request)) pieces.push(body.data);
  return pieces;
}

export function nameOf(row: UsageRow, group: Group): string {
  return (group ? row[group] : "") || UNNAMED;
}

/** What every request of one report has in common. */
export interface Asked {
  range: Range;
  grain: Grain;
  consumer: string;
}

type Wanted = Partial<Omit<ReportUsageRequest, "$typeName" | "$unknown">>;

function sought({ range, grain, consumer }: Asked) {
  return {
    startTime: timestampFromMs(range.from),
    endTime: timestampFromMs(range.to),
    timeZone: grain.zone,
    ...(consumer && { consumer }),
  };
}

function ask(
  client: UsageClient,
  asked: Asked,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<ReportUsageResponse> {
  return client.reportUsage({ ...sought(asked), ...wanted }, { signal });
}

/** The rows of all pages. */
export async function askAll(
  client: UsageClient,
  asked: Asked,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<readonly UsageRow[]> {
  const rows: UsageRow[] = [];
  let pageToken = "";
  do {
    const page = await ask(client, asked, { ...wanted, pageSize: 1000, pageToken }, signal);
    rows.push(...page.rows);
    pageToken = page.nextPageToken;
  } while (pageToken);
  return rows;
}

/** The numbers of rows at their times, and 0 where there is no row. */
function spread(rows: readonly UsageRow[], times: readonly number[]): Series["values"] {
  const found = new Map(rows.map((row) => [secondOf(row.time), row]));
  const column = (measure: Measure): number[] =>
    times.map((time) => Number(found.get(time)?.[measure] ?? 0));
  return {
    calls: column("calls"),
    errors: column("errors"),
    records: column("records"),
    bytes: column("bytes"),
  };
}

function secondOf(time: Timestamp | undefined): number {
  return time === undefined ? 0 : timestampDate(time).getTime() / 1000;
}
