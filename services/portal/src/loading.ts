import { useCallback, useEffect, useReducer, useRef, useState, type DependencyList } from "react";
import { problemOf, type Problem } from "./problem";

export interface Loaded<T> {
  value: T | undefined;
  problem: Problem | undefined;
  busy: boolean;
  again: () => void;
}

/** The result of `load`, reloaded when `deps` change or by `again`; the old one stays meanwhile. */
export function useLoaded<T>(
  load: (signal: AbortSignal) => Promise<T>,
  deps: DependencyList,
): Loaded<T> {
  const [round, again] = useReducer((n: number) => n + 1, 0);
  const [state, setState] = useState<Omit<Loaded<T>, "again">>({
    value: undefined,
    problem: undefined,
    busy: true,
  });
  useEffect(() => {
    const abort = new AbortController();
    setState((old) => ({ ...old, busy: true }));
    load(abort.signal).then(
      (value) => {
        if (!abort.signal.aborted) setState({ value, problem: undefined, busy: false });
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        setState((old) => ({ ...old, problem: problemOf(error), busy: false }));
      },
    );
    return () => abort.abort();
  }, [...deps, round]);
  return { ...state, again };
}

/** Calls `act` at growing intervals while `wanted` is true and the page is visible. */
export function useWatching(wanted: boolean, act: () => void): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (!wanted) return;
    let wait = 500;
    let timer = 0;
    const tick = (): void => {
      if (!document.hidden) latest.current();
      // Every call leaves an audit entry, so slow changes are polled less often.
      wait = Math.min(wait * 1.3, 10_000);
      timer = window.setTimeout(tick, wait);
    };
    timer = window.setTimeout(tick, wait);
    return () => window.clearTimeout(timer);
  }, [wanted]);
}

export interface Action {
  busy: boolean;
  problem: Problem | undefined;
  /** Runs one call at a time; returns whether it succeeded. */
  run: (work: () => Promise<void>) => Promise<boolean>;
}

export function useAction(): Action {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();
  const running = useRef(false);
  const run = useCallback(async (work: () => Promise<void>) => {
    if (running.current) return false;
    running.current = true;
    setBusy(true);
    setProblem(undefined);
    try {
      await work();
      return true;
    } catch (error) {
      setProblem(problemOf(error));
      return false;
    } finally {
      running.current = false;
      setBusy(false);
    }
  }, []);
  return { busy, problem, run };
}

/** Calls `act` at equal intervals while `on` is true and the page is visible. */
export function useEvery(seconds: number, on: boolean, act: () => void): void {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    if (!on) return;
    const timer = window.setInterval(() => {
      if (!document.hidden) latest.current();
    }, seconds * 1000);
    return () => window.clearInterval(timer);
  }, [seconds, on]);
}
