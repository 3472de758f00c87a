import type { ReactNode } from "react";
import type { Loaded } from "../loading";
import type { Problem } from "../problem";

/** One line about an error, with the request id that support needs. */
export function ProblemLine({ problem }: { problem: Problem | undefined }) {
  if (problem === undefined) return null;
  const denied = problem.reason === "PERMISSION_DENIED";
  return (
    <p className="error" role="alert">
      {denied ? <strong>Not permitted. </strong> : null}
      {sentence(problem.message)}
      {problem.reason ? <span className="quiet"> {problem.reason}</span> : null}
      {problem.requestId ? (
        <span className="quiet">
          {" "}
          Request <code>{problem.requestId}</code>
        </span>
      ) : null}
    </p>
  );
}

/** The state before there is anything to show. */
export function Loading() {
  return (
    <p className="loading quiet" role="status">
      Loading …
    </p>
  );
}

/** The loaded content, a note that it is loading, or the error. */
export function Shown<T>(props: { of: Loaded<T>; children: (value: T) => ReactNode }) {
  const { value, problem } = props.of;
  return (
    <>
      <ProblemLine problem={problem} />
      {value !== undefined ? props.children(value) : null}
      {value === undefined && problem === undefined ? <Loading /> : null}
    </>
  );
}

/** Names and values of one thing. */
export function Facts({ of }: { of: ReadonlyArray<readonly [string, ReactNode]> }) {
  return (
    <dl className="facts">
      {of.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}
