import { useState } from "react";
import {
  Webhooks,
  Delivery_State,
  type Attempt,
  type Delivery,
} from "@gen/penstock/hub/v1/webhooks_pb";
import { useClient } from "../current";
import { useAction, useLoaded, useWatching } from "../loading";
import { href } from "../place";
import { Badge } from "../ui/badge";
import { Button } from "../ui/button";
import { span, When } from "../ui/time";
import { Facts, ProblemLine, Shown } from "../ui/told";
import { ReplayDialog } from "./dialogs";
import { DeliveryBadge, isMoving } from "./words";

interface Props {
  webhookId: string;
  deliveryId: string;
}

/** One delivery: its state, every attempt, and its body. */
export function DeliveryPage({ webhookId, deliveryId }: Props) {
  const webhooks = useClient(Webhooks);
  const loaded = useLoaded(
    (signal) => webhooks.getDelivery({ webhookId, deliveryId }, { signal }),
    [webhooks, webhookId, deliveryId],
  );
  useWatching(loaded.value !== undefined && isMoving(loaded.value), loaded.again);
  return (
    <>
      <p className="trail">
        <a href={href("webhooks")}>Webhooks</a> / <a href={href("webhooks", webhookId)}>{webhookId}</a>
      </p>
      <Shown of={loaded}>
        {(delivery) => (
          <>
            <Head delivery={delivery} onChange={loaded.again} />
            <Summary delivery={delivery} />
            <h2>Attempts</h2>
            {delivery.attempts.length === 0 ? (
              <p className="empty">The delivery has not been sent yet.</p>
            ) : null}
            <ol className="attempts">
              {delivery.attempts.toReversed().map((attempt, i) => (
                <AttemptCard key={attempt.number} attempt={attempt} latest={i === 0} />
              ))}
            </ol>
            <h2>Body</h2>
            <p className="quiet">The body as the hub would send it now.</p>
            {delivery.body.length > 0 ? (
              <pre>{formatted(delivery.body)}</pre>
            ) : (
              <p className="empty">The body no longer exists, or you may not see any of it.</p>
            )}
          </>
        )}
      </Shown>
    </>
  );
}

function Head({ delivery, onChange }: { delivery: Delivery; onChange: () => void }) {
  const webhooks = useClient(Webhooks);
  const action = useAction();
  const [replaying, setReplaying] = useState(false);
  const { webhookId, deliveryId } = delivery;
  const cursor = cursorOf(delivery.body);
  const resend = (): void => {
    void action.run(async () => {
      await webhooks.resendDelivery({ webhookId, deliveryId });
      onChange();
    });
  };
  return (
    <>
      <div className="head">
        <div>
          <h1>
            {delivery.eventType} <DeliveryBadge delivery={delivery} />
          </h1>
          <p className="quiet breaking">
            <code>{deliveryId}</code>
          </p>
        </div>
        <div className="actions">
          <Button onClick={onChange}>Refresh</Button>
          {cursor ? (
            <Button onClick={() => setReplaying(true)}>Replay later changes …</Button>
          ) : null}
          <Button kind="primary" onClick={resend} busy={action.busy}>
            Resend
          </Button>
        </div>
      </div>
      <ProblemLine problem={action.problem} />
      {replaying ? (
        <ReplayDialog id={webhookId} cursor={cursor} onClose={() => setReplaying(false)} />
      ) : null}
    </>
  );
}

function Summary({ delivery }: { delivery: Delivery }) {
  const ended =
    delivery.state === Delivery_State.DELIVERED || delivery.state === Delivery_State.DEAD;
  const record = [delivery.dataset, delivery.key].filter(Boolean).join(" / ");
  return (
    <Facts
      of={[
        ["Record", record || "–"],
        ["Cause", delivery.cause.toLowerCase()],
        ["Events", delivery.eventCount],
        ["Reason", delivery.reason || "–"],
        ["Attempts", delivery.attemptCount],
        ["Committed", <When at={delivery.eventTime} />],
        ["Queued", <When at={delivery.createTime} />],
        ended
          ? ["Finished", <When at={delivery.finishTime} />]
          : ["Next try", <When at={delivery.nextTime} />],
      ]}
    />
  );
}

function AttemptCard({ attempt, latest }: { attempt: Attempt; latest: boolean }) {
  const outcome = [attempt.status || "", attempt.reason].filter(Boolean).join(" ");
  return (
    <li className="card" aria-label={`Attempt ${attempt.number}`}>
      <div className="head">
        <h3>
          Attempt {attempt.number}{" "}
          <Badge tone={attempt.delivered ? "good" : "bad"}>
            {outcome || (attempt.delivered ? "taken" : "failed")}
          </Badge>
        </h3>
        <span className="quiet">
          <When at={attempt.startTime} /> · {span(attempt.latency)}
        </span>
      </div>
      <Facts
        of={[
          ["Latency", span(attempt.latency)],
          ["Answered by", attempt.address || "–"],
          ["Body sent", `${attempt.bodyBytes} bytes`],
          ["Next try", attempt.delivered ? "none is needed" : <When at={attempt.nextTime} />],
        ]}
      />
      <Part title="Request" text={attempt.requestHead} open={latest} />
      <Part
        title={attempt.status ? "Reply" : "What went wrong"}
        text={attempt.responseHead}
        open={latest}
      />
      <Part title="Body of the reply" text={decoded(attempt.responseBody)} open={latest} />
    </li>
  );
}

function Part({ title, text, open }: { title: string; text: string; open: boolean }) {
  if (!text) return null;
  return (
    <details open={open}>
      <summary>{title}</summary>
      <pre>{text}</pre>
    </details>
  );
}

function decoded(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // XML, or cut off
  }
}

function formatted(bytes: Uint8Array): string {
  const text = decoded(bytes);
  const document = parsed(text);
  return document === undefined ? text : JSON.stringify(document, null, 2);
}

/** The cursor of the feed after the event in a body; empty if the body has none. */
function cursorOf(bytes: Uint8Array): string {
  const document = parsed(decoded(bytes)) as { data?: { cursor?: unknown } } | null | undefined;
  const cursor = document?.data?.cursor;
  return typeof cursor === "string" ? cursor : "";
}
