import { useSyncExternalStore } from "react";

/** How dark the console is: as the system says, or as the user chose on this browser. */
export type Theme = "system" | "light" | "dark";

export const THEMES: ReadonlyArray<readonly [Theme, string]> = [
  ["system", "as the system"],
  ["light", "light"],
  ["dark", "dark"],
];

const KEY = "penstock-theme";
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();
/** The choice that the browser did not store: it lasts until the page is left. */
let unstored: Theme | undefined;

export function useTheme(): Theme {
  return useSyncExternalStore(subscribe, chosen);
}

/** Whether colours are dark now; components that draw with colours of their own draw anew. */
export function useDark(): boolean {
  return useSyncExternalStore(subscribe, () => {
    const theme = chosen();
    return theme === "system" ? DARK.matches : theme === "dark";
  });
}

/** Only a choice is stored; without one the browser keeps nothing of the console. */
export function chooseTheme(theme: Theme): void {
  try {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
    unstored = undefined;
  } catch {
    unstored = theme; // the browser blocks the site's data
  }
  applyTheme();
  for (const listener of listeners) listener();
}

/** Tells the style sheet, whose colours are pairs of light and dark. */
export function applyTheme(): void {
  document.documentElement.dataset["theme"] = chosen();
}

function chosen(): Theme {
  const stored = unstored ?? readStored();
  return stored === "light" || stored === "dark" ? stored : "system";
}

function readStored(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // the browser blocks the site's data
  }
}

function subscribe(changed: () => void): () => void {
  listeners.add(changed);
  DARK.addEventListener("change", changed);
  return () => {
    listeners.delete(changed);
    DARK.removeEventListener("change", changed);
  };
}
