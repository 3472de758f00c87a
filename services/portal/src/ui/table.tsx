import type { ReactNode } from "react";

export interface Column<T> {
  title: string;
  cell: (row: T) => ReactNode;
  numeric?: boolean;
}

interface Props<T> {
  caption: string;
  columns: ReadonlyArray<Column<T>>;
  rows: readonly T[];
  name: (row: T) => string;
  empty: ReactNode;
}

/** A table, and on narrow screens a list of cards; the roles keep it a table for screen readers. */
export function Table<T>({ caption, columns, rows, name, empty }: Props<T>) {
  if (rows.length === 0) return <div className="empty">{empty}</div>;
  return (
    <table role="table">
      <caption>{caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((column) => (
            <th
              key={column.title}
              role="columnheader"
              scope="col"
              className={column.numeric ? "numeric" : undefined}
            >
              {column.title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={name(row)} role="row">
            {columns.map((column) => (
              <td
                key={column.title}
                role="cell"
                data-label={column.title}
                className={column.numeric ? "numeric" : undefined}
              >
                {column.cell(row)}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
