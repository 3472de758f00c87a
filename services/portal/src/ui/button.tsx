import type { ReactNode } from "react";

interface Props {
  children: ReactNode;
  kind?: "primary" | "secondary" | "danger" | "plain";
  type?: "button" | "submit";
  busy?: boolean;
  /** Of a button that shows and hides something: whether it is shown. */
  expanded?: boolean;
  onClick?: () => void;
}

export function Button({ children, kind = "secondary", type = "button", busy, expanded, onClick }: Props) {
  return (
    <button
      type={type}
      className={`button ${kind}`}
      disabled={busy}
      aria-expanded={expanded}
      onClick={onClick}
    >
      {children}
    </button>
  );
}
