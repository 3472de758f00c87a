import type { ReactNode } from "react";

interface Props {
  children: ReactNode;
  kind?: "primary" | "secondary" | "danger" | "plain";
  type?: "button" | "submit";
  busy?: boolean;
  /** Of a button that shows and hides something: whether it is shown. */
  expanded?: boolean;
  /** What screen readers say, where the text alone does not tell what it acts on. */
  label?: string;
  onClick?: () => void;
}

export function Button({ children, kind = "secondary", type = "button", busy, expanded, label, onClick }: Props) {
  return (
    <button
      type={type}
      className={`button ${kind}`}
      disabled={busy}
      aria-expanded={expanded}
      aria-label={label}
      onClick={onClick}
    >
      {children}
    </button>
  );
}
