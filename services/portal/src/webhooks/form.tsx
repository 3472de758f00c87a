import { useEffect, useRef, type FormEvent, type ReactNode } from "react";
import type { Dataset } from "@gen/penstock/hub/v1/datasets_pb";
import type { Action } from "../loading";
import { href } from "../place";
import type { Problem } from "../problem";
import { Button } from "../ui/button";
import { Check, Choice, TextField } from "../ui/field";
import { ProblemLine } from "../ui/told";
import { faultsOf, type Draft, type Faults } from "./draft";
import { Headers } from "./headers";
import { BODIES, ENVELOPES, ORDERINGS, SIGNATURES } from "./options";
import { Selections } from "./selections";

interface Props {
  draft: Draft;
  change: (changed: Partial<Draft>) => void;
  datasets: readonly Dataset[];
  action: Action;
  verb: string;
  /** Where to go instead of saving. */
  back: readonly string[];
  /** The names of its headers; empty for a new webhook. */
  kept: readonly string[] | undefined;
  onSubmit: () => void;
}

/** The settings of a webhook, for a new or a changed one. */
export function WebhookForm(props: Props) {
  const { draft, change, action } = props;
  const [faults, others] = faultsOf(action.problem, draft);
  const form = useRef<HTMLFormElement>(null);
  // Move users of screen readers and magnifiers to the faulty field.
  useEffect(() => {
    form.current?.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
  }, [action.problem]);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    props.onSubmit();
  };
  return (
    <form ref={form} className="sheet" onSubmit={submit}>
      <fieldset>
        <legend>Destination</legend>
        <TextField
          label="URL"
          value={draft.url}
          onChange={(url) => change({ url })}
          error={faults.get("url")}
          hint="A public https address, unless the operator allows others. Redirects are not followed."
          input={{ type: "url", required: true, placeholder: "https://example.com/hooks" }}
        />
        <TextField
          label="Title"
          value={draft.title}
          onChange={(title) => change({ title })}
          error={faults.get("title")}
          hint="A name for people. Optional."
        />
      </fieldset>
      <Selections
        datasets={props.datasets}
        chosen={draft.selections}
        faults={faults}
        onChange={(selections) => change({ selections })}
      />
      <Options draft={draft} change={change} faults={faults} fresh={props.kept === undefined} />
      <Headers
        headers={draft.headers}
        kept={props.kept}
        fault={faults.get("headers")}
        onChange={(headers) => change({ headers })}
      />
      <ProblemLine problem={action.problem && told(action.problem, faults)} />
      {others.map((text) => (
        <p className="error" key={text}>
          {text}
        </p>
      ))}
      <div className="actions">
        <a className="button secondary" href={href(...props.back)}>
          Cancel
        </a>
        <Button kind="primary" type="submit" busy={action.busy}>
          {props.verb}
        </Button>
      </div>
    </form>
  );
}

/** Errors about fields appear at the fields. */
function told(problem: Problem, faults: Faults): Problem {
  const message = "Nothing was saved. Correct the marked fields.";
  return faults.size > 0 ? { ...problem, message } : problem;
}

interface OptionsProps {
  draft: Draft;
  change: (changed: Partial<Draft>) => void;
  faults: Faults;
  fresh: boolean;
}

function Options({ draft, change, faults, fresh }: OptionsProps): ReactNode {
  const number = (
    label: string,
    name: "batchSize" | "concurrency" | "rate" | "retrySeconds",
    field: string,
    hint: string,
  ): ReactNode => (
    <TextField
      label={label}
      value={draft[name]}
      onChange={(value) => change({ [name]: value })}
      error={faults.get(`options.${field}`)}
      hint={hint}
      input={{ inputMode: "numeric" }}
    />
  );
  return (
    <fieldset>
      <legend>Delivery</legend>
      <div className="columns">
        <Choice
          label="Envelope"
          value={draft.envelope}
          choices={ENVELOPES}
          onChange={(envelope) => change({ envelope })}
          error={faults.get("options.envelope") ?? faults.get("options")}
        />
        <Choice
          label="Body"
          value={draft.body}
          choices={BODIES}
          onChange={(body) => change({ body })}
          error={faults.get("options.body")}
        />
        <Choice
          label="Ordering"
          value={draft.ordering}
          choices={ORDERINGS}
          onChange={(ordering) => change({ ordering })}
          error={faults.get("options.ordering")}
        />
        {fresh ? (
          <Choice
            label="Signature"
            value={draft.signature}
            choices={SIGNATURES}
            onChange={(signature) => change({ signature })}
          />
        ) : null}
        {number("Batch size", "batchSize", "batch_size", "Events in one message: 1 to 100.")}
        {number("Concurrency", "concurrency", "concurrency", "Messages in flight at one time: 1 to 128.")}
        {number("Rate", "rate", "rate", "Messages a second at most; 0 is no limit.")}
        {number(
          "Retry after seconds",
          "retrySeconds",
          "retry_seconds",
          "Separated by commas. Empty: ten attempts over 75 h 35 min.",
        )}
      </div>
      <Check
        label="Thin: send the record's key, not its fields"
        checked={draft.thin}
        onChange={(thin) => change({ thin })}
      />
      <Check
        label="Send notices when another of my webhooks fails or is disabled"
        checked={draft.notices}
        onChange={(notices) => change({ notices })}
      />
    </fieldset>
  );
}
