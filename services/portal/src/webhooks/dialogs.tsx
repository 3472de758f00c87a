import { useState, type FormEvent, type ReactNode } from "react";
import {
  Webhooks,
  WebhookOptions_Signature as Signature,
  type Webhook,
} from "@gen/penstock/hub/v1/webhooks_pb";
import { useClient } from "../current";
import { useAction, type Action } from "../loading";
import { go } from "../place";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";
import { Choice, TextField } from "../ui/field";
import { localTime, typedTime } from "../ui/time";
import { ProblemLine } from "../ui/told";
import { SIGNATURES } from "./options";
import { SecretDialog } from "./secret";
import { nameOf } from "./words";

/** The argument tells whether something has changed. */
type Closed = (changed: boolean) => void;

const DAY = 86_400_000;

export function RecoverDialog({ id, onClose }: { id: string; onClose: Closed }) {
  const webhooks = useClient(Webhooks);
  const action = useAction();
  const [since, setSince] = useState(() => localTime(new Date(Date.now() - DAY)));
  const [until, setUntil] = useState("");
  const [count, setCount] = useState<bigint>();
  const recover = (): void => {
    const [startTime, endTime] = [typedTime(since), typedTime(until)];
    if (startTime === undefined) return;
    const request = { webhookId: id, startTime, ...(endTime && { endTime }) };
    void action.run(async () => {
      setCount((await webhooks.recoverDeliveries(request)).deliveryCount);
    });
  };
  if (count !== undefined) {
    return (
      <Dialog title="Recovered" onClose={() => onClose(true)}>
        <p role="status">
          {count === 1n ? "1 delivery is sent again." : `${count} deliveries are sent again.`}
        </p>
        <div className="actions">
          <Button kind="primary" onClick={() => onClose(true)}>
            Close
          </Button>
        </div>
      </Dialog>
    );
  }
  return (
    <Asking title="Recover failed deliveries" verb="Recover" act={recover} {...{ action, onClose }}>
      <p>All dead deliveries that were queued in this time are sent again, with the same ids.</p>
      <TextField
        label="From"
        value={since}
        onChange={setSince}
        input={{ type: "datetime-local", required: true }}
        error={action.problem?.fields.get("start_time")}
      />
      <TextField
        label="Before (empty: until now)"
        value={until}
        onChange={setUntil}
        input={{ type: "datetime-local" }}
        error={action.problem?.fields.get("end_time")}
      />
    </Asking>
  );
}

export function ReplayDialog(props: { id: string; cursor: string; onClose: Closed }) {
  const { id, onClose } = props;
  const webhooks = useClient(Webhooks);
  const action = useAction();
  const [cursor, setCursor] = useState(props.cursor);
  const [endCursor, setEndCursor] = useState("");
  const replay = (): void => {
    const request = { webhookId: id, cursor: cursor.trim(), endCursor: endCursor.trim() };
    void action.run(async () => {
      await webhooks.replayChanges(request);
      onClose(true);
    });
  };
  return (
    <Asking title="Replay a range of changes" verb="Replay" act={replay} {...{ action, onClose }}>
      <p>The changes after a cursor are sent once more, as new deliveries.</p>
      <TextField
        label="After cursor"
        value={cursor}
        onChange={setCursor}
        hint="From a delivery, an export or a feed."
        input={{ required: true, spellCheck: false, className: "mono" }}
        error={action.problem?.fields.get("cursor")}
      />
      <TextField
        label="Up to cursor (empty: until now)"
        value={endCursor}
        onChange={setEndCursor}
        input={{ spellCheck: false, className: "mono" }}
        error={action.problem?.fields.get("end_cursor")}
      />
    </Asking>
  );
}

const OVERLAPS = [
  [0, "not at all: it ends now"],
  [3600, "1 hour"],
  [86_400, "1 day"],
  [604_800, "7 days"],
  [2_592_000, "30 days"],
] as const;

export function RotateDialog({ webhook, onClose }: { webhook: Webhook; onClose: Closed }) {
  const webhooks = useClient(Webhooks);
  const action = useAction();
  const [overlap, setOverlap] = useState<number>(86_400);
  const [signature, setSignature] = useState(webhook.options?.signature ?? Signature.HMAC_SHA256);
  const [secret, setSecret] = useState("");
  const rotate = (): void => {
    const { webhookId } = webhook;
    const request = { webhookId, signature, overlap: { seconds: BigInt(overlap), nanos: 0 } };
    void action.run(async () => setSecret((await webhooks.rotateSecret(request)).secret));
  };
  if (secret) return <SecretDialog secret={secret} onClose={() => onClose(true)} />;
  return (
    <Asking title="Rotate the secret" verb="Rotate" act={rotate} {...{ action, onClose }}>
      <p>The new secret signs at once. The old one also signs for the time that you choose.</p>
      <Choice
        label="The old secret signs for"
        value={overlap}
        choices={OVERLAPS}
        onChange={setOverlap}
        error={action.problem?.fields.get("overlap")}
      />
      <Choice
        label="The new secret is"
        value={signature}
        choices={SIGNATURES}
        onChange={setSignature}
      />
    </Asking>
  );
}

export function DeleteDialog({ webhook, onClose }: { webhook: Webhook; onClose: Closed }) {
  const webhooks = useClient(Webhooks);
  const action = useAction();
  const remove = (): void => {
    void action.run(async () => {
      await webhooks.deleteWebhook({ webhookId: webhook.webhookId });
      go("webhooks");
    });
  };
  return (
    <Asking title="Delete the webhook" verb="Delete" danger act={remove} {...{ action, onClose }}>
      <p>
        <strong className="breaking">{nameOf(webhook)}</strong> and all its deliveries are deleted.
        This cannot be undone.
      </p>
    </Asking>
  );
}

interface AskingProps {
  title: string;
  verb: string;
  danger?: boolean;
  action: Action;
  act: () => void;
  onClose: Closed;
  children: ReactNode;
}

/** A confirmation before an action. */
function Asking({ title, verb, danger, action, act, onClose, children }: AskingProps) {
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    act();
  };
  return (
    <Dialog title={title} onClose={() => onClose(false)}>
      <form onSubmit={submit}>
        {children}
        <ProblemLine problem={action.problem} />
        <div className="actions">
          <Button onClick={() => onClose(false)}>Cancel</Button>
          <Button kind={danger ? "danger" : "primary"} type="submit" busy={action.busy}>
            {verb}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
