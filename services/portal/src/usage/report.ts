import { timestampDate, timestampFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import type {
  ReportUsageRequest,
  ReportUsageResponse,
  Usage,
  UsageRow,
} from "@gen/penstock/hub/v1/usage_pb";
import { periodOf, startsOf, ZONE, type Period, type Range } from "./range";

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
  period: Period;
  fresh: Timestamp | undefined;
}

/** Lines of a chart: more cannot be told apart. */
const LINES = 5;
/** The groups that calls without credentials, plans or datasets belong to cannot be asked for. */
export const UNNAMED = "(none)";

/** Everything that the page shows, of one range. */
export async function readReport(
  client: UsageClient,
  question: Question,
  signal: AbortSignal,
): Promise<Report> {
  const { group, measure, top, range } = question;
  const period = periodOf(range);
  const [total, grouped] = await Promise.all([
    ask(client, question, {}, signal),
    group
      ? ask(client, question, { groupBy: [group], orderBy: measure, pageSize: top }, signal)
      : undefined,
  ]);
  const groups = grouped?.rows ?? [];
  const named = groups.map((row) => nameOf(row, group)).filter((name) => name !== UNNAMED);
  const lines = group ? named.slice(0, LINES) : [""];
  const times = startsOf(range, period);
  const series = await Promise.all(
    lines.map(async (name) => {
      const only = group ? { [group]: name } : {};
      const rows = await askAll(client, question, { ...only, groupBy: [period] }, signal);
      return { name: name || "total", values: spread(rows, times) };
    }),
  );
  return { total: total.rows[0], groups, times, series, period, fresh: total.freshTime };
}

/** The consumers with usage in a range, the busiest first. */
export async function readConsumers(
  client: UsageClient,
  range: Range,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const question = { range, consumer: "" };
  const sought = { groupBy: ["consumer"], orderBy: "calls", pageSize: 200 };
  const { rows } = await ask(client, question, sought, signal);
  return rows.map((row) => row.consumer).filter(Boolean);
}

/** The report of a question as a file of the hub, in CSV. */
export async function exportReport(client: UsageClient, question: Question): Promise<Uint8Array[]> {
  const groups = question.group ? [question.group] : [];
  const period = periodOf(question.range);
  const request = { ...sought(question), groupBy: [...groups, period], format: "CSV" };
  const pieces: Uint8Array[] = [];
  for await (const body of client.exportUsage(request)) pieces.push(body.data);
  return pieces;
}

export function nameOf(row: UsageRow, group: Group): string {
  return (group ? row[group] : "") || UNNAMED;
}

type Asked = Pick<Question, "range" | "consumer">;
type Wanted = Partial<Omit<ReportUsageRequest, "$typeName" | "$unknown">>;

function sought({ range, consumer }: Asked) {
  return {
    startTime: timestampFromMs(range.from),
    endTime: timestampFromMs(range.to),
    timeZone: ZONE,
    ...(consumer && { consumer }),
  };
}

function ask(
  client: UsageClient,
  question: Asked,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<ReportUsageResponse> {
  return client.reportUsage({ ...sought(question), ...wanted }, { signal });
}

/** The rows of all pages. */
export async function askAll(
  client: UsageClient,
  question: Asked,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<readonly UsageRow[]> {
  const rows: UsageRow[] = [];
  let pageToken = "";
  do {
    const page = await ask(client, question, { ...wanted, pageSize: 1000, pageToken }, signal);
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
