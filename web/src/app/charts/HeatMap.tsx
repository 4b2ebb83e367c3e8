// Rows (layers, parameters, bins) against steps, as coloured cells on a canvas, and the same as a table.

import { useEffect, useMemo, useRef } from "preact/hooks";
import { css, type Rgb } from "../../shared/colours";
import { grouped } from "../../shared/format";
import { useDark } from "../../shared/theme";
import { useWidth } from "../parts";

export interface HeatRow {
  key: string;
  label: string;
  values: number[];
}

export interface Legend {
  title: string;
  /** From the low end to the high end: colours, and words at some of them. */
  colours: Rgb[];
  words: string[];
}

export interface HeatMapProps {
  name: string;
  summary: string;
  rows: HeatRow[];
  steps: number[];
  colour: (value: number) => Rgb;
  format: (value: number) => string;
  legend: Legend;
  mark?: number | null;
  selected?: string | null;
  onSelect?: (key: string) => void;
  onStep?: (step: number, open: boolean) => void;
  rowHeight?: number;
}

/** Where the cell of each step begins and ends, as shares of the width: halfway to its neighbours. */
function edges(steps: number[]): number[] {
  const [first, last] = [steps[0] ?? 0, steps[steps.length - 1] ?? 1];
  const span = last - first || 1;
  const bounds = [0];
  for (let k = 1; k < steps.length; k++) {
    bounds.push(((steps[k - 1] as number) / 2 + (steps[k] as number) / 2 - first) / span);
  }
  return [...bounds, 1];
}

export function HeatMap(props: HeatMapProps) {
  const { rows, steps, colour } = props;
  const dark = useDark();
  const [holder, width] = useWidth<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const rowHeight = props.rowHeight ?? Math.max(7, Math.min(30, Math.floor(420 / Math.max(rows.length, 1))));
  const height = rowHeight * rows.length;
  const bounds = useMemo(() => edges(steps), [steps]);

  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || width < 10) return;
    const ratio = devicePixelRatio || 1;
    element.width = Math.round(width * ratio);
    element.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const gap = rowHeight >= 14 ? 1 : 0;
    rows.forEach((row, index) => {
      row.values.forEach((value, place) => {
        const left = Math.floor((bounds[place] as number) * width);
        const right = Math.ceil((bounds[place + 1] as number) * width);
        context.fillStyle = css(colour(value));
        context.fillRect(left, index * rowHeight, Math.max(right - left, 1), rowHeight - gap);
        if (Number.isNaN(value)) hatch(context, left, index * rowHeight, right - left, rowHeight - gap);
      });
    });
    const mark = props.mark;
    const [first, last] = [steps[0], steps[steps.length - 1]];
    if (mark != null && first !== undefined && last !== undefined && mark >= first && mark <= last) {
      const place = ((mark - first) / (last - first || 1)) * width;
      context.fillStyle = dark ? "#fff" : "#000";
      context.fillRect(place - 1.5, 0, 3, height);
      context.fillStyle = dark ? "#000" : "#fff";
      context.fillRect(place - 0.5, 0, 1, height);
    }
  }, [rows, bounds, width, height, colour, dark, props.mark]);

  const stepAt = (event: MouseEvent): number | null => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box || steps.length === 0) return null;
    const share = (event.clientX - box.left) / box.width;
    const place = bounds.findIndex((bound, k) => k > 0 && share < bound) - 1;
    return steps[place < 0 ? steps.length - 1 : place] ?? null;
  };
  const point = (event: PointerEvent): void => {
    const step = event.pointerType === "mouse" ? stepAt(event) : null;
    if (step !== null) props.onStep?.(step, false);
  };
  const click = (event: MouseEvent): void => {
    const step = stepAt(event);
    if (step !== null) props.onStep?.(step, false);
    const box = canvas.current?.getBoundingClientRect();
    const row = box && rows[Math.floor(((event.clientY - box.top) / box.height) * rows.length)];
    if (row) props.onSelect?.(row.key);
  };

  return (
    <figure class="heat-map">
      <div class="heat-body">
        <RowLabels {...props} rowHeight={rowHeight} />
        <div class="heat-cells" ref={holder}>
          <canvas
            ref={canvas}
            role="img"
            aria-label={`${props.name}. ${props.summary}`}
            style={{ width: `${width}px`, height: `${height}px` }}
            onPointerMove={point}
            onClick={click}
          />
          <div class="heat-axis number" aria-hidden="true">
            <span>step {grouped(steps[0] ?? 0)}</span>
            <span>{grouped(steps[steps.length - 1] ?? 0)}</span>
          </div>
        </div>
      </div>
      <ScaleLegend {...props.legend} />
      <HeatTable {...props} />
    </figure>
  );
}

