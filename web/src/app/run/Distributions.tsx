import { useMemo, useState } from "preact/hooks";
import { sequential } from "../../shared/colours";
import { formatNumber, formatShare, grouped, toNumber } from "../../shared/format";
import type { Snapshot, Stats } from "../../shared/types";
import { HeatMap, type HeatRow, nearest } from "../charts/HeatMap";
import { Card, Choice } from "../parts";
import { layerLabel, type SnapshotView } from "./Flow";

type Kind = "output" | "gradient" | "value" | "parameter-gradient" | "update";

const KINDS: readonly (readonly [Kind, string])[] = [
  ["output", "Activations"],
  ["gradient", "Their gradients"],
  ["value", "Weights"],
  ["parameter-gradient", "Weight gradients"],
  ["update", "Updates"],
];
const BINS = 40;

/** Histograms of one layer over the steps: a column for each step, brighter where more values lie. */
export function Distributions(props: SnapshotView & { selected: string | null; onSelect: (path: string) => void }) {
  const { snapshots, selected } = props;
  const [kind, setKind] = useState<Kind>("output");
  const [parameter, setParameter] = useState("weight");
  const layers = snapshots[snapshots.length - 1]?.layers ?? [];
  const ofParameter = kind !== "output" && kind !== "gradient";
  const own = (snapshots[snapshots.length - 1]?.parameters ?? [])
    .map((item) => item.name)
    .filter((name) => parent(name) === selected);
  const name = own.find((item) => item.endsWith(`.${parameter}`) || item === parameter) ?? own[0] ?? null;

  const found = useMemo(() => {
    const pairs: { step: number; stats: Stats }[] = [];
    for (const snapshot of snapshots) {
      const stats = statsOf(snapshot, kind, selected, name);
      if (stats && stats.histogram) pairs.push({ step: snapshot.step, stats });
    }
    return pairs;
  }, [snapshots, kind, selected, name]);
  const steps = useMemo(() => found.map(({ step }) => step), [found]);
  const range = useMemo(() => commonRange(found.map(({ stats }) => stats)), [found]);
  const rows = useMemo(
    () =>
      densityRows(
        found.map(({ stats }) => stats),
        range,
      ),
    [found, range],
  );
  const present = found[nearest(steps, props.mark)];
  const title = KINDS.find(([key]) => key === kind)?.[1] ?? "";

  return (
    <Card
      title="Histograms"
      id="histograms"
      tools={
        <div class="tools">
          <label class="field">
            Layer
            <select value={selected ?? ""} onChange={(event) => props.onSelect(event.currentTarget.value)}>
              {layers.map(({ path, layer }) => (
                <option key={path} value={path}>
                  {layerLabel(path, layer)}
                </option>
              ))}
            </select>
          </label>
          {ofParameter && own.length > 1 && (
            <label class="field">
              Parameter
              <select value={name ?? ""} onChange={(event) => setParameter(last(event.currentTarget.value))}>
                {own.map((item) => (
                  <option key={item} value={item}>
                    {last(item)}
                  </option>
                ))}
              </select>
            </label>
          )}
        </div>
      }
    >
      <Choice label="What is counted" value={kind} options={KINDS} onChange={setKind} />
      {found.length === 0 ? (
        <p class="soft block">{ofParameter ? "This layer has no parameters." : "Not recorded for this layer."}</p>
      ) : (
        <div class="histograms">
          <HeatMap
            name={`${title} of layer ${selected}: histogram over the steps`}
            summary={present ? describe(present.stats) : ""}
            rows={rows}
            steps={steps}
            colour={sequential}
            format={formatShare}
            legend={{
              title: `values from ${formatNumber(range[0], 2)} (bottom) to ${formatNumber(range[1], 2)} (top)`,
              colours: Array.from({ length: 9 }, (_, k) => sequential(k / 8)),
              words: ["few", "many"],
            }}
            mark={props.mark}
            onStep={props.onStep}
            rowHeight={6}
          />
          {present && <OneHistogram step={present.step} stats={present.stats} />}
        </div>
      )}
    </Card>
  );
}

