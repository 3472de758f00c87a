import { ConnectError } from "@connectrpc/connect";
import { useEffect, useRef, useState, type FormEvent } from "react";
import { Session, SignInRefused } from "./session";
import { problemOf } from "./problem";
import { Button } from "./ui/button";
import { TextField } from "./ui/field";
import { Mark } from "./ui/mark";

interface Props {
  notice: string;
  onSignIn: (session: Session) => void;
  onEnd: () => void;
}

export function SignIn({ notice, onSignIn, onEnd }: Props) {
  const [consumer, setConsumer] = useState("");
  const [secret, setSecret] = useState("");
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState("");
  const first = useRef<HTMLInputElement>(null);
  useEffect(() => first.current?.focus(), []);

  const signIn = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setRefusal("");
    try {
      onSignIn(await Session.open(consumer.trim(), secret, onEnd));
    } catch (error) {
      setRefusal(said(error));
      setBusy(false);
    }
  };

  return (
    <main className="sign-in">
      <div className="brand large">
        <Mark /> Penstock
      </div>
      <form className="card" onSubmit={(event) => void signIn(event)}>
        <h1>Sign in</h1>
        <p className="quiet">Use the credentials of a consumer. Only this page keeps them, until you reload it.</p>
        {notice && !refusal ? <p className="note">{notice}</p> : null}
        {refusal ? (
          <p className="error" role="alert">
            {refusal}
          </p>
        ) : null}
        <TextField
          label="Client id"
          value={consumer}
          onChange={setConsumer}
          input={{ ref: first, required: true, autoComplete: "username", spellCheck: false }}
        />
        <TextField
          label="Client secret"
          value={secret}
          onChange={setSecret}
          input={{ type: "password", required: true, autoComplete: "current-password" }}
        />
        <Button kind="primary" type="submit" busy={busy}>
          Sign in
        </Button>
      </form>
    </main>
  );
}

function said(error: unknown): string {
  if (error instanceof SignInRefused) return `Not signed in: ${error.message}.`;
  if (error instanceof TypeError) return "The hub cannot be reached.";
  if (error instanceof ConnectError) return problemOf(error).message;
  return error instanceof Error ? error.message : String(error);
}
