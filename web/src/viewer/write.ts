// How equations are written: subscripts, numbers inside products, long sums.

import { formatNumber } from "../shared/format";

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const DIGITS = 4;
const LONGEST = 6; // terms of a sum that are written out

/** One line of the explanation: what, in symbols, the same in numbers, and what comes out. */
export interface Line {
  label: string;
  symbols: string;
  numbers: string;
  result: string;
}

/** A number as it is written in an equation. */
export function show(value: number): string {
  return formatNumber(value, DIGITS);
}

/** The same as a factor or a later term: negative numbers in parentheses. */
export function factor(value: number): string {
  const text = show(value);
  return text.startsWith("−") || text.includes("·") ? `(${text})` : text;
}

/** Indices as subscripts, counted from 1 as in textbooks: w₃₁, or w₁₂,₇ where digits would run together. */
export function sub(...indices: number[]): string {
  const comma = indices.some((index) => index > 8) ? "," : "";
  return indices.map((index) => [...String(index + 1)].map((digit) => SUBSCRIPTS[Number(digit)]).join("")).join(comma);
}

/** An element by its index, counted from 0 as in programs: 0.weight[0, 1]. */
export function at(name: string, index: readonly number[]): string {
  return index.length === 0 ? name : `${name}[${index.join(", ")}]`;
}

export interface Product {
  symbols: string;
  numbers: string;
  value: number;
}

export function product(symbols: [string, string], a: number, b: number): Product {
  return { symbols: symbols.join("·"), numbers: `${factor(a)}·${factor(b)}`, value: a * b };
}

export function single(symbol: string, value: number): Product {
  return { symbols: symbol, numbers: factor(value), value };
}

/** A sum in symbols and in numbers; of a long one the largest terms, and how much the others add. */
export function sum(terms: readonly Product[]): { symbols: string; numbers: string } {
  if (terms.length <= LONGEST) {
    return {
      symbols: terms.map(({ symbols }) => symbols).join(" + "),
      numbers: terms.map(({ numbers }) => numbers).join(" + "),
    };
  }
  const first = [...terms].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, LONGEST - 1);
  const rest = terms.length - first.length;
  const others =
    terms.reduce((total, { value }) => total + value, 0) - first.reduce((total, { value }) => total + value, 0);
  return {
    symbols: `${first.map(({ symbols }) => symbols).join(" + ")} + … (${terms.length} terms, largest first)`,
    numbers: `${first.map(({ numbers }) => numbers).join(" + ")} + ${factor(others)} of the other ${rest}`,
  };
}

/** A file without its folders. */
export function fileName(path: string): string {
  return path.split(/[\\/]/).pop() ?? path;
}
