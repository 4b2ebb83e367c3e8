// A layer too large for single units: its output for the chosen row as heat maps, which a click enlarges.

import { useMemo } from "preact/hooks";
import { formatShape } from "../shared/format";
import type { ArrayJson } from "../shared/types";
import { reach } from "../shared/colours";
import { fit, Heatmap } from "./Heatmap";
import type { Box, Layout } from "./layout";
import type { DrawingProps } from "./Network";
import { term, timeTerm, type Column, type Scene } from "./scene";
import { Unrolled } from "./Unrolled";
import { isBatched, picture, shapeOfRow, type Panel, type Picture } from "./values";

const MOST_TILES = 9;

/** What stands for a column: attention weights, the states of a recurrent layer, else the output or its gradient. */
export function arrayOf(
  scene: Scene,
  column: Column,
  shown: "value" | "gradient" | "update",
): { array: ArrayJson | null; axes: string[]; name: string } {
  const kind = column.layers[0]?.story?.kind;
  if (shown !== "update" && kind === "attention") {
    const weights = term(column, shown === "value" ? "weights" : "error of weights");
    if (weights) return { array: weights.value, axes: weights.axes, name: weights.name };
  }
  const states = timeTerm(column, shown);
  if (states) return { array: states.value, axes: states.axes, name: states.name };
  const node = scene.nodes.get(column.output);
  const parameter = shown === "update" ? column.parameters.find(({ value }) => value.shape.length > 1) : undefined;
  if (parameter?.update) return { array: parameter.update, axes: [], name: `Δ ${parameter.name}` };
  if (shown !== "gradient") return { array: node?.value ?? null, axes: [], name: "output" };
  return { array: node?.gradient ?? null, axes: [], name: "gradient by the output" };
}

/** Rows and columns exchanged: units downwards, time to the right. */
function turned(panel: Panel): Panel {
  const data = new Float64Array(panel.data.length);
  for (let i = 0; i < panel.rows; i += 1) {
    for (let j = 0; j < panel.columns; j += 1) data[j * panel.rows + i] = panel.data[i * panel.columns + j] as number;
  }
  return {
    ...panel,
    rows: panel.columns,
    columns: panel.rows,
    data,
    rowAxis: panel.columnAxis,
    columnAxis: panel.rowAxis,
  };
}

export function pictureOf(
  array: ArrayJson,
  axes: readonly string[],
  row: number,
  rows: number | null,
  most: number,
): Picture {
  const named = axes.indexOf("row");
  const axis = named >= 0 ? named : axes.length === 0 && isBatched(array.shape, rows) ? 0 : -1;
  return picture(array, row, axis, axes, most);
}

export function ColumnPicture({
  box,
  layout,
  scene,
  explanation,
  choice,
  step,
  known,
  shown,
  onZoom,
}: DrawingProps & { box: Box; layout: Layout; shown: "value" | "gradient" | "update" }) {
  const { column } = box;
  const isDone = known.value(column.output, choice.step);
  const isHalf = shown === "value" && !isDone && known.value(column.sum, choice.step);
  // While a layer is being computed its picture is the operation that the walk is at.
  const node = step.column === column && shown === "value" && !isDone && !isHalf ? step.node : null;
  const { array, axes, name } = node
    ? { array: node.value, axes: [] as string[], name: node.op }
    : arrayOf(scene, isHalf ? { ...column, output: column.sum } : column, shown);
  const isKnown = shown === "gradient" ? known.gradient(column.output, choice.step) : isDone || isHalf || node !== null;
  const rows = name.startsWith("Δ") ? null : explanation.rows;
  const drawn = useMemo(
    () => (array && isKnown ? pictureOf(array, axes, choice.row, rows, MOST_TILES) : null),
    [array, choice.row, isKnown, rows],
  );
  const scale = useMemo(() => reach(drawn?.panels.flatMap(({ data }) => [...data]) ?? []), [drawn]);
  const height = layout.height - layout.top - 34;
  const across = drawn ? Math.ceil(Math.sqrt(drawn.panels.length)) : 1;
  const down = drawn ? Math.ceil(drawn.panels.length / across) : 1;
  const room: [number, number] = [(box.width - 14 - 4 * (across - 1)) / across, (height - 30 - 4 * (down - 1)) / down];
  const below =
    (node ? `${node.op} ` : "") +
    formatShape(node ? shapeOfRow(node.shape, explanation.rows) : column.shape) +
    (drawn && !drawn.exact ? " · averaged" : "") +
    (drawn && drawn.count > drawn.panels.length ? ` · ${drawn.panels.length} of ${drawn.count}` : "");
  const label = `${column.title}: ${name}, ${drawn ? "" : array ? "not yet, " : "no gradient, "}${below}`;
  return (
    <button
      type="button"
      class={`picture${step.column === column ? " present" : ""}`}
      style={{ left: `${box.x}px`, top: `${layout.middle}px`, width: `${box.width}px` }}
      aria-label={`${label}. Enlarge.`}
      onClick={() => onZoom(column)}
    >
      <span class="tiles">
        {drawn && axes[0] === "step" && column.steps > 0 && (
          <Unrolled
            panel={turned(drawn.panels[0] as Panel)}
            reach={scale}
            width={box.width - 14}
            backward={shown === "gradient"}
            label={label}
          />
        )}
        {(axes[0] !== "step" || column.steps === 0) &&
          drawn?.panels.map((panel, k) => {
            const [width, tall] = fit(panel, ...room);
            return <Heatmap key={k} panel={panel} reach={scale} label="" width={width} height={tall} />;
          })}
        {!drawn && <span class="unknown">{array ? "not yet" : "no gradient"}</span>}
      </span>
      <span class="shape number">{below}</span>
    </button>
  );
}
