// One step of training, explained: the network, a walk through it, and the numbers of whatever is looked at.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { reach } from "../shared/colours";
import type { Explanation, ExplanationNode } from "../shared/types";
import { arrayOf, pictureOf } from "./ColumnPicture";
import { Controls } from "./Controls";
import { ColourScale, ZoomDialog } from "./Heatmap";
import { LinePanel } from "./LinePanel";
import { Network, type Connection } from "./Network";
import { Parameters } from "./Parameters";
import { buildScene, type Column } from "./scene";
import { shownAt, START, type Choice } from "./state";
import { buildSteps, Known, leap, type Step } from "./steps";
import { StepList } from "./StepList";
import { Textbook } from "./textbook";
import { UnitPanel } from "./UnitPanel";
import { flat, shapeOfRow, sizeOf } from "./values";
import "./viewer.css";
import "./network.css";
import "./panels.css";
import "./lists.css";
import "./sizes.css";

const PLAYING = 1400; // milliseconds that a step stays while the walk plays by itself

export function ExplanationViewer({ explanation }: { explanation: Explanation }) {
  const scene = useMemo(() => buildScene(explanation), [explanation]);
  const steps = useMemo(() => buildSteps(explanation, scene), [explanation, scene]);
  const known = useMemo(() => new Known(steps, scene), [steps, scene]);
  const textbook = useMemo(() => new Textbook(scene, explanation.rows), [scene, explanation]);
  const [choice, setChoice] = useState<Choice>(START);
  const [hovered, setHovered] = useState<Connection | null>(null);
  const [zoomed, setZoomed] = useState<Column | null>(null);
  const [playing, setPlaying] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  useEffect(() => {
    setChoice(START);
    setHovered(null);
  }, [explanation]);

  const last = steps.length - 1;
  const change = (part: Partial<Choice>): void => setChoice((old) => ({ ...old, ...part }));
  // Keys may come faster than the page is drawn: where to go is reckoned from where the walk then is.
  const walk = (next: (from: number) => number): void => {
    setHovered(null);
    setChoice((old) => ({ ...old, step: Math.min(Math.max(next(old.step), 0), last), index: null, column: null }));
  };
  const goTo = (step: number): void => walk(() => step);
  useEffect(() => {
    if (!playing) return;
    if (choice.step >= last) {
      setPlaying(false);
      return;
    }
    const timer = setTimeout(() => walk((from) => from + 1), PLAYING);
    return () => clearTimeout(timer);
  }, [playing, choice.step, last]);
  const play = (): void => {
    if (!playing && choice.step >= last) goTo(0);
    setPlaying(!playing);
  };

  const step = steps[Math.min(choice.step, last)] as Step;
  const looked =
    choice.column !== null ? (scene.columns[choice.column] ?? null) : (step.column ?? firstNeurons(scene.columns));
  const pick = ({ column, unit, source }: Connection): void => {
    const same = step.column?.number === column;
    change({ column: same ? null : column, unit, source: Math.max(source, 0), index: null });
  };
  const moveUnit = (by: number): void => {
    const single = step.node && step.phase !== "update" ? sizeOf(shapeOfRow(step.node.shape, explanation.rows)) : 1;
    const units = looked && (looked.kind === "units" || looked.weight) ? looked.units : Math.max(single, 1);
    change({ unit: (Math.min(choice.unit, units - 1) + by + units) % units, index: null });
  };
  const moveSource = (by: number): void => {
    const count = looked?.inputs || 1;
    change({ source: (Math.min(choice.source, count - 1) + by + count) % count, index: null });
  };

  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey || !mayListen(event, root.current))
        return;
      const moves: Record<string, () => void> = {
        ArrowRight: () => walk((from) => from + 1),
        ArrowLeft: () => walk((from) => from - 1),
        PageDown: () => walk((from) => leap(steps, from, 1)),
        PageUp: () => walk((from) => leap(steps, from, -1)),
        Home: () => goTo(0),
        End: () => goTo(last),
        ArrowDown: () => (event.shiftKey ? moveSource(1) : moveUnit(1)),
        ArrowUp: () => (event.shiftKey ? moveSource(-1) : moveUnit(-1)),
        " ": play,
      };
      const move = moves[event.key];
      if (
        !move ||
        (event.key === " " && event.target instanceof Element && event.target.closest("button, summary, [role=button]"))
      )
        return;
      event.preventDefault();
      move();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });

  const goToNode = (node: ExplanationNode): void => {
    const found = steps.findIndex(
      (each) => each.node === node && (each.phase === "backward") === (step.phase === "backward"),
    );
    if (found >= 0) goTo(found);
  };
  const goToColumn = (column: Column): void => {
    const found = steps.findIndex(
      (each) => each.column === column && (step.phase === "overview" || each.phase === step.phase),
    );
    const any = found >= 0 ? found : steps.findIndex((each) => each.column === column);
    if (any >= 0) goTo(any);
    else change({ column: column.number });
  };
  const shown = shownAt(choice.showing, step);
  return (
    <div class="explanation" ref={root}>
      <Controls
        explanation={explanation}
        steps={steps}
        choice={choice}
        playing={playing}
        onStep={goTo}
        onPlay={play}
        onRow={(row) => change({ row: Math.min(Math.max(row, 0), (explanation.rows ?? 1) - 1), index: null })}
        onShowing={(showing) => change({ showing })}
      />
      <p class="visually-hidden" role="status">
        {step.phase}: {step.title}
      </p>
      <Network
        explanation={explanation}
        scene={scene}
        textbook={textbook}
        known={known}
        step={step}
        choice={choice}
        hovered={hovered}
        onHover={setHovered}
        onPick={pick}
        onColumn={goToColumn}
        onZoom={setZoomed}
      />
      <div class="legend">
        <span>
          Colours:{" "}
          {shown === "value" ? "values and weights" : shown === "gradient" ? "gradients (errors δ)" : "changes Δw"},
          each layer by its own largest
        </span>
        <ColourScale reach={1} />
      </div>
      <div class="panels">
        <LinePanel
          explanation={explanation}
          scene={scene}
          textbook={textbook}
          step={step}
          choice={choice}
          onIndex={(index) => change({ index })}
          onNode={goToNode}
        />
        <UnitPanel
          explanation={explanation}
          scene={scene}
          textbook={textbook}
          choice={choice}
          column={looked}
          hovered={hovered}
          onPick={pick}
        />
      </div>
      <Parameters explanation={explanation} choice={choice} />
      <StepList steps={steps} present={choice.step} program={explanation.program} onStep={goTo} />
      {zoomed && (
        <ColumnZoom {...{ scene, explanation, choice, shown }} column={zoomed} onClose={() => setZoomed(null)} />
      )}
    </div>
  );
}

