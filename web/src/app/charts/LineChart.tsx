// Curves: uPlot draws them, and a table says the same to those who do not see them.

import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import { line } from "../../shared/colours";
import { formatNumber, grouped } from "../../shared/format";
import { useDark } from "../../shared/theme";
import { useWidth } from "../parts";
import { indexAt, type Series, smoothed } from "./series";

export interface LineChartProps {
  name: string;
  series: Series[];
  xLabel: string;
  logarithmic?: boolean;
  smoothing?: number;
  height?: number;
  /** Where the mark stands, on the x axis. */
  mark?: number | null;
  /** Steps with something to say: a thin line each. */
  notes?: number[];
  /** The reader points at a step (and, with `open`, clicks on it). */
  onStep?: (step: number, open: boolean) => void;
}

export function LineChart(props: LineChartProps) {
  const dark = useDark();
  const [holder, width] = useWidth<HTMLDivElement>();
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const { series, logarithmic = false, smoothing = 0, height = 260 } = props;

  const data = useMemo(() => aligned(series, smoothing, logarithmic), [series, smoothing, logarithmic]);
  const look = JSON.stringify([
    series.map(({ key, label, colour, dashed, faint }) => [key, label, colour, dashed, faint]),
    logarithmic,
    smoothing > 0,
    dark,
    props.xLabel,
  ]);

  useEffect(() => {
    if (!holder.current || width < 50) return undefined;
    const chart = new uPlot(options(latest, width, height, dark), data, holder.current);
    plot.current = chart;
    return () => {
      chart.destroy();
      plot.current = null;
    };
  }, [look, width > 50]);
  useEffect(() => plot.current?.setData(data), [data]);
  useEffect(() => plot.current?.setSize({ width, height }), [width, height]);
  useEffect(() => plot.current?.redraw(false), [props.mark, props.notes]);

  return (
    <figure class="chart">
      <div class="plot" role="img" aria-label={summary(props)} ref={holder} style={{ minHeight: `${height}px` }} />
      <Legend {...props} dark={dark} />
      <ValuesTable {...props} />
    </figure>
  );
}

/** uPlot wants one x for all lines. Each line is there twice where it is smoothed: as measured, and smoothed. */
function aligned(series: Series[], smoothing: number, logarithmic: boolean): uPlot.AlignedData {
  if (series.length === 0) return [[], []];
  const drawn = (ys: (number | null)[]): (number | null)[] =>
    logarithmic ? ys.map((y) => (y !== null && y > 0 ? y : null)) : ys;
  const tables = series.flatMap(({ xs, ys }): uPlot.AlignedData[] => {
    const plain: uPlot.AlignedData = [xs, drawn(ys)];
    return smoothing > 0 ? [plain, [xs, drawn(smoothed(ys, smoothing))]] : [plain];
  });
  return uPlot.join(tables);
}

function options(props: { current: LineChartProps }, width: number, height: number, dark: boolean): uPlot.Options {
  const { series, logarithmic, smoothing = 0 } = props.current;
  const ink = dark ? "#aab6c5" : "#4c5a6d";
  const grid = { stroke: dark ? "#2a333f" : "#e6eaf0", width: 1 };
  const axis: uPlot.Axis = { stroke: ink, grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const lines = series.flatMap((item): uPlot.Series[] => {
    const colour = line(item.colour, dark);
    const own: uPlot.Series = {
      label: item.label,
      stroke: colour,
      width: item.faint ? 1 : 2,
      alpha: item.faint ? 0.45 : 1,
      spanGaps: true,
      points: { show: (chart) => chart.data[0].length === 1 },
    };
    if (item.dashed) own.dash = [7, 4];
    return smoothing > 0
      ? [
          { ...own, alpha: 0.25, width: 1 },
          { ...own, width: item.faint ? 1.5 : 2.5, alpha: 1 },
        ]
      : [own];
  });
  return {
    width,
    height,
    series: [{}, ...lines],
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, dist: 8 } },
    scales: {
      x: { time: false },
      y: { distr: logarithmic ? 3 : 1 },
    },
    axes: [
      { ...axis, size: 36, values: (_, splits) => splits.map((value) => grouped(value)) },
      {
        ...axis,
        size: 62,
        values: (_, splits) => splits.map((value) => (value === null ? "" : formatNumber(value))),
      },
    ],
    hooks: {
      draw: [(chart) => drawMarks(chart, props.current, dark)],
      ready: [(chart) => hear(chart, props)],
    },
  };
}

