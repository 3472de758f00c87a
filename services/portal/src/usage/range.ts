/** A range of time, in milliseconds since 1970. */
export interface Range {
  from: number;
  to: number;
}

export type Period = "minute" | "hour" | "day";

/** The periods of a report, and the time zone whose hours and days they are. */
export interface Grain {
  period: Period;
  zone: string;
  /** What a range must be whole multiples of, in milliseconds since 1970. */
  unit: number;
}

const MINUTE = 60_000;
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

/** How a range is reported. By hour and day it begins and ends with an hour of UTC. */
export function grainOf({ from, to }: Range): Grain {
  if (to - from <= 6 * HOUR) return { period: "minute", zone: ZONE, unit: MINUTE };
  return { period: to - from <= 14 * DAY ? "hour" : "day", zone: ZONE, unit: HOUR };
}

/**
 * How a range is reported whose finer counts the hub keeps no longer: by the hours and days of UTC,
 * of which it keeps the counts longest. Hours of other zones may begin at half past.
 */
export function coarseGrainOf(range: Range): Grain {
  const day = grainOf(range).period === "day";
  return { period: day ? "day" : "hour", zone: "UTC", unit: day ? DAY : HOUR };
}

/** The whole units that a range touches; what would end in the future ends now. */
export function widened({ from, to }: Range, { unit }: Grain, now: number): Range {
  const end = Math.ceil(to / unit) * unit;
  return { from: Math.floor(from / unit) * unit, to: Math.max(to, Math.min(end, now)) };
}

/** The starts of all periods of a range, in seconds; a report leaves out those without usage. */
export function startsOf({ from, to }: Range, grain: Grain): number[] {
  const starts: number[] = [];
  for (let at = startOf(from, grain); at < to; at = next(at, grain)) starts.push(at / 1000);
  return starts;
}

function startOf(time: number, { period, zone }: Grain): number {
  if (zone === "UTC") return Math.floor(time / lengthOf(period)) * lengthOf(period);
  const date = new Date(time);
  if (period === "day") date.setHours(0, 0, 0, 0);
  else if (period === "hour") date.setMinutes(0, 0, 0);
  else date.setSeconds(0, 0);
  return date.getTime();
}

function next(time: number, { period, zone }: Grain): number {
  if (period !== "day" || zone === "UTC") return time + lengthOf(period);
  // Days in which clocks change have 23 or 25 hours; where midnight is skipped, they begin later,
  // and the next day begins at midnight again.
  const date = new Date(time);
  date.setDate(date.getDate() + 1);
  date.setHours(0, 0, 0, 0);
  return date.getTime();
}

function lengthOf(period: Period): number {
  return period === "day" ? DAY : period === "hour" ? HOUR : MINUTE;
}
