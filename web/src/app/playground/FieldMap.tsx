// Values over the plane from −6 to 6, as colours on a canvas.

import { useEffect, useRef } from "preact/hooks";
import { css, diverging } from "../../shared/colours";
import { useDark } from "../../shared/theme";
import type { Point } from "../../shared/types";

const EDGE = 6;

/** Colours of a square of values, each from −1 to 1, drawn smoothly over the canvas. */
function drawField(context: CanvasRenderingContext2D, size: number, values: number[], dark: boolean): void {
  const side = Math.round(Math.sqrt(values.length));
  if (side < 2) return;
  const small = document.createElement("canvas");
  small.width = small.height = side;
  const inner = small.getContext("2d");
  if (!inner) return;
  const image = inner.createImageData(side, side);
  values.forEach((value, k) => {
    const [red, green, blue] = diverging(value, dark);
    image.data.set([red, green, blue, 255], 4 * k);
  });
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  // The first and last values belong to the edges of the plane, not to the middle of a pixel inside it.
  const margin = 0.5;
  context.drawImage(small, margin, margin, side - 2 * margin, side - 2 * margin, 0, 0, size, size);
}

/** A small picture of what one unit answers all over the plane. */
export function FieldMap({ values, size }: { values: number[]; size: number }) {
  const dark = useDark();
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context) return;
    const pixels = Math.round(size * (devicePixelRatio || 1));
    element.width = element.height = pixels;
    drawField(context, pixels, values, dark);
  }, [values, size, dark]);
  return (
    <canvas ref={canvas} class="field-map" style={{ width: `${size}px`, height: `${size}px` }} aria-hidden="true" />
  );
}

export interface BoundaryProps {
  boundary: number[];
  points: Point[];
  test: Point[];
  showTest: boolean;
  batch: number[];
  size: number;
  label: string;
}

/** The answers of the network all over the plane, and the points: round for training, square for the test. */
export function Boundary(props: BoundaryProps) {
  const { boundary, points, test, showTest, batch, size, label } = props;
  const dark = useDark();
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context || size < 10) return;
    const ratio = devicePixelRatio || 1;
    element.width = element.height = Math.round(size * ratio);
    context.scale(ratio, ratio);
    drawField(
      context,
      size,
      boundary.map((value) => 0.9 * (value - 0.5)),
      dark,
    );
    drawContour(context, size, boundary, dark);
    const inBatch = new Set(batch);
    const radius = Math.max(3, size / 95);
    const at = (value: number): number => ((value + EDGE) / (2 * EDGE)) * size;
    const draw = ([x, y, target]: Point, square: boolean, chosen: boolean): void => {
      context.beginPath();
      const [left, top] = [at(x), at(-y)];
      const reach = chosen ? radius * 1.35 : radius;
      if (square) context.rect(left - reach * 0.85, top - reach * 0.85, reach * 1.7, reach * 1.7);
      else context.arc(left, top, reach, 0, 2 * Math.PI);
      context.fillStyle = css(diverging(1.6 * (target - 0.5), dark));
      context.fill();
      context.lineWidth = chosen ? 2.5 : 1.2;
      context.strokeStyle = chosen ? (dark ? "#fff" : "#000") : dark ? "#12161c" : "#fff";
      context.stroke();
    };
    points.forEach((point, row) => !inBatch.has(row) && draw(point, false, false));
    if (showTest) for (const point of test) draw(point, true, false);
    points.forEach((point, row) => inBatch.has(row) && draw(point, false, true));
  }, [boundary, points, test, showTest, batch, size, dark]);
  return (
    <canvas
      ref={canvas}
      class="boundary"
      role="img"
      aria-label={label}
      style={{ width: `${size}px`, height: `${size}px` }}
    />
  );
}

/** The line on which the network cannot decide, by marching squares. */
function drawContour(context: CanvasRenderingContext2D, size: number, values: number[], dark: boolean): void {
  const side = Math.round(Math.sqrt(values.length));
  const step = size / (side - 1);
  const level = (row: number, column: number): number => (values[row * side + column] ?? NaN) - 0.5;
  context.beginPath();
  for (let row = 0; row < side - 1; row++) {
    for (let column = 0; column < side - 1; column++) {
      const crossings: [number, number][] = [];
      const cross = (a: number, b: number, x: number, y: number, dx: number, dy: number): void => {
        if (a < 0 === b < 0 || Number.isNaN(a + b)) return;
        const share = a / (a - b);
        crossings.push([(x + share * dx) * step, (y + share * dy) * step]);
      };
      const [nw, ne] = [level(row, column), level(row, column + 1)];
      const [sw, se] = [level(row + 1, column), level(row + 1, column + 1)];
      cross(nw, ne, column, row, 1, 0);
      cross(ne, se, column + 1, row, 0, 1);
      cross(sw, se, column, row + 1, 1, 0);
      cross(nw, sw, column, row, 0, 1);
      for (let k = 0; k + 1 < crossings.length; k += 2) {
        const [from, to] = [crossings[k] as [number, number], crossings[k + 1] as [number, number]];
        context.moveTo(...from);
        context.lineTo(...to);
      }
    }
  }
  context.strokeStyle = dark ? "rgb(255 255 255 / 75%)" : "rgb(22 32 46 / 75%)";
  context.lineWidth = 2;
  context.stroke();
}