/** The mark of the chosen step, and thin lines where something was noticed. */
function drawMarks(chart: uPlot, { mark, notes }: LineChartProps, dark: boolean): void {
  const { ctx, bbox } = chart;
  const vertical = (x: number, colour: string, dash: number[]): void => {
    const place = Math.round(chart.valToPos(x, "x", true));
    if (place < bbox.left || place > bbox.left + bbox.width) return;
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
    ctx.beginPath();
    ctx.moveTo(place, bbox.top);
    ctx.lineTo(place, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  };
  for (const x of notes ?? []) vertical(x, dark ? "#ffc66b" : "#c77700", [2, 4]);
  if (mark !== null && mark !== undefined) vertical(mark, dark ? "#eef2f7" : "#16202e", []);
}

/** Pointing moves the mark; a click of a mouse opens the step, a tap only marks it. */
function hear(chart: uPlot, props: { current: LineChartProps }): void {
  const stepAt = (left: number): number | null => {
    const x = chart.posToVal(left, "x");
    let nearest: { step: number; distance: number } | null = null;
    for (const { xs, steps } of props.current.series) {
      const index = indexAt(xs, x);
      for (const place of [index, index + 1]) {
        const [at, step] = [xs[place], steps[place]];
        if (at === undefined || step === undefined) continue;
        const distance = Math.abs(at - x);
        if (!nearest || distance < nearest.distance) nearest = { step, distance };
      }
    }
    return nearest?.step ?? null;
  };
  let pressed = 0;
  chart.over.addEventListener("pointerdown", (event) => {
    pressed = event.clientX;
  });
  chart.over.addEventListener("pointermove", (event) => {
    const step = event.pointerType === "mouse" && event.buttons === 0 ? stepAt(event.offsetX) : null;
    if (step !== null) props.current.onStep?.(step, false);
  });
  chart.over.addEventListener("click", (event) => {
    if (Math.abs(event.clientX - pressed) > 4) return; // a drag: it zooms
    const step = stepAt(event.offsetX);
    const mouse = !("pointerType" in event) || event.pointerType !== "touch";
    if (step !== null) props.current.onStep?.(step, mouse);
  });
}

function valueAt(series: Series, mark: number | null | undefined): number | null {
  const index = mark === null || mark === undefined ? series.ys.length - 1 : indexAt(series.xs, mark);
  return series.ys[index] ?? null;
}

function Legend({ series, mark, dark }: LineChartProps & { dark: boolean }) {
  return (
    <ul class="chart-legend" aria-hidden="true">
      {series.map((item) => (
        <li key={item.key}>
          <svg width="26" height="10">
            <line
              x1="1"
              x2="25"
              y1="5"
              y2="5"
              stroke={line(item.colour, dark)}
              stroke-width={item.faint ? 1.5 : 3}
              stroke-dasharray={item.dashed ? "7 4" : undefined}
              opacity={item.faint ? 0.6 : 1}
            />
          </svg>
          {item.label} <b class="number">{formatNumber(valueAt(item, mark))}</b>
        </li>
      ))}
    </ul>
  );
}

function summary({ name, series, xLabel }: LineChartProps): string {
  const lines = series.map((item) => {
    const finite = item.ys.filter((y): y is number => y !== null);
    if (finite.length === 0) return `${item.label}: no values`;
    const least = finite.reduce((a, b) => Math.min(a, b));
    const most = finite.reduce((a, b) => Math.max(a, b));
    const [first, last] = [finite[0], finite[finite.length - 1]];
    const range = `between ${formatNumber(least)} and ${formatNumber(most)}`;
    return `${item.label}: from ${formatNumber(first)} to ${formatNumber(last)}, ${range}`;
  });
  return `${name} against ${xLabel}. ${lines.join(". ") || "Nothing was measured yet"}.`;
}

const ROWS = 40;

/** The same curves as numbers, evenly thinned out. Built only when asked for. */
function ValuesTable({ name, series, xLabel }: LineChartProps) {
  const longest = series.reduce<Series | null>((a, b) => (a && a.xs.length >= b.xs.length ? a : b), null);
  if (!longest || longest.xs.length === 0) return null;
  const places = Math.min(ROWS, longest.xs.length);
  const xs = Array.from({ length: places }, (_, k) => {
    const place = places === 1 ? 0 : Math.round((k * (longest.xs.length - 1)) / (places - 1));
    return longest.xs[place] as number;
  });
  return (
    <details class="as-table">
      <summary>As a table</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label={`${name}: values`}>
        <table class="number">
          <thead>
            <tr>
              <th scope="col">{xLabel}</th>
              {series.map((item) => (
                <th scope="col" key={item.key}>
                  {item.label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {xs.map((x) => (
              <tr key={x}>
                <th scope="row">{formatNumber(x, 4)}</th>
                {series.map((item) => {
                  const value = valueAt(item, x);
                  return <td key={item.key}>{value === null ? "–" : formatNumber(value, 4)}</td>;
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
