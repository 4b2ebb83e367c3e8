// The network from left to right. Columns outside of the window are not drawn, so that hundreds of layers stay light.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { reach } from "../shared/colours";
import { prefersStillness } from "../shared/theme";
import type { Explanation } from "../shared/types";
import { ColumnPicture } from "./ColumnPicture";
import { Connections, pathsOf } from "./Connections";
import { layOut, visible, type Box, type Layout } from "./layout";
import type { Column, Scene } from "./scene";
import { shownAt, type Choice } from "./state";
import type { Known, Step } from "./steps";
import type { Textbook } from "./textbook";
import { LossUnit, Units } from "./Units";
import { flat } from "./values";

export interface Connection {
  column: number;
  unit: number;
  source: number;
}

export interface DrawingProps {
  explanation: Explanation;
  scene: Scene;
  textbook: Textbook;
  known: Known;
  step: Step;
  choice: Choice;
  /** The connection under the pointer. */
  hovered: Connection | null;
  onHover: (connection: Connection | null) => void;
  onPick: (connection: Connection) => void;
  onColumn: (column: Column) => void;
  onZoom: (column: Column) => void;
}

export function Network(props: DrawingProps) {
  const { scene, step, choice } = props;
  const frame = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ left: 0, width: 900 });
  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const measure = (): void => setView({ left: element.scrollLeft, width: element.clientWidth });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
  const layout = useMemo(() => layOut(scene.columns, view.width), [scene, view.width]);
  const present = step.column;
  useEffect(() => {
    const box = present && layout.boxes[present.number];
    const element = frame.current;
    if (!box || !element) return;
    const margin = Math.min(160, element.clientWidth / 4);
    const outside =
      box.x < element.scrollLeft + margin || box.x + box.width > element.scrollLeft + element.clientWidth - margin;
    if (!outside) return;
    const left = box.x + box.width / 2 - element.clientWidth / 2;
    const isFar = Math.abs(left - element.scrollLeft) > 2 * element.clientWidth;
    element.scrollTo({ left, behavior: isFar || prefersStillness() ? "auto" : "smooth" });
  }, [present, layout]);
  const boxes = visible(layout, view.left, view.left + view.width);
  const shown = shownAt(choice.showing, step);
  const scrolls = layout.width > view.width + 1;
  return (
    <div
      class="network"
      ref={frame}
      role="group"
      aria-label={`The network, ${scene.columns.length} columns from the input to the loss`}
      {...(scrolls ? { tabIndex: 0 } : {})}
    >
      <div class="network-inside" style={{ width: `${layout.width}px`, height: `${layout.height}px` }}>
        <svg width={layout.width} height={layout.height} aria-hidden="false">
          <Drawing {...props} layout={layout} boxes={boxes} shown={shown} />
        </svg>
        {boxes.map((box) => (
          <ColumnHead
            key={box.column.number}
            box={box}
            gap={layout.gap}
            present={box.column === present}
            onColumn={props.onColumn}
          />
        ))}
        {boxes
          .filter(({ column }) => column.kind === "picture")
          .map((box) => (
            <ColumnPicture key={box.column.number} {...props} box={box} layout={layout} shown={shown} />
          ))}
      </div>
    </div>
  );
}

type InsideProps = DrawingProps & { layout: Layout; boxes: Box[]; shown: "value" | "gradient" | "update" };

function Drawing(props: InsideProps) {
  const { boxes, layout, scene, hovered, choice, step } = props;
  const column = choice.column ?? step.column?.number ?? null;
  const selected = column === null ? null : { column, unit: choice.unit, source: choice.source };
  const lit = useMemo(() => {
    if (hovered) return pathsOf(scene, hovered, true);
    if (step.phase === "overview" && choice.column === null) return null;
    return selected ? pathsOf(scene, { ...selected, source: -1 }, false) : null;
  }, [scene, hovered, selected?.column, selected?.unit, step.phase, choice.column]);
  const numbers = useMemo(() => new Set(boxes.map((box) => box.column.number)), [boxes]);
  return (
    <>
      {boxes.map((box) =>
        box.column.from.map((from) => {
          const before = layout.boxes[from] as Box;
          if (!numbers.has(from) && layout.boxes.length > 40 && box.x - before.x > 4000) return null;
          return (
            <Connections
              key={`${from}-${box.column.number}`}
              {...props}
              before={before}
              after={box}
              lit={lit}
              selected={selected}
            />
          );
        }),
      )}
      {boxes.map((box) => {
        if (box.column.kind === "loss") return <LossUnit key={box.column.number} {...props} box={box} />;
        if (box.column.kind !== "units") return null;
        return (
          <Units key={box.column.number} {...props} box={box} selected={selected} scale={scaleOf(props, box.column)} />
        );
      })}
    </>
  );
}

/** What the ends of the colour scale of a column's units stand for: the largest over all rows. */
function scaleOf({ scene, shown }: InsideProps, column: Column): number {
  const node = scene.nodes.get(shown === "value" ? column.output : column.sum);
  return reach(flat(shown === "value" ? node?.value : node?.gradient) ?? []);
}

interface HeadProps {
  box: Box;
  gap: number;
  present: boolean;
  onColumn: (column: Column) => void;
}

function ColumnHead({ box, gap, present, onColumn }: HeadProps) {
  const { column, x, width } = box;
  const wide = Math.min(width + gap - 8, Math.max(width + 34, 190));
  const style = { left: `${x + width / 2 - wide / 2}px`, width: `${wide}px` };
  return (
    <button
      type="button"
      class={`column-head${present ? " present" : ""}`}
      style={style}
      title={`${column.title} ${column.subtitle}: go to its first step`}
      onClick={() => onColumn(column)}
    >
      <strong>{column.title}</strong>
      <span>{column.subtitle || "\u00a0"}</span>
    </button>
  );
}
