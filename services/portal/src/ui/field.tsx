import { useId, useState, type ComponentProps, type ReactNode } from "react";

interface Common {
  label: string;
  hint?: ReactNode;
  /** The hub's error about it. */
  error?: string | undefined;
}

interface TextProps extends Common {
  value: string;
  onChange: (value: string) => void;
  input?: Omit<ComponentProps<"input">, "value" | "onChange" | "id">;
}

export function TextField({ label, hint, error, value, onChange, input }: TextProps) {
  const id = useId();
  return (
    <Frame id={id} label={label} hint={hint} error={error}>
      <input
        type="text"
        {...input}
        id={id}
        value={value}
        aria-invalid={error !== undefined}
        aria-describedby={described(id, hint, error)}
        onChange={(event) => onChange(event.target.value)}
      />
    </Frame>
  );
}

interface SuggestedProps extends Common {
  value: string;
  suggestions: readonly string[];
  placeholder: string;
  onChange: (value: string) => void;
}

/** A text that counts once it is one of the suggestions, or when Enter or leaving ends it. */
export function SuggestedField({ value, suggestions, placeholder, onChange, ...common }: SuggestedProps) {
  const list = useId();
  const [typed, setTyped] = useState<string>();
  const end = (text: string | undefined): void => {
    setTyped(undefined);
    if (text !== undefined && text.trim() !== value) onChange(text.trim());
  };
  return (
    <>
      <TextField
        {...common}
        value={typed ?? value}
        onChange={(text) => (suggestions.includes(text) ? end(text) : setTyped(text))}
        input={{
          list,
          placeholder,
          spellCheck: false,
          onBlur: () => end(typed),
          onKeyDown: (event) => (event.key === "Enter" ? end(typed) : undefined),
        }}
      />
      <datalist id={list}>
        {suggestions.map((text) => (
          <option key={text} value={text} />
        ))}
      </datalist>
    </>
  );
}

interface ChoiceProps<T extends string | number> extends Common {
  value: T;
  choices: ReadonlyArray<readonly [T, string]>;
  onChange: (value: T) => void;
}

export function Choice<T extends string | number>(props: ChoiceProps<T>) {
  const { label, hint, error, value, choices, onChange } = props;
  const id = useId();
  const index = choices.findIndex(([choice]) => choice === value);
  return (
    <Frame id={id} label={label} hint={hint} error={error}>
      <select
        id={id}
        value={index}
        aria-invalid={error !== undefined}
        aria-describedby={described(id, hint, error)}
        onChange={(event) => {
          const chosen = choices[Number(event.target.value)];
          if (chosen !== undefined) onChange(chosen[0]);
        }}
      >
        {choices.map(([choice, text], i) => (
          <option key={choice} value={i}>
            {text}
          </option>
        ))}
      </select>
    </Frame>
  );
}

interface CheckProps {
  label: ReactNode;
  checked: boolean;
  onChange: (checked: boolean) => void;
}

export function Check({ label, checked, onChange }: CheckProps) {
  return (
    <label className="check">
      <input
        type="checkbox"
        checked={checked}
        onChange={(event) => onChange(event.target.checked)}
      />
      <span>{label}</span>
    </label>
  );
}

function Frame({ id, label, hint, error, children }: Common & { id: string; children: ReactNode }) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      {children}
      {hint === undefined ? null : (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {error === undefined ? null : (
        <p className="error" id={`${id}-error`}>
          {error}
        </p>
      )}
    </div>
  );
}

function described(id: string, hint: ReactNode, error: string | undefined): string | undefined {
  const names = [
    ...(hint === undefined ? [] : [`${id}-hint`]),
    ...(error === undefined ? [] : [`${id}-error`]),
  ];
  return names.join(" ") || undefined;
}
