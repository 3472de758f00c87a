import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { useState } from "react";
import { Webhooks, type WebhookMetrics } from "@gen/penstock/hub/v1/webhooks_pb";
import { useSession } from "../current";
import { useLoaded } from "../loading";
import { Choice } from "../ui/field";
import { span } from "../ui/time";
import { Tiles } from "../ui/tiles";
import { Shown } from "../ui/told";
import { percent } from "./words";

const HOURS = [
  [1, "last hour"],
  [24, "last 24 hours"],
  [168, "last 7 days"],
  [336, "last 14 days"],
] as const;

/** Figures of a webhook's deliveries; a change of `round` reloads them. */
export function Figures({ id, round }: { id: string; round: number }) {
  const session = useSession();
  const [hours, setHours] = useState<number>(24);
  const loaded = useLoaded(
    (signal) => {
      const startTime = timestampFromDate(new Date(Date.now() - hours * 3_600_000));
      return session.client(Webhooks).getWebhookMetrics({ webhookId: id, startTime }, { signal });
    },
    [session, id, hours, round],
  );
  return (
    <section className="figures" aria-label="Figures">
      <Choice label="Period" value={hours} choices={HOURS} onChange={setHours} />
      <Shown of={loaded}>
        {(metrics) => (
          <Tiles of={tiles(metrics).map(([name, value, bad]) => ({ name, value, bad }))} />
        )}
      </Shown>
    </section>
  );
}

function tiles(metrics: WebhookMetrics): Array<[string, string, boolean]> {
  const dead = Object.entries(metrics.deadReasons).map(([reason, n]) => `${n} ${reason}`);
  return [
    ["Success", percent(metrics.successRate), (metrics.successRate ?? 1) < 1],
    ["Attempts", String(metrics.attemptCount), false],
    ["Retries", String(metrics.retryCount), false],
    ["Latency p50", span(metrics.latencyP50), false],
    ["p95", span(metrics.latencyP95), false],
    ["p99", span(metrics.latencyP99), false],
    ["Waiting", String(metrics.waitingCount), false],
    ["Oldest undelivered", span(metrics.oldestAge), false],
    ["Dead", dead.join(", ") || "0", metrics.deadCount > 0n],
  ];
}
