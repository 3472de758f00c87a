import { useState } from "react";
import { Datasets, type Dataset } from "@gen/penstock/hub/v1/datasets_pb";
import { Webhooks, type Webhook } from "@gen/penstock/hub/v1/webhooks_pb";
import { useClient, useSession } from "../current";
import { useAction, useLoaded } from "../loading";
import { go, href } from "../place";
import { Shown } from "../ui/told";
import { draftOf, EMPTY, maskOf, webhookOf } from "./draft";
import { WebhookForm } from "./form";
import { SecretDialog } from "./secret";
import { nameOf } from "./words";

export function NewWebhook() {
  const session = useSession();
  const datasets = useLoaded((signal) => readable(session, signal), [session]);
  const action = useAction();
  const [draft, setDraft] = useState(EMPTY);
  const [issued, setIssued] = useState<{ id: string; secret: string }>();
  const make = (): void => {
    void action.run(async () => {
      const { webhook, secret } = await session.client(Webhooks).createWebhook({
        webhook: webhookOf(draft),
      });
      setIssued({ id: webhook?.webhookId ?? "", secret });
    });
  };
  return (
    <>
      <p className="trail">
        <a href={href("webhooks")}>Webhooks</a>
      </p>
      <h1>New webhook</h1>
      <Shown of={datasets}>
        {(found) => (
          <WebhookForm
            draft={draft}
            change={(changed) => setDraft((old) => ({ ...old, ...changed }))}
            datasets={found}
            action={action}
            verb="Create"
            back={["webhooks"]}
            kept={undefined}
            onSubmit={make}
          />
        )}
      </Shown>
      {issued === undefined ? null : (
        <SecretDialog secret={issued.secret} onClose={() => go("webhooks", issued.id)} />
      )}
    </>
  );
}

export function EditWebhook({ id }: { id: string }) {
  const session = useSession();
  const loaded = useLoaded(
    async (signal) => {
      const [webhook, datasets] = await Promise.all([
        session.client(Webhooks).getWebhook({ webhookId: id }, { signal }),
        readable(session, signal),
      ]);
      return { webhook, datasets };
    },
    [session, id],
  );
  return (
    <>
      <p className="trail">
        <a href={href("webhooks")}>Webhooks</a> / <a href={href("webhooks", id)}>{id}</a>
      </p>
      <Shown of={loaded}>
        {({ webhook, datasets }) => <Editing webhook={webhook} datasets={datasets} />}
      </Shown>
    </>
  );
}

function Editing({ webhook, datasets }: { webhook: Webhook; datasets: readonly Dataset[] }) {
  const webhooks = useClient(Webhooks);
  const { webhookId } = webhook;
  const action = useAction();
  const [draft, setDraft] = useState(() => draftOf(webhook));
  const [issued, setIssued] = useState("");
  const done = (): void => go("webhooks", webhookId, "settings");
  const save = (): void => {
    void action.run(async () => {
      const { secret } = await webhooks.updateWebhook({
        webhook: { ...webhookOf(draft), webhookId },
        updateMask: { paths: maskOf(draft) },
      });
      // At another origin it has another secret.
      if (secret) setIssued(secret);
      else done();
    });
  };
  return (
    <>
      <h1 className="breaking">Edit {nameOf(webhook)}</h1>
      <WebhookForm
        draft={draft}
        change={(changed) => setDraft((old) => ({ ...old, ...changed }))}
        datasets={datasets}
        action={action}
        verb="Save"
        back={["webhooks", webhookId]}
        kept={Object.keys(webhook.headers)}
        onSubmit={save}
      />
      {issued ? <SecretDialog secret={issued} onClose={done} /> : null}
    </>
  );
}

/** The datasets whose events the user may receive. */
async function readable(
  session: ReturnType<typeof useSession>,
  signal: AbortSignal,
): Promise<readonly Dataset[]> {
  return (await session.client(Datasets).listDatasets({}, { signal })).datasets;
}
