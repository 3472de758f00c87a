import { useId, useState } from "react";
import { Button } from "../ui/button";
import { Dialog } from "../ui/dialog";

/** Shows a secret once: it is stored nowhere else, and gone when the dialog closes. */
export function SecretDialog({ secret, onClose }: { secret: string; onClose: () => void }) {
  const id = useId();
  const [copied, setCopied] = useState(false);
  const shared = secret.startsWith("whsec_");
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(secret);
    setCopied(true);
  };
  return (
    <Dialog title={shared ? "The signing secret" : "The public key"} onClose={onClose}>
      <p>
        {shared
          ? "Your receiver verifies deliveries with this secret. The hub shows it only once: save it now."
          : "Your receiver verifies deliveries with this key. It is not secret; the settings also show it."}
      </p>
      <div className="field">
        <label htmlFor={id}>{shared ? "Secret" : "Public key"}</label>
        <input
          id={id}
          className="mono"
          readOnly
          value={secret}
          onFocus={(event) => event.target.select()}
        />
      </div>
      <div className="actions">
        {window.isSecureContext ? (
          <Button onClick={() => void copy()}>{copied ? "Copied" : "Copy"}</Button>
        ) : null}
        <Button kind="primary" onClick={onClose}>
          I saved it
        </Button>
      </div>
    </Dialog>
  );
}
