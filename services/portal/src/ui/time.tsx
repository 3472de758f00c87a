import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";

const FORM = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** A time in the user's time zone; hovering shows its exact form. */
export function When({ at }: { at: Timestamp | undefined }) {
  if (at === undefined) return <>–</>;
  const date = timestampDate(at);
  return (
    <time dateTime={date.toISOString()} title={date.toISOString()}>
      {FORM.format(date)}
    </time>
  );
}

/** The time in an input of type datetime-local; undefined if it is empty. */
export function typedTime(text: string): Timestamp | undefined {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? undefined : timestampFromDate(date);
}

/** A date for an input of type datetime-local. */
export function localTime(date: Date): string {
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 16);
}

export function span(of: Duration | undefined): string {
  if (of === undefined) return "–";
  return spanOf(Number(of.seconds) + of.nanos / 1e9);
}

/** Seconds in a readable form: 12 ms, 3.4 s, 5 min, 2 h, 3 d. */
export function spanOf(seconds: number): string {
  if (seconds === 0) return "0 s";
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 7200) return `${Number((seconds / 60).toFixed(1))} min`;
  if (seconds < 172_800) return `${Number((seconds / 3600).toFixed(1))} h`;
  return `${Number((seconds / 86_400).toFixed(1))} d`;
}
