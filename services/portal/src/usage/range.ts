/** A range of time, in milliseconds since 1970. */
export interface Range {
  from: number;
  to: number;
}

export type Period = "minute" | "hour" | "day";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** Spans that end now, by their length in milliseconds. */
export const SPANS: ReadonlyArray<readonly [number, string]> = [
  [HOUR, "last hour"],
  [6 * HOUR, "last 6 hours"],
  [DAY, "last 24 hours"],
  [7 * DAY, "last 7 days"],
  [30 * DAY, "last 30 days"],
  [90 * DAY, "last 90 days"],
];

/** The zone of hours and days: the user's own. */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function periodOf({ from, to }: Range): Period {
  if (to - from <= 6 * HOUR) return "minute";
  return to - from <= 14 * DAY ? "hour" : "day";
}

/** The starts of all periods of a range, in seconds; a report leaves out those without usage. */
export function startsOf({ from, to }: Range, period: Period): number[] {
  const starts: number[] = [];
  for (let at = startOf(from, period); at < to; at = next(at, period)) starts.push(at / 1000);
  return starts;
}

function startOf(time: number, period: Period): number {
  const date = new Date(time);
  if (period === "day") date.setHours(0, 0, 0, 0);
  else if (period === "hour") date.setMinutes(0, 0, 0);
  else date.setSeconds(0, 0);
  return date.getTime();
}

function next(time: number, period: Period): number {
  if (period !== "day") return time + (period === "hour" ? HOUR : 60_000);
  // Days in which clocks change have 23 or 25 hours.
  const date = new Date(time);
  date.setDate(date.getDate() + 1);
  return date.getTime();
}
