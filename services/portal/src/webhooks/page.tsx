import { useState } from "react";
import {
  Webhooks,
  Webhook_Kind,
  Webhook_State,
  type Webhook,
} from "@gen/penstock/hub/v1/webhooks_pb";
import { useClient, useSession } from "../current";
import { useAction, useLoaded } from "../loading";
import { go, href } from "../place";
import { Button } from "../ui/button";
import { Tabs } from "../ui/tabs";
import { When } from "../ui/time";
import { ProblemLine, Shown } from "../ui/told";
import { Deliveries } from "./deliveries";
import { DeleteDialog, RecoverDialog, ReplayDialog, RotateDialog } from "./dialogs";
import { Figures } from "./figures";
import { Settings } from "./settings";
import { nameOf, placeOf, WebhookBadge } from "./words";

type Opened = "rotate" | "recover" | "replay" | "delete" | undefined;

/** One webhook: its figures and actions, and its deliveries or its settings. */
export function WebhookPage({ id, tab }: { id: string; tab: string }) {
  const session = useSession();
  const loaded = useLoaded(
    (signal) => session.client(Webhooks).getWebhook({ webhookId: id }, { signal }),
    [session, id],
  );
  const [round, setRound] = useState(0);
  const again = (): void => {
    loaded.again();
    setRound((n) => n + 1);
  };
  return (
    <>
      <p className="trail">
        <a href={href("webhooks")}>Webhooks</a>
      </p>
      <Shown of={loaded}>
        {(webhook) => (
          <>
            <Head webhook={webhook} onChange={again} />
            <Warnings webhook={webhook} />
            <Figures id={id} round={round} />
            <Tabs
              label="Parts of the webhook"
              tabs={[
                [href("webhooks", id), "Deliveries"],
                [href("webhooks", id, "settings"), "Settings"],
              ]}
              here={tab === "settings" ? href("webhooks", id, "settings") : href("webhooks", id)}
            />
            {tab === "settings" ? (
              <Settings webhook={webhook} />
            ) : (
              <Deliveries id={id} sending={webhook.state === Webhook_State.ACTIVE} round={round} />
            )}
          </>
        )}
      </Shown>
    </>
  );
}

function Head({ webhook, onChange }: { webhook: Webhook; onChange: () => void }) {
  const webhooks = useClient(Webhooks);
  const { webhookId } = webhook;
  const action = useAction();
  const [opened, setOpened] = useState<Opened>();
  const act = (work: () => Promise<unknown>): void => {
    void action.run(async () => {
      await work();
      onChange();
    });
  };
  const sendTest = (): void => {
    void action.run(async () => {
      const sent = await webhooks.testWebhook({ webhookId });
      go("webhooks", webhookId, "deliveries", sent.deliveryId);
    });
  };
  const close = (changed: boolean): void => {
    setOpened(undefined);
    if (changed) onChange();
  };
  const active = webhook.state === Webhook_State.ACTIVE;
  return (
    <>
      <div className="head">
        <div>
          <h1 className="breaking">
            {nameOf(webhook)} <WebhookBadge webhook={webhook} />
          </h1>
          <p className="quiet breaking">
            {webhook.title ? <>{placeOf(webhook)} · </> : null}
            <code>{webhookId}</code>
          </p>
        </div>
        <div className="actions">
          <Button kind="primary" onClick={sendTest} busy={action.busy}>
            Send test
          </Button>
          {active ? (
            <Button onClick={() => act(() => webhooks.pauseWebhook({ webhookId }))}>Pause</Button>
          ) : (
            <Button onClick={() => act(() => webhooks.resumeWebhook({ webhookId }))}>Resume</Button>
          )}
          {webhook.kind === Webhook_Kind.LISTEN ? null : (
            <a className="button secondary" href={href("webhooks", webhookId, "edit")}>
              Edit
            </a>
          )}
          <Button onClick={() => setOpened("recover")}>Recover …</Button>
          <Button onClick={() => setOpened("replay")}>Replay …</Button>
          <Button onClick={() => setOpened("rotate")}>Rotate secret …</Button>
          <Button kind="danger" onClick={() => setOpened("delete")}>
            Delete …
          </Button>
        </div>
      </div>
      <ProblemLine problem={action.problem} />
      {opened === "recover" ? <RecoverDialog id={webhookId} onClose={close} /> : null}
      {opened === "replay" ? <ReplayDialog id={webhookId} cursor="" onClose={close} /> : null}
      {opened === "rotate" ? <RotateDialog webhook={webhook} onClose={close} /> : null}
      {opened === "delete" ? <DeleteDialog webhook={webhook} onClose={close} /> : null}
    </>
  );
}

function Warnings({ webhook }: { webhook: Webhook }) {
  return (
    <>
      {webhook.state === Webhook_State.DISABLED ? (
        <p className="error">
          This webhook is disabled: {disabledBy(webhook.reason)} New events become dead letters at once.
          Resume it, then recover them.
        </p>
      ) : null}
      {webhook.state === Webhook_State.PAUSED ? (
        <p className="note">This webhook is paused: new events wait until it is resumed.</p>
      ) : null}
      {webhook.failingTime !== undefined ? (
        <p className="error">
          Every attempt has failed since <When at={webhook.failingTime} />.
        </p>
      ) : null}
      {Object.entries(webhook.problems).map(([dataset, problem]) => (
        <p className="error" key={dataset}>
          No events of {dataset}: {problem}
        </p>
      ))}
      {webhook.replay !== undefined ? (
        <p className="note" role="status">
          A replay runs. It is at <code>{webhook.replay.cursor}</code> and ends at{" "}
          <code>{webhook.replay.endCursor}</code>.
        </p>
      ) : null}
    </>
  );
}

function disabledBy(reason: string): string {
  if (reason === "GONE") return "the receiver answered 410 Gone.";
  if (reason === "FAILED_FOR_DAYS") return "no delivery was taken for days.";
  return reason ? `${reason}.` : "";
}
