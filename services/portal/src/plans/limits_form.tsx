import type { ReactNode } from "react";
import { Button } from "../ui/button";
import { Check, Choice, TextField } from "../ui/field";
import { PER, WHAT, type LimitsDraft, type QuotaDraft, type RateDraft } from "./draft";

interface Props {
  draft: LimitsDraft;
  change: (changed: Partial<LimitsDraft>) => void;
  faults: ReadonlyMap<string, string>;
  /** Whether they are those of one consumer, which may lift those of its plan. */
  own: boolean;
}

/** Rates, places and quotas, of a plan or of one consumer. */
export function LimitsForm({ draft, change, faults, own }: Props) {
  const places = own ? "Empty: as the plan says. -1: no limit." : "Empty: no limit.";
  return (
    <>
      <fieldset>
        <legend>Rates</legend>
        <p className="hint">How fast calls may come.</p>
        {draft.rates.map((rate, i) => (
          <Row
            key={i}
            name={`Rate ${i + 1}`}
            fault={faults.get(`rates[${i}]`)}
            remove={() => change({ rates: draft.rates.filter((_, at) => at !== i) })}
          >
            <Rate
              rate={rate}
              own={own}
              fault={(field) => faults.get(`rates[${i}].${field}`)}
              change={(changed) => change({ rates: draft.rates.with(i, { ...rate, ...changed }) })}
            />
          </Row>
        ))}
        <Button onClick={() => change({ rates: [...draft.rates, NEW_RATE] })}>Add a rate</Button>
      </fieldset>
      <fieldset>
        <legend>At one time</legend>
        <p className="hint">How much may be under way. {places}</p>
        <div className="columns">
          {(["calls", "streams", "exports"] as const).map((name) => (
            <TextField
              key={name}
              label={`${name.charAt(0).toUpperCase()}${name.slice(1)} at one time`}
              value={draft[name]}
              onChange={(value) => change({ [name]: value })}
              error={faults.get(`concurrent.${name}`)}
              input={{ inputMode: "numeric" }}
            />
          ))}
        </div>
      </fieldset>
      <fieldset>
        <legend>Quotas</legend>
        <p className="hint">How much may be used in a period of the calendar.</p>
        {draft.quotas.map((quota, i) => (
          <Row
            key={i}
            name={`Quota ${i + 1}`}
            fault={faults.get(`quotas[${i}]`)}
            remove={() => change({ quotas: draft.quotas.filter((_, at) => at !== i) })}
          >
            <QuotaFields
              quota={quota}
              own={own}
              fault={(field) => faults.get(`quotas[${i}].${field}`)}
              change={(changed) =>
                change({ quotas: draft.quotas.with(i, { ...quota, ...changed }) })
              }
            />
          </Row>
        ))}
        <Button onClick={() => change({ quotas: [...draft.quotas, NEW_QUOTA] })}>Add a quota</Button>
      </fieldset>
    </>
  );
}

const NEW_RATE: RateDraft = { perSecond: "", burst: "", of: "", unlimited: false };
const NEW_QUOTA: QuotaDraft = {
  what: "calls",
  per: "day",
  limit: "",
  soft: false,
  of: "",
  unlimited: false,
};

interface RowProps {
  name: string;
  fault: string | undefined;
  remove: () => void;
  children: ReactNode;
}

function Row({ name, fault, remove, children }: RowProps) {
  return (
    <div className="limit-row" role="group" aria-label={name}>
      {children}
      <Button kind="plain" onClick={remove} label={`Remove ${name.toLowerCase()}`}>
        Remove
      </Button>
      {fault === undefined ? null : <p className="error">{fault}</p>}
    </div>
  );
}

interface PartProps {
  own: boolean;
  fault: (field: string) => string | undefined;
}

interface RateProps extends PartProps {
  rate: RateDraft;
  change: (changed: Partial<RateDraft>) => void;
}

function Rate({ rate, own, fault, change }: RateProps) {
  return (
    <div className="columns">
      {rate.unlimited ? null : (
        <>
          <TextField
            label="Calls a second"
            value={rate.perSecond}
            onChange={(perSecond) => change({ perSecond })}
            error={fault("per_second")}
            input={{ inputMode: "decimal" }}
          />
          <TextField
            label="At once after a pause"
            value={rate.burst}
            onChange={(burst) => change({ burst })}
            error={fault("burst")}
            input={{ inputMode: "numeric" }}
          />
        </>
      )}
      <Reach of={rate.of} fault={fault} change={change} />
      {own ? <Unlimited checked={rate.unlimited} change={change} /> : null}
    </div>
  );
}

interface QuotaProps extends PartProps {
  quota: QuotaDraft;
  change: (changed: Partial<QuotaDraft>) => void;
}

function QuotaFields({ quota, own, fault, change }: QuotaProps) {
  return (
    <div className="columns">
      <Choice
        label="What"
        value={quota.what}
        choices={WHAT}
        onChange={(what) => change({ what })}
        error={fault("what")}
      />
      <Choice
        label="In a"
        value={quota.per}
        choices={PER}
        onChange={(per) => change({ per })}
        error={fault("per")}
      />
      {quota.unlimited ? null : (
        <TextField
          label="The most"
          value={quota.limit}
          onChange={(limit) => change({ limit })}
          error={fault("limit")}
          input={{ inputMode: "numeric" }}
        />
      )}
      <Reach of={quota.of} fault={fault} change={change} />
      {quota.unlimited ? null : (
        <Check
          label="Soft: only counts"
          checked={quota.soft}
          onChange={(soft) => change({ soft })}
        />
      )}
      {own ? <Unlimited checked={quota.unlimited} change={change} /> : null}
    </div>
  );
}

interface ReachProps {
  of: string;
  fault: (field: string) => string | undefined;
  change: (changed: { of: string }) => void;
}

function Reach({ of, fault, change }: ReachProps) {
  return (
    <TextField
      label="Only of"
      value={of}
      onChange={(text) => change({ of: text })}
      error={fault("dataset") ?? fault("method")}
      input={{ spellCheck: false, placeholder: "dataset or /method" }}
    />
  );
}

function Unlimited(props: { checked: boolean; change: (changed: { unlimited: boolean }) => void }) {
  return (
    <Check
      label="Lift this limit of the plan"
      checked={props.checked}
      onChange={(unlimited) => props.change({ unlimited })}
    />
  );
}
