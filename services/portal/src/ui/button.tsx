import type { ReactNode } from "react";

interface Props {
  children: ReactNode;
  kind?: "primary" | "secondary" | "danger" | "plain";
  type?: "button" | "submit";
  busy?: boolean;
  onClick?: () => void;
}

export function Button({ children, kind = "secondary", type = "button", busy, onClick }: Props) {
  return (
    <button type={type} className={`button ${kind}`} disabled={busy} onClick={onClick}>
      {children}
    </button>
  );
}
