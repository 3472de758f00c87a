import { Button } from "../ui/button";
import { Check, TextField } from "../ui/field";
import type { Header } from "./draft";

interface Props {
  headers: readonly Header[] | undefined;
  kept: readonly string[] | undefined;
  fault: string | undefined;
  onChange: (headers: readonly Header[] | undefined) => void;
}

/** The owner's headers. Their values are not shown again, so they are replaced as a whole. */
export function Headers({ headers, kept, fault, onChange }: Props) {
  return (
    <fieldset>
      <legend>Headers</legend>
      {kept === undefined ? null : (
        <>
          <p className="quiet">
            {kept.length > 0
              ? `It sends ${kept.join(", ")}. Values are not shown again, and not sent to a URL of another origin.`
              : "It sends no headers of your own."}
          </p>
          <Check
            label="Replace them"
            checked={headers !== undefined}
            onChange={(replaced) => onChange(replaced ? [] : undefined)}
          />
        </>
      )}
      {headers?.map((header, i) => (
        <div className="header-row" key={i} role="group" aria-label={`Header ${i + 1}`}>
          <TextField
            label="Name"
            value={header.name}
            onChange={(name) => onChange(headers.with(i, { ...header, name }))}
            error={i === 0 ? fault : undefined}
            input={{ spellCheck: false, placeholder: "authorization" }}
          />
          <TextField
            label="Value"
            value={header.value}
            onChange={(value) => onChange(headers.with(i, { ...header, value }))}
            input={{ spellCheck: false, autoComplete: "off" }}
          />
          <Button kind="plain" onClick={() => onChange(headers.filter((_, at) => at !== i))}>
            Remove
          </Button>
        </div>
      ))}
      {headers === undefined ? null : (
        <Button onClick={() => onChange([...headers, { name: "", value: "" }])}>Add a header</Button>
      )}
    </fieldset>
  );
}
