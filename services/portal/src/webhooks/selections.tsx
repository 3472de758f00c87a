import type { Dataset } from "@gen/penstock/hub/v1/datasets_pb";
import { Check, TextField } from "../ui/field";
import type { Faults, Wanted } from "./draft";

const OPERATIONS = ["created", "updated", "deleted", "entered_view", "left_view"];

interface Props {
  datasets: readonly Dataset[];
  chosen: readonly Wanted[];
  faults: Faults;
  onChange: (chosen: readonly Wanted[]) => void;
}

/** The selected events: datasets, and for each the operations, records and fields. */
export function Selections({ datasets, chosen, faults, onChange }: Props) {
  // A dataset that may no longer be read can still be removed.
  const names = new Set([...datasets.map((d) => d.name), ...chosen.map((s) => s.dataset)]);
  const replaced = (dataset: string, wanted: Wanted | undefined): readonly Wanted[] => {
    if (!chosen.some((s) => s.dataset === dataset)) return wanted ? [...chosen, wanted] : chosen;
    return chosen.flatMap((s) => (s.dataset === dataset ? (wanted ? [wanted] : []) : [s]));
  };
  return (
    <fieldset aria-describedby={faults.has("selections") ? "selections-error" : undefined}>
      <legend>Which events</legend>
      {[...names].map((dataset) => {
        const index = chosen.findIndex((s) => s.dataset === dataset);
        const wanted = chosen[index];
        return (
          <div className="selection" key={dataset}>
            <Check
              label={<strong>{dataset}</strong>}
              checked={wanted !== undefined}
              onChange={(checked) =>
                onChange(replaced(dataset, checked ? blank(dataset) : undefined))
              }
            />
            {wanted === undefined ? null : (
              <Selection
                wanted={wanted}
                fault={(field) => faults.get(`selections[${index}].${field}`)}
                onChange={(changed) => onChange(replaced(dataset, { ...wanted, ...changed }))}
              />
            )}
          </div>
        );
      })}
      {faults.has("selections") ? (
        <p className="error" id="selections-error">
          {faults.get("selections")}
        </p>
      ) : null}
    </fieldset>
  );
}

function blank(dataset: string): Wanted {
  return { dataset, operations: [], filter: "", fields: "", shape: "" };
}

interface SelectionProps {
  wanted: Wanted;
  fault: (field: string) => string | undefined;
  onChange: (changed: Partial<Wanted>) => void;
}

function Selection({ wanted, fault, onChange }: SelectionProps) {
  const { dataset, operations } = wanted;
  const operationFault = fault("operations") ?? fault("dataset");
  const toggle = (operation: string, on: boolean): void => {
    onChange({
      operations: OPERATIONS.filter((o) => (o === operation ? on : operations.includes(o))),
    });
  };
  return (
    <div className="inset">
      <div className="checks" role="group" aria-label={`Events of ${dataset}`}>
        {OPERATIONS.map((operation) => (
          <Check
            key={operation}
            label={operation.replace("_", " ")}
            checked={operations.includes(operation)}
            onChange={(on) => toggle(operation, on)}
          />
        ))}
        <span className="hint">{operations.length === 0 ? "None chosen: all operations." : ""}</span>
      </div>
      {operationFault === undefined ? null : <p className="error">{operationFault}</p>}
      <div className="columns">
        <TextField
          label={`Filter of ${dataset}`}
          value={wanted.filter}
          onChange={(filter) => onChange({ filter })}
          error={fault("filter")}
          hint="Which records (AIP-160), for example status = ACTIVE. Empty: all that you may see."
          input={{ spellCheck: false, className: "mono" }}
        />
        <TextField
          label={`Fields of ${dataset}`}
          value={wanted.fields}
          onChange={(fields) => onChange({ fields })}
          error={fault("fields")}
          hint="Separated by commas. Empty: all that you may see."
          input={{ spellCheck: false, className: "mono" }}
        />
        <TextField
          label={`Shape of ${dataset}`}
          value={wanted.shape}
          onChange={(shape) => onChange({ shape })}
          error={fault("shape")}
          hint="A shape of yours in place of fields, such as contacts or contacts@2."
          input={{ spellCheck: false, className: "mono" }}
        />
      </div>
    </div>
  );
}
