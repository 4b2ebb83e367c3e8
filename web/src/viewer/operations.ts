// Single operations: which elements of the inputs an element is made of, and the derivative by each of them.

import type { ExplanationNode } from "../shared/types";
import { sizeOf, indexAt, position } from "./values";

const SYMBOLS: Record<string, string> = { add: "+", sub: "−", mul: "·", div: "/", pow: "^" };
const LARGEST_SUM = 4096;

/** Whether it is written between its operands, which then may need parentheses. */
export const isInfix = (op: string): boolean => op in SYMBOLS || op === "neg";

/** Written between or around its operands: "a + b", "σ(a)". */
export function spelled(op: string, operands: readonly string[]): string {
  const symbol = SYMBOLS[op];
  if (symbol && operands.length === 2) return `${operands[0]} ${symbol} ${operands[1]}`;
  if (op === "neg") return `−${operands[0]}`;
  if (op === "sigmoid") return `σ(${operands[0]})`;
  if (op === "where" && operands.length === 3) return `${operands[1]} if ${operands[0]} else ${operands[2]}`;
  if (["reshape", "transpose", "broadcast", "cast", "alias"].includes(op)) return operands[0] ?? "";
  return `${op}(${operands.join(", ")})`;
}

export interface Source {
  /** Which input, and the index of the element in it. */
  input: number;
  index: number[];
}

export interface Made {
  how: "each" | "products" | "sum" | "copy";
  sources: Source[];
}

/** What an element of a node's value is made of; null where the node's record does not say it. */
export function madeOf(
  node: ExplanationNode,
  shapes: readonly (readonly number[])[],
  index: readonly number[],
): Made | null {
  const shape = node.shape;
  const [first] = shapes;
  if (!first) return null;
  if (node.op === "matmul" && shapes[1]) return products(first, shapes[1], index);
  if (node.op === "reshape") {
    return { how: "copy", sources: [{ input: 0, index: indexAt(first, position(shape, index)) }] };
  }
  if (node.op === "transpose" && first.length === 2) {
    return { how: "copy", sources: [{ input: 0, index: [index[1] ?? 0, index[0] ?? 0] }] };
  }
  if (node.op === "broadcast") {
    const lead = shape.length - first.length;
    return {
      how: "copy",
      sources: [{ input: 0, index: first.map((n, axis) => (n === 1 ? 0 : (index[axis + lead] ?? 0))) }],
    };
  }
  if (["sum", "max", "min", "prod"].includes(node.op) && first.length === shape.length)
    return over(first, shape, index);
  if (shapes.every((each) => each.join() === shape.join()) && !["cumsum", "flip", "scan"].includes(node.op)) {
    return { how: "each", sources: shapes.map((_, input) => ({ input, index: [...index] })) };
  }
  return null;
}

function products(a: readonly number[], b: readonly number[], index: readonly number[]): Made {
  const outer = index.slice(0, -2);
  const [i, j] = [index.at(-2) ?? 0, index.at(-1) ?? 0];
  const length = a.at(-1) ?? 0;
  const sources: Source[] = [];
  for (let k = 0; k < length; k += 1) {
    sources.push({ input: 0, index: [...outer.slice(outer.length - a.length + 2), i, k] });
    sources.push({ input: 1, index: [...outer.slice(outer.length - b.length + 2), k, j] });
  }
  return { how: "products", sources };
}

function over(from: readonly number[], to: readonly number[], index: readonly number[]): Made | null {
  const lengths = from.map((length, axis) => (to[axis] === length ? 1 : length));
  if (sizeOf(lengths) > LARGEST_SUM) return null;
  const sources: Source[] = [];
  for (let k = 0; k < sizeOf(lengths); k += 1) {
    const offset = indexAt(lengths, k);
    sources.push({ input: 0, index: offset.map((o, axis) => (lengths[axis] === 1 ? (index[axis] ?? 0) : o)) });
  }
  return { how: "sum", sources };
}

export interface Local {
  /** ∂y/∂input in symbols, in numbers, and as a number. */
  symbols: string;
  numbers: string;
  value: number;
}

type Derivative = (y: number, inputs: readonly number[], input: number) => [string, number];

const tie = (own: number, other: number, wins: boolean): number => (own === other ? 0.5 : wins ? 1 : 0);

const DERIVATIVES: Record<string, Derivative> = {
  add: () => ["1", 1],
  sub: (_y, _x, input) => (input === 0 ? ["1", 1] : ["−1", -1]),
  mul: (_y, x, input) => ["the other factor", x[1 - input] ?? NaN],
  div: (y, x, input) => (input === 0 ? ["1 / b", 1 / (x[1] ?? NaN)] : ["−y / b", -y / (x[1] ?? NaN)]),
  neg: () => ["−1", -1],
  exp: (y) => ["y", y],
  expm1: (y) => ["y + 1", y + 1],
  log: (_y, x) => ["1 / x", 1 / (x[0] ?? NaN)],
  log1p: (_y, x) => ["1 / (1 + x)", 1 / (1 + (x[0] ?? NaN))],
  sqrt: (y) => ["1 / 2y", 0.5 / y],
  tanh: (y) => ["1 − y²", 1 - y * y],
  sigmoid: (y) => ["y · (1 − y)", y * (1 - y)],
  softplus: (_y, x) => ["σ(x)", 1 / (1 + Math.exp(-(x[0] ?? NaN)))],
  erf: (_y, x) => ["2/√π · e^(−x²)", (2 / Math.sqrt(Math.PI)) * Math.exp(-((x[0] ?? NaN) ** 2))],
  sin: (_y, x) => ["cos x", Math.cos(x[0] ?? NaN)],
  cos: (_y, x) => ["−sin x", -Math.sin(x[0] ?? NaN)],
  abs: (_y, x) => ["sign x", Math.sign(x[0] ?? NaN)],
  where: (_y, x, input) => [input === 1 ? "1 if taken" : "1 if not", Number(Boolean(x[0]) === (input === 1))],
  maximum: (_y, x, i) => ["1 if largest", tie(x[i] ?? NaN, x[1 - i] ?? NaN, (x[i] ?? NaN) > (x[1 - i] ?? NaN))],
  minimum: (_y, x, i) => ["1 if smallest", tie(x[i] ?? NaN, x[1 - i] ?? NaN, (x[i] ?? NaN) < (x[1 - i] ?? NaN))],
  reshape: () => ["1", 1],
  transpose: () => ["1", 1],
  sum: () => ["1", 1],
  cast: () => ["1", 1],
  alias: () => ["1", 1],
};

/** The derivative of an elementwise operation by one of its inputs; null where it is not in the table. */
export function derivative(op: string, y: number, inputs: readonly number[], input: number): [string, number] | null {
  return DERIVATIVES[op]?.(y, inputs, input) ?? null;
}
