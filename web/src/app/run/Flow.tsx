// Two heat maps over the steps: how much gradient each layer gets, and how far each parameter moves.

import { useMemo } from "preact/hooks";
import { diverging, type Rgb, sequential } from "../../shared/colours";
import { formatNumber, superscript, toNumber } from "../../shared/format";
import { useDark } from "../../shared/theme";
import type { Snapshot } from "../../shared/types";
import { HeatMap, type HeatRow, type Legend } from "../charts/HeatMap";
import { Card } from "../parts";

export interface SnapshotView {
  snapshots: Snapshot[];
  mark: number;
  onStep: (step: number, open: boolean) => void;
}

/** Rows of equal length from snapshots: a row for each key of any snapshot, NaN where one is missing. */
export function heatRows<T>(
  snapshots: Snapshot[],
  items: (snapshot: Snapshot) => T[],
  describe: (item: T) => { key: string; label: string; value: number },
): HeatRow[] {
  const rows = new Map<string, HeatRow>();
  snapshots.forEach((snapshot, place) => {
    for (const item of items(snapshot)) {
      const { key, label, value } = describe(item);
      let row = rows.get(key);
      if (!row) {
        row = { key, label, values: Array<number>(snapshots.length).fill(NaN) };
        rows.set(key, row);
      }
      row.values[place] = value;
    }
  });
  return [...rows.values()];
}

export const layerLabel = (path: string, layer: string): string => (path ? `${path} ${layer}` : layer);

/** The powers of ten between which the values lie, at least one apart, at most twelve. */
function powers(rows: HeatRow[]): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    for (const value of row.values) {
      if (!(value > 0) || !Number.isFinite(value)) continue;
      low = Math.min(low, Math.log10(value));
      high = Math.max(high, Math.log10(value));
    }
  }
  if (low > high) return [-1, 0];
  const top = Math.ceil(high - 1e-9);
  return [Math.max(Math.min(Math.floor(low + 1e-9), top - 1), top - 12), top];
}

const power = (exponent: number): string => `10${superscript(exponent)}`;

export function GradientFlow(props: SnapshotView & { selected: string | null; onSelect: (path: string) => void }) {
  const { snapshots } = props;
  const steps = useMemo(() => snapshots.map((snapshot) => snapshot.step), [snapshots]);
  const rows = useMemo(
    () =>
      heatRows(
        snapshots,
        (snapshot) => snapshot.layers.filter(({ gradient }) => gradient), // layers before the first weight have none
        ({ path, layer, gradient }) => ({
          key: path,
          label: layerLabel(path, layer),
          value: toNumber(gradient?.norm),
        }),
      ),
    [snapshots],
  );
  const [low, high] = useMemo(() => powers(rows), [rows]);
  const colour = useMemo(
    () =>
      (value: number): Rgb =>
        sequential(value === 0 ? 0 : (Math.log10(value) - low) / (high - low)),
    [low, high],
  );
  const legend: Legend = {
    title: "norm of ∂loss/∂output",
    colours: Array.from({ length: 9 }, (_, k) => sequential(k / 8)),
    words: [`${power(low)} and less`, ...(high - low > 1 ? [power(Math.round((low + high) / 2))] : []), power(high)],
  };
  return (
    <Card
      title="Gradient flow"
      id="flow"
      hint="How much gradient reaches each layer, from input (top) to output. Choose a layer to see its histograms."
    >
      <HeatMap
        name="Gradient norm of each layer over the steps"
        summary={flowSummary(rows)}
        rows={rows}
        steps={steps}
        colour={colour}
        format={(value) => formatNumber(value, 2)}
        legend={legend}
        mark={props.mark}
        selected={props.selected}
        onSelect={props.onSelect}
        onStep={props.onStep}
      />
    </Card>
  );
}

function flowSummary(rows: HeatRow[]): string {
  const now = rows.map((row) => `${row.label} ${formatNumber(row.values[row.values.length - 1], 2)}`);
  return `At the last recorded step: ${now.slice(0, 12).join(", ")}${now.length > 12 ? " and more" : ""}.`;
}

/** ‖Δw‖ / ‖w‖ around 10⁻³ is what learns well; the colour tells the distance from it, either way. */
const HEALTHY = -3;
const REACH = 3; // so the scale ends at 10⁻⁶ and 1

export function UpdateRatios(props: SnapshotView) {
  const { snapshots } = props;
  const dark = useDark();
  const steps = useMemo(() => snapshots.map((snapshot) => snapshot.step), [snapshots]);
  const rows = useMemo(
    () =>
      heatRows(
        snapshots,
        (snapshot) => snapshot.parameters,
        ({ name, ratio }) => ({ key: name, label: name, value: ratio === null ? NaN : toNumber(ratio) }),
      ),
    [snapshots],
  );
  const colour = useMemo(
    () =>
      (value: number): Rgb =>
        diverging(value === 0 ? -1 : Math.max(-1, Math.min(1, (Math.log10(value) - HEALTHY) / REACH)), dark),
    [dark],
  );
  return (
    <Card
      title="Size of the updates"
      id="ratios"
      hint="Each update against its weights, ‖Δw‖ / ‖w‖. About 10⁻³ is usual: blue hardly moves, orange moves fast."
    >
      <HeatMap
        name="Ratio of update to weight of each parameter over the steps"
        summary={flowSummary(rows)}
        rows={rows}
        steps={steps}
        colour={colour}
        format={(value) => (Number.isNaN(value) ? "–" : formatNumber(value, 2))}
        legend={{
          title: "‖Δw‖ / ‖w‖",
          colours: Array.from({ length: 9 }, (_, k) => diverging(k / 4 - 1, dark)),
          words: [`${power(HEALTHY - REACH)} frozen`, `${power(HEALTHY)} usual`, "1 torn"],
        }}
        mark={props.mark}
        onStep={props.onStep}
      />
    </Card>
  );
}