/** NaN is told by its pattern, too. */
function hatch(context: CanvasRenderingContext2D, left: number, top: number, width: number, height: number): void {
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.strokeStyle = "#000";
  for (let x = left - height; x < left + width; x += 5) {
    context.beginPath();
    context.moveTo(x, top + height);
    context.lineTo(x + height, top);
    context.stroke();
  }
  context.restore();
}

function RowLabels({ rows, rowHeight, selected, onSelect, mark, steps, format }: HeatMapProps & { rowHeight: number }) {
  if (rowHeight < 14) return null;
  const place = mark == null ? steps.length - 1 : nearest(steps, mark);
  return (
    <div class="heat-labels">
      {rows.map((row) => {
        const value = row.values[place];
        const content = (
          <>
            <span class="heat-name">{row.label}</span>
            <span class="heat-value number">{value === undefined ? "" : format(value)}</span>
          </>
        );
        return onSelect ? (
          <button
            key={row.key}
            class="heat-label"
            aria-pressed={row.key === selected}
            style={{ height: `${rowHeight}px` }}
            onClick={() => onSelect(row.key)}
          >
            {content}
          </button>
        ) : (
          <div key={row.key} class="heat-label" style={{ height: `${rowHeight}px` }}>
            {content}
          </div>
        );
      })}
    </div>
  );
}

/** The place of the step nearest to `step`. */
export function nearest(steps: number[], step: number): number {
  let best = steps.length - 1;
  for (let k = 0; k < steps.length; k++) {
    if (Math.abs((steps[k] as number) - step) < Math.abs((steps[best] as number) - step)) best = k;
  }
  return best;
}

function ScaleLegend({ title, colours, words }: Legend) {
  const stops = colours.map((colour, k) => `${css(colour)} ${(100 * k) / Math.max(colours.length - 1, 1)}%`);
  return (
    <div class="colour-scale">
      <span>{title}</span>
      <div class="colour-body">
        <div class="colour-bar" style={{ background: `linear-gradient(to right, ${stops.join(", ")})` }} />
        <div class="colour-words number">
          {words.map((word) => (
            <span key={word}>{word}</span>
          ))}
        </div>
      </div>
    </div>
  );
}

const COLUMNS = 12;

function HeatTable({ name, rows, steps, format }: HeatMapProps) {
  if (steps.length === 0) return null;
  const count = Math.min(COLUMNS, steps.length);
  const places = Array.from({ length: count }, (_, k) =>
    count === 1 ? 0 : Math.round((k * (steps.length - 1)) / (count - 1)),
  );
  return (
    <details class="as-table">
      <summary>As a table</summary>
      <div class="scroll" tabIndex={0} role="region" aria-label={`${name}: values`}>
        <table class="number">
          <thead>
            <tr>
              <th scope="col">step</th>
              {places.map((place) => (
                <th scope="col" key={place}>
                  {grouped(steps[place] as number)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.key}>
                <th scope="row">{row.label}</th>
                {places.map((place) => (
                  <td key={place}>{format(row.values[place] as number)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}
