import { useCallback, useState, type ReactNode } from "react";
import { CurrentSession } from "./current";
import { go, href, usePlace } from "./place";
import type { Session } from "./session";
import { SignIn } from "./sign_in";
import { Button } from "./ui/button";
import { Mark } from "./ui/mark";
import { DeadLetters } from "./webhooks/dead_letters";
import { DeliveryPage } from "./webhooks/delivery";
import { EditWebhook, NewWebhook } from "./webhooks/editing";
import { WebhookList } from "./webhooks/list";
import { Notices } from "./webhooks/notices";
import { WebhookPage } from "./webhooks/page";

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
      <Shell consumer={session.consumer} onSignOut={signOut} />
    </CurrentSession>
  );
}

function Shell({ consumer, onSignOut }: { consumer: string; onSignOut: () => void }) {
  const place = usePlace();
  return (
    <>
      <a className="skip" href="#main" onClick={toMain}>
        Skip to the content
      </a>
      <header className="top">
        <a className="brand" href={href("webhooks")}>
          <Mark /> Penstock
        </a>
        <nav aria-label="Main">
          <NavLink to="webhooks" place={place}>
            Webhooks
          </NavLink>
          <NavLink to="dead-letters" place={place}>
            Dead letters
          </NavLink>
          <NavLink to="notices" place={place}>
            Notices
          </NavLink>
        </nav>
        <div className="who">
          <span className="quiet">
            Signed in as <strong>{consumer}</strong>
          </span>
          <Button kind="plain" onClick={onSignOut}>
            Sign out
          </Button>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Page place={place} />
      </main>
    </>
  );
}

function NavLink(props: { to: string; place: readonly string[]; children: ReactNode }) {
  const here = (props.place[0] ?? "webhooks") === props.to;
  return (
    <a href={href(props.to)} aria-current={here ? "page" : undefined}>
      {props.children}
    </a>
  );
}

function Page({ place }: { place: readonly string[] }) {
  const [section = "webhooks", id, part, detail] = place;
  if (section === "dead-letters") return <DeadLetters />;
  if (section === "notices") return <Notices />;
  if (section !== "webhooks") return <Nowhere />;
  if (id === undefined) return <WebhookList />;
  if (id === "new") return <NewWebhook />;
  if (part === undefined || part === "settings") {
    return <WebhookPage key={id} id={id} tab={part ?? "deliveries"} />;
  }
  if (part === "edit") return <EditWebhook key={id} id={id} />;
  if (part === "deliveries" && detail !== undefined) {
    return <DeliveryPage key={detail} webhookId={id} deliveryId={detail} />;
  }
  return <Nowhere />;
}

function Nowhere() {
  return (
    <>
      <h1>This page does not exist</h1>
      <p>
        <a href={href("webhooks")}>Go to the webhooks</a>
      </p>
    </>
  );
}

/** The URL's fragment names the page, so a link to an anchor must not change it. */
function toMain(event: { preventDefault: () => void }): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
