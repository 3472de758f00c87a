import { Suspense, useEffect, useReducer, useRef, useState } from "react";
import { useSession } from "../current";
import { href, usePlace } from "../place";
import { Button } from "../ui/button";
import { Mark } from "../ui/mark";
import { Loading } from "../ui/told";
import { isAllowed, navigationOf, sectionOf, type Section } from "./sections";
import { NoPermission, Nowhere } from "./states";

/** Everything around a page: the navigation, who is signed in, and the states of pages. */
export function Shell({ onSignOut }: { onSignOut: () => void }) {
  const session = useSession();
  const place = usePlace();
  const section = sectionOf(place, session);
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  useArrival(place.join("/"), section?.title ?? "No such page");
  return (
    <div className="shell">
      <a className="skip" href="#main" onClick={toMain}>
        Skip to the content
      </a>
      <Side here={section?.path ?? ""} place={place.join("/")} onSignOut={onSignOut} />
      <main id="main" tabIndex={-1}>
        <Suspense fallback={<Loading />}>
          {section === undefined ? (
            <Nowhere />
          ) : isAllowed(section, session) ? (
            section.page(place)
          ) : (
            <NoPermission section={section} onChange={redraw} />
          )}
        </Suspense>
      </main>
    </div>
  );
}

interface SideProps {
  here: string;
  place: string;
  onSignOut: () => void;
}

/** The navigation: beside the page, and on narrow screens below a button. */
function Side({ here, place, onSignOut }: SideProps) {
  const session = useSession();
  const [open, setOpen] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => setOpen(false), [place]);
  const close = (): void => {
    setOpen(false);
    button.current?.focus();
  };
  return (
    <header
      className={open ? "side open" : "side"}
      onKeyDown={(event) => {
        if (event.key === "Escape" && open) close();
      }}
    >
      <div className="bar">
        <a className="brand" href={href()}>
          <Mark /> Penstock
        </a>
        <button
          ref={button}
          type="button"
          className="button menu"
          aria-expanded={open}
          aria-controls="navigation"
          onClick={() => setOpen(!open)}
        >
          Menu
        </button>
      </div>
      <div id="navigation" className="drawer">
        <nav aria-label="Main">
          {[...navigationOf(session)].map(([group, sections]) => (
            <NavGroup key={group} title={group} sections={sections} here={here} />
          ))}
        </nav>
        <div className="who">
          <span className="quiet">
            Signed in as <strong>{session.consumer}</strong>
          </span>
          <Button onClick={onSignOut}>Sign out</Button>
        </div>
      </div>
    </header>
  );
}

function NavGroup(props: { title: string; sections: readonly Section[]; here: string }) {
  return (
    <div role="group" aria-label={props.title}>
      <p className="group" aria-hidden="true">
        {props.title}
      </p>
      <ul>
        {props.sections.map(({ path, title }) => (
          <li key={path}>
            <a href={href(path)} aria-current={path === props.here ? "page" : undefined}>
              {title}
            </a>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** Names the page in the tab, and leads keyboards and screen readers to it after a change. */
function useArrival(place: string, title: string): void {
  const last = useRef(place);
  useEffect(() => {
    document.title = `${title} - Penstock`;
    if (last.current === place) return;
    last.current = place;
    document.getElementById("main")?.focus();
    window.scrollTo(0, 0);
  }, [place, title]);
}

/** The URL's fragment names the page, so a link to an anchor must not change it. */
function toMain(event: { preventDefault: () => void }): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
