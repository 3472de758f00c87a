/** How calls end. Each begins, and may end with an error of one of the other kinds. */
export type Kind = "calls" | "refused" | "other errors" | "faults of the hub";

export const KINDS: readonly Kind[] = ["calls", "refused", "other errors", "faults of the hub"];

/** Of the reason of an error, as the hub lists it. */
interface Meaning {
  status: string;
  httpStatus: number;
}

/** The codes of gRPC by which a call ends through a fault of the hub. */
const FAULTS = new Set(["INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS"]);
const REFUSALS = new Set([401, 403, 429]);

/**
 * The kind of an error; the scorecard counts the same faults of the hub. A reason that the hub does
 * not list is that of an earlier version, except that of a call whose audit entry was not kept.
 */
export function kindOf(reason: string, meaning: Meaning | undefined): Kind {
  if (meaning === undefined) return reason === "SUPPRESSED" ? "faults of the hub" : "other errors";
  if (FAULTS.has(meaning.status)) return "faults of the hub";
  return REFUSALS.has(meaning.httpStatus) ? "refused" : "other errors";
}
