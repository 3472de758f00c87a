import { useCallback, useState } from "react";
import { CurrentSession } from "./current";
import { go } from "./place";
import type { Session } from "./session";
import { Shell } from "./shell/shell";
import { SignIn } from "./sign_in";

export function App() {
  const [session, setSession] = useState<Session>();
  const [notice, setNotice] = useState("");
  const end = useCallback(() => {
    setSession(undefined);
    setNotice("The session has ended. Sign in again to continue.");
  }, []);
  const signOut = (): void => {
    setSession(undefined);
    setNotice("You are signed out.");
    go();
  };
  if (session === undefined) {
    return <SignIn notice={notice} onSignIn={setSession} onEnd={end} />;
  }
  return (
    <CurrentSession value={session}>
      <Shell onSignOut={signOut} />
    </CurrentSession>
  );
}
