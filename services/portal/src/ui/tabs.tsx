interface Props {
  label: string;
  /** Address and text of each. */
  tabs: ReadonlyArray<readonly [string, string]>;
  /** The address of the one that is shown. */
  here: string;
}

/** Links between the parts of a page; each part has an address. */
export function Tabs({ label, tabs, here }: Props) {
  return (
    <nav className="tabs" aria-label={label}>
      {tabs.map(([to, text]) => (
        <a key={to} href={to} aria-current={to === here ? "page" : undefined}>
          {text}
        </a>
      ))}
    </nav>
  );
}
