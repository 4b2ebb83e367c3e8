// Numbers out of the arrays of an explanation: single elements, the part that belongs to one row, pictures of it.

import { toNumber } from "../shared/format";
import { isFull, type ArrayJson } from "../shared/types";

const known = new WeakMap<object, Float64Array>();

/** All elements, row-major; null when the array came as a summary only. */
export function flat(array: ArrayJson | null | undefined): Float64Array | null {
  if (!array || !isFull(array)) return null;
  let numbers = known.get(array);
  if (!numbers) {
    numbers = Float64Array.from(array.data, toNumber);
    known.set(array, numbers);
  }
  return numbers;
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** Where an element lies in the flat array. */
export function position(shape: readonly number[], index: readonly number[]): number {
  return shape.reduce((place, length, axis) => place * length + (index[axis] ?? 0), 0);
}

/** The index of the element at a place in the flat array. */
export function indexAt(shape: readonly number[], place: number): number[] {
  const index = shape.map(() => 0);
  for (let axis = shape.length - 1; axis >= 0; axis -= 1) {
    const length = shape[axis] || 1;
    index[axis] = place % length;
    place = Math.floor(place / length);
  }
  return index;
}

/** One element, NaN when it did not come along. */
export function element(array: ArrayJson | null | undefined, index: readonly number[]): number {
  const numbers = flat(array);
  return array && numbers ? (numbers[position(array.shape, index)] ?? NaN) : NaN;
}

/** Whether the first axis counts the rows of the batch. */
export function isBatched(shape: readonly number[], rows: number | null): boolean {
  return rows !== null && shape.length > 0 && shape[0] === rows;
}

/** The shape of what belongs to one row. */
export function shapeOfRow(shape: readonly number[], rows: number | null): number[] {
  return isBatched(shape, rows) ? shape.slice(1) : [...shape];
}

/** The elements that belong to one row; null when the array came as a summary only. */
export function ofRow(array: ArrayJson | null | undefined, rows: number | null, row: number): Float64Array | null {
  const numbers = flat(array);
  if (!array || !numbers || !isBatched(array.shape, rows)) return numbers;
  const size = sizeOf(array.shape.slice(1));
  return numbers.subarray(row * size, (row + 1) * size);
}

export interface Panel {
  label: string;
  rows: number;
  columns: number;
  data: Float64Array;
  /** Index of the panel's first element in the array, and which axes its rows and columns run along (−1: none). */
  start: number[];
  rowAxis: number;
  columnAxis: number;
}

export interface Picture {
  panels: Panel[];
  /** How many panels there are in all; more than `panels` when only some were asked for. */
  count: number;
  /** False: block averages of a larger array. */
  exact: boolean;
}

const WIDEST = 24; // a longer row of numbers is folded into a block

/** An array as heat maps: last two axes as rows and columns, one panel for each of the others. The batch row is picked. */
export function picture(
  array: ArrayJson,
  row: number,
  rowAxisOfBatch: number,
  axes: readonly string[] = [],
  most = 16,
): Picture {
  const numbers = flat(array);
  if (!numbers) return blocks(array, row, rowAxisOfBatch);
  const free = array.shape.map((_, axis) => axis).filter((axis) => axis !== rowAxisOfBatch && array.shape[axis] !== 1);
  const start = array.shape.map((_, axis) => (axis === rowAxisOfBatch ? row : 0));
  const lengths = free.map((axis) => array.shape[axis] ?? 1);
  if (free.length < 2) return { panels: [line(numbers, array.shape, start, free[0] ?? -1)], count: 1, exact: true };
  const [rowAxis, columnAxis] = [free[free.length - 2] as number, free[free.length - 1] as number];
  const outer = lengths.slice(0, -2);
  const count = sizeOf(outer);
  const panels: Panel[] = [];
  for (let k = 0; k < Math.min(count, most); k += 1) {
    const place = indexAt(outer, k);
    const first = [...start];
    place.forEach((i, position_) => (first[free[position_] as number] = i));
    const label = place.map((i, position_) => `${axes[free[position_] as number] ?? ""} ${i + 1}`.trim()).join(", ");
    panels.push(block(numbers, array.shape, first, rowAxis, columnAxis, label));
  }
  return { panels, count, exact: true };
}

function line(numbers: Float64Array, shape: readonly number[], start: number[], axis: number): Panel {
  const length = axis < 0 ? 1 : (shape[axis] ?? 1);
  const data = new Float64Array(length);
  const index = [...start];
  for (let i = 0; i < length; i += 1) {
    if (axis >= 0) index[axis] = i;
    data[i] = numbers[position(shape, index)] ?? NaN;
  }
  const columns = length <= WIDEST ? length : Math.ceil(Math.sqrt(length));
  return { label: "", rows: Math.ceil(length / columns), columns, data, start, rowAxis: -1, columnAxis: axis };
}

function block(
  numbers: Float64Array,
  shape: readonly number[],
  start: number[],
  rowAxis: number,
  columnAxis: number,
  label: string,
): Panel {
  const [rows, columns] = [shape[rowAxis] ?? 1, shape[columnAxis] ?? 1];
  const data = new Float64Array(rows * columns);
  const index = [...start];
  for (let i = 0; i < rows; i += 1) {
    index[rowAxis] = i;
    for (let j = 0; j < columns; j += 1) {
      index[columnAxis] = j;
      data[i * columns + j] = numbers[position(shape, index)] ?? NaN;
    }
  }
  return { label, rows, columns, data, start, rowAxis, columnAxis };
}

function blocks(array: ArrayJson, row: number, rowAxisOfBatch: number): Picture {
  if (isFull(array)) return { panels: [], count: 0, exact: true };
  const { rows, columns, data } = array.image;
  const whole = Float64Array.from(data, toNumber);
  // With two axes, and no rows averaged together, the picture still holds each row of the batch on its own.
  const single = rowAxisOfBatch === 0 && array.shape.length === 2 && rows === array.shape[0];
  const part = single ? whole.subarray(row * columns, (row + 1) * columns) : whole;
  const wide = single && columns > WIDEST ? Math.ceil(Math.sqrt(columns)) : columns;
  const tall = single ? Math.ceil(columns / wide) : rows;
  const panel = { label: "", rows: tall, columns: wide, data: part, start: [], rowAxis: -1, columnAxis: -1 };
  return { panels: [panel], count: 1, exact: false };
}

/** The index in the array of a cell of a panel; null where the cell stands for many elements or for none. */
export function indexOfCell(panel: Panel, rowOfCell: number, column: number): number[] | null {
  if (panel.columnAxis < 0) return panel.data.length === 1 ? panel.start : null;
  const index = [...panel.start];
  if (panel.rowAxis >= 0) index[panel.rowAxis] = rowOfCell;
  index[panel.columnAxis] = panel.rowAxis >= 0 ? column : rowOfCell * panel.columns + column;
  return index;
}

export interface Entry {
  index: number[];
  value: number;
}

/** The elements of largest size, the largest first; NaN and infinities before all others. */
export function largest(array: ArrayJson, count: number): Entry[] {
  const numbers = flat(array);
  if (!numbers) return [];
  const size = (value: number): number => (Number.isNaN(value) ? Infinity : Math.abs(value));
  return [...numbers.keys()]
    .sort((a, b) => size(numbers[b] as number) - size(numbers[a] as number) || a - b)
    .slice(0, count)
    .map((place) => ({ index: indexAt(array.shape, place), value: numbers[place] as number }));
}
