// What the reader has chosen: the step of the walk, a row of the batch, a unit, a connection, what colours stand for.

import type { ExplanationNode } from "../shared/types";
import type { Column } from "./scene";
import type { Step } from "./steps";
import { indexAt, isBatched, sizeOf } from "./values";

export type Showing = "follow" | "value" | "gradient" | "update";

export interface Choice {
  step: number;
  row: number;
  /** The unit looked at (by its number in its column), and the unit before it whose connection is looked at. */
  unit: number;
  source: number;
  /** A column other than the step's, when the reader looked elsewhere; null: the step's own. */
  column: number | null;
  showing: Showing;
  /** An element picked by hand for the present node; null: the one that belongs to row and unit. */
  index: number[] | null;
}

export const START: Choice = { step: 0, row: 0, unit: 0, source: 0, column: null, showing: "follow", index: null };

/** What the colours of connections and pictures stand for at a step. */
export function shownAt(showing: Showing, step: Step): "value" | "gradient" | "update" {
  if (showing !== "follow") return showing;
  if (step.phase === "backward") return "gradient";
  return step.phase === "update" ? "update" : "value";
}

/** The element of a node that belongs to the chosen row and unit. */
export function indexFor(node: ExplanationNode, choice: Choice, column: Column | null, rows: number | null): number[] {
  const { shape } = node;
  if (choice.index && choice.index.length === shape.length) return choice.index;
  if (shape.length === 0) return [];
  const isLeaf = node.role === "parameter" || node.role === "frozen";
  if (isLeaf && shape.length === 2) return clip(shape, [choice.unit, choice.source]);
  if (!isLeaf && isBatched(shape, rows)) {
    const rest = shape.slice(1);
    const place = Math.min(choice.unit, Math.max(sizeOf(rest) - 1, 0));
    return clip(shape, [choice.row, ...indexAt(rest, place)]);
  }
  // The transpose of a weight matrix: inputs × units.
  if (shape.length === 2 && column?.weight && shape[1] === column.units)
    return clip(shape, [choice.source, choice.unit]);
  return clip(shape, indexAt(shape, Math.min(choice.unit, Math.max(sizeOf(shape) - 1, 0))));
}

export function clip(shape: readonly number[], index: readonly number[]): number[] {
  return shape.map((length, axis) => Math.min(Math.max(index[axis] ?? 0, 0), Math.max(length - 1, 0)));
}