const parent = (name: string): string => (name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : "");
const last = (name: string): string => name.slice(name.lastIndexOf(".") + 1);

function statsOf(snapshot: Snapshot, kind: Kind, path: string | null, name: string | null): Stats | null {
  if (kind === "output" || kind === "gradient") {
    return snapshot.layers.find((layer) => layer.path === path)?.[kind] ?? null;
  }
  const parameter = snapshot.parameters.find((item) => item.name === name);
  return parameter?.[kind === "parameter-gradient" ? "gradient" : kind] ?? null;
}

/** A range that holds nearly all: rare extremes of single steps would squeeze everything else into one row. */
function commonRange(all: Stats[]): [number, number] {
  const lows = all.map((stats) => toNumber(stats.histogram.low)).filter(Number.isFinite);
  const highs = all.map((stats) => toNumber(stats.histogram.high)).filter(Number.isFinite);
  lows.sort((a, b) => a - b);
  highs.sort((a, b) => a - b);
  const low = lows[Math.floor(lows.length * 0.1)] ?? 0;
  const high = highs[Math.ceil(highs.length * 0.9) - 1] ?? 1;
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/** Counts of each histogram spread over the common bins, as a share of the largest bin of its step; top row highest. */
function densityRows(all: Stats[], [low, high]: [number, number]): HeatRow[] {
  const rows: HeatRow[] = Array.from({ length: BINS }, (_, k) => {
    const edge = high - ((high - low) * (k + 1)) / BINS;
    return { key: String(k), label: `from ${formatNumber(edge, 2)}`, values: [] };
  });
  for (const { histogram } of all) {
    const bins = Array<number>(BINS).fill(0);
    const [from, to] = [toNumber(histogram.low), toNumber(histogram.high)];
    const width = (to - from) / histogram.counts.length || 1e-30;
    histogram.counts.forEach((count, k) => {
      const [left, right] = [from + k * width, from + (k + 1) * width];
      const scale = BINS / (high - low);
      const [first, final] = [(left - low) * scale, (right - low) * scale];
      for (
        let bin = Math.max(Math.floor(first), 0);
        bin < Math.min(Math.max(Math.ceil(final), Math.floor(first) + 1), BINS);
        bin++
      ) {
        const overlap = final > first ? (Math.min(final, bin + 1) - Math.max(first, bin)) / (final - first) : 1;
        bins[bin] = (bins[bin] as number) + count * overlap;
      }
    });
    const most = Math.max(...bins) || 1;
    bins.forEach((count, bin) => (rows[BINS - 1 - bin] as HeatRow).values.push(count / most));
  }
  return rows;
}

const describe = (stats: Stats): string =>
  `mean ${formatNumber(stats.mean)}, standard deviation ${formatNumber(stats.std)}, ` +
  `from ${formatNumber(stats.min)} to ${formatNumber(stats.max)}, ${formatShare(stats.zeros)} zeros`;

/** The histogram of the marked step, with its figures. */
function OneHistogram({ step, stats }: { step: number; stats: Stats }) {
  const { counts, low, high } = stats.histogram;
  const most = Math.max(...counts, 1);
  const width = 100 / counts.length;
  return (
    <div class="one-histogram">
      <h3>Step {grouped(step)}</h3>
      <svg
        viewBox="0 0 100 60"
        preserveAspectRatio="none"
        role="img"
        aria-label={`Histogram of step ${step}: ${describe(stats)}`}
      >
        {counts.map((count, k) => (
          <rect
            key={k}
            x={k * width + 0.15}
            width={width - 0.3}
            y={60 - (58 * count) / most}
            height={(58 * count) / most}
            class="bar"
          />
        ))}
      </svg>
      <div class="ends number">
        <span>{formatNumber(low)}</span>
        <span>{formatNumber(high)}</span>
      </div>
      <dl class="stats number">
        {(
          [
            ["mean", formatNumber(stats.mean)],
            ["std", formatNumber(stats.std)],
            ["norm", formatNumber(stats.norm)],
            ["zeros", formatShare(stats.zeros)],
            ["not finite", grouped(stats.nonfinite)],
          ] as const
        ).map(([term, value]) => (
          <div key={term}>
            <dt>{term}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
