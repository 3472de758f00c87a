import type { ReactNode } from "react";

export interface Tile {
  name: string;
  value: ReactNode;
  /** Said below the value, such as what it is measured against. */
  more?: ReactNode;
  /** Whether somebody should look at it. */
  bad?: boolean;
}

/** Single figures, side by side. */
export function Tiles({ of, label }: { of: readonly Tile[]; label?: string }) {
  return (
    <ul className="tiles" aria-label={label}>
      {of.map((tile) => (
        <li key={tile.name} className={tile.bad ? "bad" : undefined}>
          <span className="quiet">{tile.name}</span>
          <strong>{tile.value}</strong>
          {tile.more === undefined ? null : <span className="quiet">{tile.more}</span>}
        </li>
      ))}
    </ul>
  );
}
