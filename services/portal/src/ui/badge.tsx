import type { ReactNode } from "react";

export type Tone = "good" | "bad" | "waiting" | "muted";

/** A state in one word. The word says it; the colour only helps to find it. */
export function Badge({ tone, children }: { tone: Tone; children: ReactNode }) {
  return <span className={`badge ${tone}`}>{children}</span>;
}
