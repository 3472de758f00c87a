import type { ReactNode } from "react";

interface Props {
  label: string;
  used: number;
  limit: number;
  /** The figures in words, for all readers. */
  children: ReactNode;
}

/** How much of a limit is used, as a bar with its figures. It turns at 80 % and at 100 %. */
export function Meter({ label, used, limit, children }: Props) {
  const share = limit > 0 ? used / limit : 1;
  const tone = share >= 1 ? "bad" : share >= 0.8 ? "waiting" : "good";
  return (
    <div className={`meter ${tone}`}>
      <div className="meter-head">
        <span className="strong">{label}</span>
        <span>{Math.floor(share * 100)} %</span>
      </div>
      <div
        className="track"
        role="meter"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={limit}
        aria-valuenow={Math.min(used, limit)}
      >
        <div className="fill" style={{ width: `${Math.min(share, 1) * 100}%` }} />
      </div>
      <p className="quiet">{children}</p>
    </div>
  );
}