interface ZoomProps {
  scene: ReturnType<typeof buildScene>;
  explanation: Explanation;
  choice: Choice;
  column: Column;
  shown: "value" | "gradient" | "update";
  onClose: () => void;
}

function ColumnZoom({ scene, explanation, choice, column, shown, onClose }: ZoomProps) {
  const { array, axes, name } = arrayOf(scene, column, shown);
  if (!array) return null;
  const drawn = pictureOf(array, axes, choice.row, name.startsWith("Δ") ? null : explanation.rows, 64);
  const scale = reach(flat(array) ?? drawn.panels.flatMap(({ data }) => [...data]));
  return <ZoomDialog title={`${column.title}: ${name}`} {...drawn} reach={scale} onClose={onClose} />;
}

const firstNeurons = (columns: Column[]): Column | null =>
  columns.find(({ weight, kind }) => weight && kind === "units") ?? null;

/** Keys belong to the viewer unless a form field, a scrolling list or a dialog has the focus. */
function mayListen(event: KeyboardEvent, root: HTMLElement | null): boolean {
  const { target } = event;
  if (!(target instanceof Element) || target === document.body || target === document.documentElement) return true;
  if (!root?.contains(target)) return false;
  return target.closest("input, select, textarea, dialog, .window[tabindex]") === null;
}
