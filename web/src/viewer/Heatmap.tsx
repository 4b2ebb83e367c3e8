// A heat map on a canvas, one pixel a cell and enlarged by the browser; and a dialog in which one can zoom into it.

import { useEffect, useRef, useState } from "preact/hooks";
import { css, diverging } from "../shared/colours";
import { formatNumber } from "../shared/format";
import { useDark } from "../shared/theme";
import { indexOfCell, type Panel } from "./values";

interface Props {
  panel: Panel;
  /** The size that the ends of the colour scale stand for. */
  reach: number;
  /** Empty where what stands around it says it already. */
  label: string;
  width: number;
  height: number;
  /** A cell to be framed, [row, column]. */
  marked?: readonly [number, number] | null;
}

function useHeat(panel: Panel, reach: number) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dark = useDark();
  useEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const image = context.createImageData(panel.columns, panel.rows);
    for (let k = 0; k < panel.data.length; k += 1) {
      image.data.set(diverging((panel.data[k] as number) / reach, dark), 4 * k);
      image.data[4 * k + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [panel, reach, dark]);
  return canvas;
}

export function Heatmap({ panel, reach, label, width, height, marked }: Props) {
  const canvas = useHeat(panel, reach);
  const [cellWidth, cellHeight] = [width / panel.columns, height / panel.rows];
  return (
    <span class="heat" style={{ width: `${width}px`, height: `${height}px` }}>
      <canvas
        ref={canvas}
        width={panel.columns}
        height={panel.rows}
        {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true })}
        style={{ width: `${width}px`, height: `${height}px` }}
      />
      {marked && (
        <span
          class="heat-mark"
          style={{
            left: `${marked[1] * cellWidth}px`,
            top: `${marked[0] * cellHeight}px`,
            width: `${Math.max(cellWidth, 4)}px`,
            height: `${Math.max(cellHeight, 4)}px`,
          }}
        />
      )}
    </span>
  );
}

/** The size at which a panel fits into a box, cells square unless it is a single line. */
export function fit(panel: Panel, width: number, height: number): [number, number] {
  if (panel.rows === 1) return [width, Math.min(18, height)];
  if (panel.columns === 1) return [Math.min(18, width), height];
  const cell = Math.min(width / panel.columns, height / panel.rows);
  return [Math.max(8, cell * panel.columns), Math.max(8, cell * panel.rows)];
}

interface ZoomProps {
  title: string;
  panels: Panel[];
  count: number;
  exact: boolean;
  reach: number;
  onPick?: (index: number[]) => void;
  onClose: () => void;
}

const SCALES = [2, 4, 8, 12, 16, 24, 32, 48];

/** All panels in large, with the number under the pointer or the cursor. Arrow keys move the cursor, + and − zoom. */
export function ZoomDialog({ title, panels, count, exact, reach, onPick, onClose }: ZoomProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const widest = Math.max(...panels.map(({ columns }) => columns), 1);
  const [scale, setScale] = useState(() => {
    const room = Math.min(window.innerWidth - 80, 900);
    return SCALES.filter((each) => each * widest <= room && each <= 24).at(-1) ?? 2;
  });
  const [cell, setCell] = useState<[panel: number, row: number, column: number]>([0, 0, 0]);
  useEffect(() => {
    if (dialog.current && !dialog.current.open) dialog.current.showModal();
  }, []);
  const zoom = (direction: 1 | -1): void => {
    const next = SCALES[SCALES.indexOf(scale) + direction];
    if (next) setScale(next);
  };
  const panel = panels[cell[0]];
  const index = panel ? indexOfCell(panel, cell[1], cell[2]) : null;
  const value = panel?.data[cell[1] * panel.columns + cell[2]];
  const place = index ? `[${index.join(", ")}]` : exact ? "" : `block ${cell[1] + 1}, ${cell[2] + 1} (mean)`;
  const move = (event: KeyboardEvent): void => {
    if (!panel) return;
    const moves: Record<string, [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
    };
    const by = moves[event.key];
    if (event.key === "+" || event.key === "-") zoom(event.key === "+" ? 1 : -1);
    else if (event.key === "Enter" && index && onPick) onPick(index);
    else if (by) {
      const row = Math.min(Math.max(cell[1] + by[0], 0), panel.rows - 1);
      const column = Math.min(Math.max(cell[2] + by[1], 0), panel.columns - 1);
      setCell([cell[0], row, column]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <dialog ref={dialog} class="zoom" aria-label={title} onClose={onClose}>
      <div class="zoom-head">
        <h3>{title}</h3>
        <button type="button" onClick={() => zoom(-1)} aria-label="Zoom out" disabled={scale === SCALES[0]}>
          −
        </button>
        <button type="button" onClick={() => zoom(1)} aria-label="Zoom in" disabled={scale === SCALES.at(-1)}>
          +
        </button>
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </div>
      <p class="zoom-read number" role="status">
        {panel?.label} {place} {value === undefined ? "" : `= ${formatNumber(value, 6)}`}
        {count > panels.length ? ` · the first ${panels.length} of ${count} shown` : ""}
        {exact ? "" : " · block averages of a larger array"}
      </p>
      <div class="zoom-body" onKeyDown={move}>
        {panels.map((each, k) => (
          <figure
            key={k}
            tabIndex={0}
            role="application"
            aria-label={`${title} ${each.label}: arrow keys read the cells, plus and minus zoom`}
            onFocus={() => setCell((old) => (old[0] === k ? old : [k, 0, 0]))}
            onPointerMove={(event) => setCell(cellAt(event, k, each, scale))}
            onClick={(event) => {
              const [, row, column] = cellAt(event, k, each, scale);
              const picked = indexOfCell(each, row, column);
              if (picked && onPick) onPick(picked);
            }}
          >
            <Heatmap
              panel={each}
              reach={reach}
              label={`${title} ${each.label}`}
              width={each.columns * scale}
              height={each.rows * scale}
              marked={cell[0] === k ? [cell[1], cell[2]] : null}
            />
            {each.label && <figcaption>{each.label}</figcaption>}
          </figure>
        ))}
      </div>
      <ColourScale reach={reach} />
    </dialog>
  );
}

function cellAt(event: MouseEvent, k: number, panel: Panel, scale: number): [number, number, number] {
  const box = (event.currentTarget as HTMLElement).querySelector("canvas")?.getBoundingClientRect();
  const row = Math.floor((event.clientY - (box?.top ?? 0)) / scale);
  const column = Math.floor((event.clientX - (box?.left ?? 0)) / scale);
  return [k, Math.min(Math.max(row, 0), panel.rows - 1), Math.min(Math.max(column, 0), panel.columns - 1)];
}

/** What the colours mean. */
export function ColourScale({ reach }: { reach: number }) {
  const dark = useDark();
  const stops = [-1, -0.66, -0.33, 0, 0.33, 0.66, 1].map((value) => css(diverging(value, dark))).join(", ");
  return (
    <span
      class="scale number"
      aria-label={`Colours run from minus ${formatNumber(reach)} (blue) to ${formatNumber(reach)} (orange)`}
      role="img"
    >
      {formatNumber(-reach)} <span class="scale-bar" style={{ background: `linear-gradient(to right, ${stops})` }} />{" "}
      {formatNumber(reach)}
    </span>
  );
}
