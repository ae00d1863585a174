/** Numbers as texts. */

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Seconds, in milliseconds below one second. */
export function seconds(value) {
  if (value === undefined) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

/** Bytes, exact below 100,000. */
export function bytes(value) {
  if (value < 1e5) return `${grouped.format(value)} B`;
  return value < 1e6 ? `${grouped.format(value / 1e3)} kB` : `${grouped.format(value / 1e6)} MB`;
}

export const utf8Length = (text) => new TextEncoder().encode(text).length;
