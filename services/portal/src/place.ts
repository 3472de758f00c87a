import { useSyncExternalStore } from "react";

/** The steps of the page's place, which is the fragment of its URL: `#/webhooks/wh_1`. */
export function usePlace(): readonly string[] {
  const hash = useSyncExternalStore(subscribe, () => location.hash);
  return hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
}

export function href(...steps: string[]): string {
  return `#/${steps.map(encodeURIComponent).join("/")}`;
}

export function go(...steps: string[]): void {
  location.hash = href(...steps);
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

function decoded(step: string): string {
  try {
    return decodeURIComponent(step);
  } catch {
    return step; // typed by hand
  }
}
