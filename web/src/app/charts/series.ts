// From the rows of a history to the points of a line.

import { toNumber } from "../../shared/format";
import type { HistoryRow } from "../../shared/types";

export type XAxis = "step" | "epoch" | "time";

export interface Series {
  key: string;
  label: string;
  colour: number;
  dashed: boolean;
  /** Drawn thin, behind the others: what is noisy by nature. */
  faint: boolean;
  xs: number[];
  ys: (number | null)[];
  /** The step of each point: what a click opens. */
  steps: number[];
}

const NOT_DRAWN = new Set(["step", "epoch", "seconds"]);

/** The names of what was measured, in the order of their first appearance. */
export function metricNames(rows: HistoryRow[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name in row) if (!NOT_DRAWN.has(name)) names.add(name);
  return [...names].sort((a, b) => rank(a) - rank(b));
}

const rank = (name: string): number =>
  name === "loss" ? 0 : name === "validation_loss" ? 1 : name === "batch_loss" ? 3 : 2;

/** What a metric measures, whatever the rows: validation_loss and batch_loss are losses. */
export function family(metric: string): string {
  return metric.replace(/^(validation|batch|test|train)_/, "");
}

/** A metric's name as people write it. */
export function title(metric: string): string {
  const names: Record<string, string> = {
    loss: "training loss",
    batch_loss: "loss of each batch",
    lr: "learning rate",
  };
  return names[metric] ?? metric.replace(/_/g, " ");
}

/** The points of one metric against step, epoch or seconds of training. */
export function points(rows: HistoryRow[], metric: string, axis: XAxis): Pick<Series, "xs" | "ys" | "steps"> {
  const xs: number[] = [];
  const ys: (number | null)[] = [];
  const steps: number[] = [];
  const position = places(rows, axis);
  for (const row of rows) {
    const value = row[metric];
    if (value === undefined) continue;
    const number = toNumber(value);
    const x = position(row.step);
    if (!Number.isFinite(x)) continue;
    if (xs.length && x <= (xs[xs.length - 1] as number)) continue;
    xs.push(x);
    ys.push(Number.isFinite(number) ? number : null);
    steps.push(row.step);
  }
  return { xs, ys, steps };
}

/** Where a step stands on the axis. Epochs and seconds are known at the ends of epochs, and even in between. */
export function places(rows: HistoryRow[], axis: XAxis): (step: number) => number {
  if (axis === "step") return (step) => step;
  const known: [number, number][] = [];
  for (const row of rows) {
    if (row["seconds"] === undefined) continue;
    known.push([row.step, axis === "time" ? toNumber(row["seconds"]) : row.epoch]);
  }
  const [first, last] = [known[0], known[known.length - 1]];
  if (!first || !last) return axis === "epoch" ? perRow(rows) : () => NaN;
  if (first[0] > 0) known.unshift([0, 0]);
  const tail = known[known.length - 2] ?? [0, 0];
  const slope = (last[1] - tail[1]) / Math.max(last[0] - tail[0], 1);
  return (step) => {
    if (step >= last[0]) return last[1] + (step - last[0]) * slope;
    let [low, high] = [0, known.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((known[middle] as [number, number])[0] <= step) low = middle;
      else high = middle;
    }
    const [a, b] = [known[low] as [number, number], known[high] as [number, number]];
    return a[1] + ((b[1] - a[1]) * (step - a[0])) / Math.max(b[0] - a[0], 1);
  };
}

function perRow(rows: HistoryRow[]): (step: number) => number {
  const epochs = new Map(rows.map((row) => [row.step, row.epoch]));
  return (step) => epochs.get(step) ?? NaN;
}

/** An exponential moving average, corrected for its beginning; gaps stay gaps. */
export function smoothed(ys: (number | null)[], weight: number): (number | null)[] {
  if (weight <= 0) return ys;
  let mean = 0;
  let known = 0;
  return ys.map((y) => {
    if (y === null) return null;
    mean = weight * mean + (1 - weight) * y;
    known = weight * known + (1 - weight);
    return mean / known;
  });
}

/** The place of the last point that is not beyond x; −1 where there is none. */
export function indexAt(xs: number[], x: number): number {
  let [low, high] = [-1, xs.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) <= x) low = middle;
    else high = middle;
  }
  return low;
}
