// Numbers as people read them.

import type { Num } from "./types";

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** The number, with what JSON cannot write turned back. Nothing known: NaN. */
export function toNumber(value: Num | boolean | null | undefined): number {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (value === "Infinity") return Infinity;
  if (value === "-Infinity") return -Infinity;
  return NaN;
}

/** A number in a few characters: 0.298, −12.4, 1.3·10⁻⁷, NaN, ∞. A true minus sign, so that columns align. */
export function formatNumber(value: Num | boolean | null | undefined, digits = 3): string {
  const number = toNumber(value);
  if (Number.isNaN(number)) return "NaN";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  if (number === 0) return "0";
  const size = Math.abs(number);
  const sign = number < 0 ? "−" : "";
  if (size >= 1e-3 && size < 1e5) {
    if (Number.isInteger(size)) return sign + grouped(String(size));
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
    const text = size.toFixed(Math.min(places, 12));
    return sign + (text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : grouped(text));
  }
  const [mantissa = "0", exponent = "0"] = size.toExponential(digits - 1).split("e");
  const short = mantissa.includes(".") ? mantissa.replace(/0+$/, "").replace(/\.$/, "") : mantissa;
  return `${sign}${short === "1" ? "" : `${short}·`}10${superscript(Number(exponent))}`;
}

/** As `formatNumber`, with a plus before what is positive. */
export function formatSigned(value: Num | null | undefined, digits = 3): string {
  const text = formatNumber(value, digits);
  return toNumber(value) > 0 ? `+${text}` : text;
}

export function superscript(exponent: number): string {
  const digits = [...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[Number(digit)] ?? "").join("");
  return exponent < 0 ? `⁻${digits}` : digits;
}

/** A whole number with thin spaces between thousands. */
export function grouped(text: string | number): string {
  return String(text).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** A share, 0 to 1, as percent: "0.8 %", "94 %", "<0.1 %". */
export function formatShare(share: Num | null | undefined): string {
  const percent = 100 * toNumber(share);
  if (Number.isNaN(percent)) return "–";
  if (percent > 0 && percent < 0.1) return "<0.1 %";
  const places = percent < 10 && percent > 0 ? 1 : 0;
  return `${percent.toFixed(places).replace(/\.0$/, "")} %`;
}

/** Seconds as 12 s, 3:07, 1:02:09. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const two = (part: number): string => String(part).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A shape as 128 × 784; a scalar as "scalar". */
export function formatShape(shape: number[]): string {
  return shape.length === 0 ? "scalar" : shape.join(" × ");
}
