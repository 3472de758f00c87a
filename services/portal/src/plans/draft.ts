import type { Quota, RateLimit } from "@gen/penstock/hub/v1/limits_pb";
import type { Plan } from "@gen/penstock/hub/v1/plans_pb";
import type { Problem } from "../problem";
import { bytes, count } from "../ui/numbers";

/** A rate in a form: numbers are the typed text. `of` is a dataset, a method, or empty for all. */
export interface RateDraft {
  perSecond: string;
  burst: string;
  of: string;
  unlimited: boolean;
}

export interface QuotaDraft {
  what: string;
  per: string;
  limit: string;
  soft: boolean;
  of: string;
  unlimited: boolean;
}

export interface LimitsDraft {
  rates: readonly RateDraft[];
  calls: string;
  streams: string;
  exports: string;
  quotas: readonly QuotaDraft[];
}

export interface PlanDraft extends LimitsDraft {
  planId: string;
  description: string;
  timeZone: string;
  shadow: boolean;
}

export const WHAT = ["calls", "records", "bytes", "webhook_attempts", "import_records"].map(
  (what) => [what, what.replace("_", " ")] as const,
);
export const PER = ["minute", "hour", "day", "month"].map((per) => [per, per] as const);

export const NO_LIMITS: LimitsDraft = { rates: [], calls: "", streams: "", exports: "", quotas: [] };
export const NEW_PLAN: PlanDraft = {
  ...NO_LIMITS,
  planId: "",
  description: "",
  timeZone: "",
  shadow: false,
};

interface Limits {
  rates: readonly RateLimit[];
  concurrent?: { calls: number; streams: number; exports: number } | undefined;
  quotas: readonly Quota[];
}

export function limitsDraftOf(limits: Limits | undefined): LimitsDraft {
  const places = limits?.concurrent;
  return {
    rates: (limits?.rates ?? []).map((rate) => ({
      perSecond: String(rate.perSecond),
      burst: String(rate.burst),
      of: rate.dataset || rate.method,
      unlimited: rate.unlimited,
    })),
    calls: String(places?.calls || ""),
    streams: String(places?.streams || ""),
    exports: String(places?.exports || ""),
    quotas: (limits?.quotas ?? []).map((quota) => ({
      what: quota.what,
      per: quota.per,
      limit: String(quota.limit),
      soft: quota.soft,
      of: quota.dataset || quota.method,
      unlimited: quota.unlimited,
    })),
  };
}

export function planDraftOf(plan: Plan): PlanDraft {
  const { planId, description, timeZone, shadow } = plan;
  return { ...limitsDraftOf(plan), planId, description, timeZone, shadow };
}

/** The limits that a draft describes, for a request. */
export function limitsOf(draft: LimitsDraft) {
  const { calls, streams, exports } = draft;
  return {
    rates: draft.rates.map(({ perSecond, burst, of, unlimited }) =>
      unlimited
        ? { unlimited, ...reach(of) }
        : { perSecond: real(perSecond), burst: whole(burst), ...reach(of) },
    ),
    concurrent: { calls: place(calls), streams: place(streams), exports: place(exports) },
    quotas: draft.quotas.map(({ what, per, limit, soft, of, unlimited }) =>
      unlimited
        ? { what, per, unlimited, ...reach(of) }
        : { what, per, soft, limit: large(limit), ...reach(of) },
    ),
  };
}

/** Each part of a draft by its name, in words; two descriptions show what differs. */
export function describePlan(draft: PlanDraft): Map<string, string> {
  const parts = new Map<string, string>();
  if (draft.description) parts.set("description", draft.description.trim());
  parts.set("time zone", draft.timeZone.trim() || "UTC");
  parts.set("refuses", draft.shadow ? "nothing by rates: they only count" : "what is over a rate");
  return new Map([...parts, ...describeLimits(draft)]);
}

export function describeLimits(draft: LimitsDraft): Map<string, string> {
  const parts = new Map<string, string>();
  for (const rate of draft.rates) {
    const text = `${rate.perSecond} a second, ${rate.burst} at once`;
    parts.set(`rate${suffix(rate.of)}`, rate.unlimited ? "no limit" : text);
  }
  for (const name of ["calls", "streams", "exports"] as const) {
    const most = draft[name].trim();
    if (most && most !== "0") parts.set(`${name} at one time`, most === "-1" ? "no limit" : most);
  }
  for (const quota of draft.quotas) {
    const size = quota.what === "bytes" ? sized(quota.limit) : counted(quota.limit);
    const text = quota.soft ? `${size}, only counted` : size;
    const name = `${quota.what.replace("_", " ")} a ${quota.per}${suffix(quota.of)}`;
    parts.set(name, quota.unlimited ? "no limit" : text);
  }
  return parts;
}

/** One part that differs; empty where there is none. */
export interface Difference {
  part: string;
  before: string;
  after: string;
}

export function differencesOf(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): Difference[] {
  return [...new Set([...before.keys(), ...after.keys()])]
    .map((part) => ({ part, before: before.get(part) ?? "", after: after.get(part) ?? "" }))
    .filter((found) => found.before !== found.after);
}

/** Field of the form, such as `rates[0].burst`, -> the hub's error about it. */
export function faultsOf(problem: Problem | undefined): ReadonlyMap<string, string> {
  const faults = [...(problem?.fields ?? [])].map(
    ([field, text]) => [field.replace(/^(plan|consumer\.limits|consumer)\./, ""), text] as const,
  );
  return new Map(faults);
}

function reach(of: string): { method?: string; dataset?: string } {
  const name = of.trim();
  if (!name) return {};
  return name.startsWith("/") ? { method: name } : { dataset: name };
}

function suffix(of: string): string {
  return of.trim() ? ` of ${of.trim()}` : "";
}

function counted(text: string): string {
  return /^\d+$/.test(text.trim()) ? count(BigInt(text.trim())) : text;
}

function sized(text: string): string {
  const exact = counted(text);
  return /^\d{4,}$/.test(text.trim()) ? `${bytes(BigInt(text.trim()))} (${exact})` : `${exact} B`;
}

// A text that is no number of its kind becomes one that the hub refuses and names.

function real(text: string): number {
  return text.trim() ? Number(text) : -1;
}

function whole(text: string): number {
  const number = text.trim() ? Number(text) : -1;
  return Number.isInteger(number) && Math.abs(number) < 2 ** 31 ? number : -(2 ** 31);
}

function place(text: string): number {
  return text.trim() ? whole(text) : 0;
}

function large(text: string): bigint {
  return /^\d{1,18}$/.test(text.trim()) ? BigInt(text.trim()) : -1n;
}
