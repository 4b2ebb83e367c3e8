// Where the columns of a network are drawn, in pixels.

import type { Column } from "./scene";
import { STEP_WIDTH } from "./Unrolled";

export interface Box {
  column: Column;
  x: number;
  width: number;
  /** Middle heights of the units, and their radius. */
  ys: number[];
  radius: number;
}

export interface Layout {
  boxes: Box[];
  width: number;
  height: number;
  middle: number;
  top: number;
  /** Between columns. */
  gap: number;
}

const TOP = 58; // room for the names of the columns
const BOTTOM = 26;
const PROJECTOR = 1.25; // how much larger units are where there is room
const ARC = 46; // room for connections that skip columns

export function layOut(columns: readonly Column[], available: number): Layout {
  const widths = columns.map((column) => {
    if (column.kind !== "picture") return 84;
    return column.steps > 0 ? Math.max(132, column.steps * STEP_WIDTH + 20) : 132;
  });
  const inside = widths.reduce((total, width) => total + width, 0);
  const gaps = Math.max(columns.length - 1, 1);
  const narrow = columns.length > 8 ? 44 : 52;
  const gap = Math.min(Math.max((available - inside - 24) / gaps, narrow), 260);
  const scale = available > 1500 ? PROJECTOR : 1;
  const skips = columns.some((column) => column.from.some((from) => from < column.number - 1));
  const tallest = Math.max(
    ...columns.map((column) => (column.kind === "units" ? column.units * spacing(column.units, scale) : 150)),
  );
  const top = TOP + (skips ? ARC : 0);
  const height = top + Math.max(tallest, 170) + BOTTOM;
  const middle = (top + height - BOTTOM) / 2;
  const needed = inside + gap * (columns.length - 1) + 24;
  let x = Math.max(12, (available - needed) / 2 + 12);
  const boxes = columns.map((column, k) => {
    const width = widths[k] as number;
    const count = column.kind === "units" ? column.units : 1;
    const step = spacing(count, scale);
    const ys = Array.from({ length: count }, (_, unit) => middle + (unit - (count - 1) / 2) * step);
    const box = { column, x, width, ys, radius: column.kind === "loss" ? 30 * scale : radius(count, scale) };
    x += width + gap;
    return box;
  });
  return { boxes, width: Math.max(available, needed), height, middle, top, gap };
}

function spacing(units: number, scale: number): number {
  if (units <= 3) return 118 * scale;
  if (units <= 5) return 106 * scale;
  return units <= 8 ? 54 : 32;
}

function radius(units: number, scale: number): number {
  if (units <= 5) return 28 * scale;
  return units <= 8 ? 22 : 13;
}

/** The boxes that a part of the drawing touches; connections reach over to neighbours. */
export function visible(layout: Layout, left: number, right: number): Box[] {
  return layout.boxes.filter((box) => box.x + box.width + 300 >= left && box.x - 300 <= right);
}
