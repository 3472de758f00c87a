import { lazy, type ReactNode } from "react";
import type { Session } from "../session";

// What is not needed at the sign-in is loaded when it is opened.
const Account = lazy(() => import("./account"));
const Webhooks = lazy(() => import("../webhooks/section"));
const Usage = lazy(() => import("../usage/page"));
const Monitoring = lazy(() => import("../monitoring/page"));
const Plans = lazy(() => import("../plans/section"));
const Gallery = lazy(() => import("../ui/gallery"));

/** A part of the console: the first step of a place, such as `#/webhooks/wh_1`. */
export interface Section {
  path: string;
  title: string;
  /** The heading in the navigation; a section without one is reached by links of pages. */
  group?: string;
  /** The permissions of which one is enough; none are needed if it is empty. */
  needs: readonly string[];
  page: (place: readonly string[]) => ReactNode;
}

const INTEGRATION = "Integration";
const MANAGEMENT = "Management";

/** All sections, in the order of the navigation. */
export const SECTIONS: readonly Section[] = [
  { path: "usage", title: "Usage", group: MANAGEMENT, needs: [], page: () => <Usage /> },
  {
    path: "plans",
    title: "Plans",
    group: MANAGEMENT,
    needs: ["plans.read"],
    page: (place) => <Plans place={place} />,
  },
  {
    path: "monitoring",
    title: "Monitoring",
    group: MANAGEMENT,
    needs: ["monitoring.read"],
    page: () => <Monitoring />,
  },
  {
    path: "webhooks",
    title: "Webhooks",
    group: INTEGRATION,
    needs: ["webhooks.read"],
    page: (place) => <Webhooks place={place} />,
  },
  {
    path: "dead-letters",
    title: "Dead letters",
    group: INTEGRATION,
    needs: ["webhooks.read"],
    page: (place) => <Webhooks place={place} />,
  },
  {
    path: "notices",
    title: "Notices",
    group: INTEGRATION,
    needs: ["webhooks.read"],
    page: (place) => <Webhooks place={place} />,
  },
  { path: "account", title: "Account", group: "You", needs: [], page: () => <Account /> },
  { path: "components", title: "Components", needs: [], page: () => <Gallery /> },
];

export function isAllowed(section: Section, session: Session): boolean {
  return section.needs.length === 0 || section.needs.some((need) => session.permits(need));
}

/** The section of a place; the first that the user may see, if it names none. */
export function sectionOf(place: readonly string[], session: Session): Section | undefined {
  const [path] = place;
  if (path === undefined) return SECTIONS.find((section) => isAllowed(section, session));
  return SECTIONS.find((section) => section.path === path);
}

/** Headings of the navigation, each with the sections that the user may see. */
export function navigationOf(session: Session): ReadonlyMap<string, readonly Section[]> {
  const groups = new Map<string, Section[]>();
  for (const section of SECTIONS) {
    if (section.group === undefined || !isAllowed(section, session)) continue;
    groups.set(section.group, [...(groups.get(section.group) ?? []), section]);
  }
  return groups;
}
