const WHOLE = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });
const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** A count with all its digits: 1,204,330. */
export function count(value: number | bigint): string {
  return WHOLE.format(value);
}

/** A count in little room: 1.2M. */
export function shortCount(value: number): string {
  return SHORT.format(value);
}

/** A size: 12 B, 3.4 MB. */
export function bytes(value: number | bigint): string {
  let size = Number(value);
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${Number(size.toFixed(size < 10 && unit > 0 ? 1 : 0))} ${UNITS[unit]}`;
}

/** A share from 0 to 1. Never rounded to 0 % or 100 % unless it is that. */
export function share(value: number): string {
  const rounded = Math.round(value * 1000) / 10;
  if (rounded === 0 && value > 0) return "< 0.1 %";
  if (rounded === 100 && value < 1) return "> 99.9 %";
  return `${rounded} %`;
}
