// Connections between two columns: one line a weight where both show their units, else one band.

import { css, diverging, reach } from "../shared/colours";
import { formatNumber } from "../shared/format";
import { useDark } from "../shared/theme";
import type { Box } from "./layout";
import type { Connection, DrawingProps } from "./Network";
import type { Scene } from "./scene";
import { flat } from "./values";

interface Props extends DrawingProps {
  before: Box;
  after: Box;
  shown: "value" | "gradient" | "update";
  lit: Set<string> | null;
  selected: Connection | null;
  layout: { top: number };
}

const MOST_LABELS = 6;
const key = (column: number, unit: number, source: number): string => `${column}:${unit}:${source}`;

/** The connections that lead to one (or, with source −1, to a whole unit); with `onward` also those that lead away. */
export function pathsOf(scene: Scene, { column, unit, source }: Connection, onward: boolean): Set<string> {
  const lit = new Set<string>();
  const back = (number: number, units: readonly number[], only: number): void => {
    const target = scene.columns[number];
    const before = target?.from.length === 1 ? scene.columns[target.from[0] as number] : undefined;
    if (!target?.weight || before?.units !== target.inputs) return;
    const sources = only >= 0 ? [only] : Array.from({ length: before.units }, (_, k) => k);
    for (const to of units) for (const from of sources) lit.add(key(number, to, from));
    if (onward) back(before.number, sources, -1);
  };
  back(column, [unit], source);
  if (!onward) return lit;
  let units = [unit];
  for (let next = after(scene, column); next !== null; next = after(scene, next)) {
    const count = scene.columns[next]?.units ?? 0;
    for (let to = 0; to < count; to += 1) for (const from of units) lit.add(key(next, to, from));
    units = Array.from({ length: count }, (_, k) => k);
  }
  return lit;
}

function after(scene: Scene, column: number): number | null {
  const next = scene.columns.filter((other) => other.inputs > 0 && other.from.includes(column));
  return next.length === 1 ? (next[0]?.number ?? null) : null;
}

export function Connections(props: Props) {
  const { before, after: box } = props;
  const skips = box.column.number - before.column.number > 1;
  const drawn =
    before.column.kind === "units" && box.column.kind === "units" && box.column.inputs === before.column.units;
  if (drawn) return <Weights {...props} />;
  const [x0, x1] = [before.x + before.width, box.x];
  const [y0, y1] = [middleOf(before), middleOf(box)];
  const present = props.step.column === box.column;
  const d = skips
    ? `M${x0 - before.width / 2},${props.layout.top - 2} C${x0},${props.layout.top - 44} ${x1},${props.layout.top - 44} ${x1 + box.width / 2},${props.layout.top - 2}`
    : `M${x0},${y0} C${(x0 + x1) / 2},${y0} ${(x0 + x1) / 2},${y1} ${x1},${y1}`;
  if (!skips && (before.column.kind !== "picture" || box.column.kind !== "picture")) {
    return (
      <g class={present ? "band present" : "band"}>
        {ends(before, 1).flatMap(([xa, ya], i) =>
          ends(box, -1).map(([xb, yb], k) => <line key={`${i}-${k}`} x1={xa} y1={ya} x2={xb} y2={yb} />),
        )}
      </g>
    );
  }
  return <path class={`band${skips ? " skip" : ""}${present ? " present" : ""}`} d={d} fill="none" />;
}

/** Where lines leave (side 1) or reach (side −1) a column: at each of its circles, or in the middle of its picture. */
function ends(box: Box, side: 1 | -1): [number, number][] {
  if (box.column.kind === "picture") return [[side === 1 ? box.x + box.width : box.x, middleOf(box)]];
  return box.ys.map((y) => [box.x + box.width / 2 + side * box.radius, y]);
}

const middleOf = (box: Box): number => ((box.ys[0] ?? 0) + (box.ys.at(-1) ?? 0)) / 2;

function Weights({ before, after: box, shown, lit, selected, hovered, known, choice, onHover, onPick }: Props) {
  const dark = useDark();
  const parameter = box.column.weight;
  if (!parameter) return null;
  const values = flat(parameter[shown]) ?? flat(parameter.value);
  if (!values) return null;
  const scale = reach(values);
  const inputs = before.column.units;
  const isKnown = shown !== "gradient" || known.gradient(parameter.node, choice.step);
  const hasLabels = box.column.units * inputs <= MOST_LABELS && box.x - before.x > 130;
  const lines = [];
  for (let unit = 0; unit < box.column.units; unit += 1) {
    for (let source = 0; source < inputs; source += 1) {
      const name = key(box.column.number, unit, source);
      const isLit = lit === null || lit.has(name);
      const at = { column: box.column.number, unit, source };
      const isPicked = same(hovered ?? selected, at);
      lines.push({ name, unit, source, isLit, isPicked, at, value: values[unit * inputs + source] ?? NaN });
    }
  }
  lines.sort((a, b) => Number(a.isLit) - Number(b.isLit) || Number(a.isPicked) - Number(b.isPicked));
  const [x0, x1] = [before.x + before.width / 2 + before.radius, box.x + box.width / 2 - box.radius];
  return (
    <g class="weights">
      {lines.map(({ name, unit, source, isLit, isPicked, at, value }) => {
        const [y0, y1] = [before.ys[source] ?? 0, box.ys[unit] ?? 0];
        const share = Math.abs(value) / scale;
        const width = isKnown && share > 0 ? 1.2 + 5.2 * Math.min(share, 1) : 1;
        const colour = isKnown ? css(diverging(strong(value / scale), dark)) : "var(--control-line)";
        const label = labelPlace(x0, y0, x1, y1, unit, source);
        return (
          <g
            key={name}
            class={`weight${isLit || !isKnown ? " lit" : " dim"}${isPicked ? " picked" : ""}`}
            onPointerEnter={() => onHover(at)}
            onPointerLeave={() => onHover(null)}
            onClick={() => onPick(at)}
          >
            <line x1={x0} y1={y0} x2={x1} y2={y1} stroke="transparent" stroke-width="14" />
            <line
              class="ink"
              x1={x0}
              y1={y0}
              x2={x1}
              y2={y1}
              stroke={colour}
              stroke-width={isPicked ? width + 1.5 : width}
            />
            {hasLabels && isKnown && (
              <text class="weight-label number" x={label.x} y={label.y}>
                {formatNumber(value)}
              </text>
            )}
          </g>
        );
      })}
    </g>
  );
}

/** Pale colours would vanish on the page's ground: lines begin at a third of the scale. */
const strong = (share: number): number =>
  share === 0 ? 0 : Math.sign(share) * (0.42 + 0.58 * Math.min(Math.abs(share), 1));

const same = (a: Connection | null, b: Connection): boolean =>
  a !== null && a.column === b.column && a.unit === b.unit && a.source === b.source;

/** On the line, near its start, where lines to different units have parted and those from others are still away. */
function labelPlace(x0: number, y0: number, x1: number, y1: number, unit: number, source: number) {
  const share = unit === source ? 0.5 : 0.26;
  return { x: x0 + share * (x1 - x0), y: y0 + share * (y1 - y0) - 5 };
}
