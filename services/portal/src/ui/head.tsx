import type { ReactNode } from "react";

interface Props {
  title: ReactNode;
  /** One sentence on what the page is for. */
  about?: ReactNode;
  /** Buttons and links that act on the whole page. */
  actions?: ReactNode;
}

/** The top of a page: its only heading of the first level, and its actions. */
export function PageHead({ title, about, actions }: Props) {
  return (
    <div className="head page-head">
      <div>
        <h1>{title}</h1>
        {about === undefined ? null : <p className="quiet">{about}</p>}
      </div>
      {actions === undefined ? null : <div className="actions">{actions}</div>}
    </div>
  );
}
