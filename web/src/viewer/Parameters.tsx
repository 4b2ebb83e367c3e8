// All parameters in a table; a row opens into the chain from the gradient through the optimiser to the change.

import { useState } from "preact/hooks";
import { formatNumber, formatShape } from "../shared/format";
import { isFull, type ArrayJson, type Explanation, type ExplanationParameter } from "../shared/types";
import { ArrayView } from "./ArrayView";
import type { Choice } from "./state";
import { flat } from "./values";
import { Window } from "./Window";

const ROW = 40;

export function norm(array: ArrayJson | null): number {
  if (!array) return NaN;
  if (!isFull(array)) return Number(array.summary.norm);
  let total = 0;
  for (const value of flat(array) ?? []) total += value * value;
  return Math.sqrt(total);
}

interface Props {
  explanation: Explanation;
  choice: Choice;
}

export function Parameters({ explanation, choice }: Props) {
  const [open, setOpen] = useState<string | null>(null);
  const { parameters, loss_change: whole } = explanation;
  if (parameters.length === 0) return null;
  const each = parameters.some((parameter) => parameter.loss_change !== null);
  const chosen = parameters.find(({ name }) => name === open);
  return (
    <section class="card parameters" aria-label="Parameters">
      <h2>Parameters: value, gradient, change</h2>
      {whole && (
        <p class="number">
          Change of the loss by this update: predicted <b>{formatNumber(whole.predicted, 4)}</b>, actual{" "}
          <b>{formatNumber(whole.actual, 4)}</b>
        </p>
      )}
      <div class={`table-head${each ? "" : " short"}`} aria-hidden="true">
        <span>Parameter</span>
        <span>shape</span>
        <span>‖w‖</span>
        <span>‖∂L/∂w‖</span>
        <span>‖Δw‖</span>
        {each && <span>Δloss predicted</span>}
        {each && <span>actual</span>}
      </div>
      <Window count={parameters.length} row={ROW} most={360} label="Parameters">
        {(k) => <Row each={each} parameter={parameters[k] as ExplanationParameter} open={open} onOpen={setOpen} />}
      </Window>
      {chosen && <Chain explanation={explanation} choice={choice} parameter={chosen} />}
    </section>
  );
}

interface RowProps {
  /** Whether the change of the loss is known for each parameter by itself. */
  each: boolean;
  parameter: ExplanationParameter;
  open: string | null;
  onOpen: (name: string | null) => void;
}

function Row({ each, parameter, open, onOpen }: RowProps) {
  const { name, value, gradient, update, loss_change: change } = parameter;
  const cells: [string, string][] = [
    ["norm of the values", formatNumber(norm(value))],
    ["norm of the gradient", formatNumber(norm(gradient))],
    ["norm of the change", formatNumber(norm(update))],
  ];
  if (each) {
    cells.push(["predicted change of the loss", change ? formatNumber(change.predicted) : "–"]);
    cells.push(["actual change of the loss", change && change.actual !== null ? formatNumber(change.actual) : "–"]);
  }
  return (
    <button
      type="button"
      class={`table-row number${each ? "" : " short"}`}
      aria-expanded={open === name}
      onClick={() => onOpen(open === name ? null : name)}
    >
      <span>
        <code>{name}</code>
      </span>
      <span>{formatShape(value.shape)}</span>
      {cells.map(([what, text]) => (
        <span key={what}>
          <span class="visually-hidden">{what} </span>
          {text === "NaN" ? "–" : text}
        </span>
      ))}
    </button>
  );
}

function Chain({ explanation, choice, parameter }: Props & { parameter: ExplanationParameter }) {
  const view = (title: string, array: ArrayJson) => (
    <ArrayView title={title} array={array} explanation={explanation} choice={choice} index={[]} batched={false} />
  );
  return (
    <div class="chain">
      <h3>
        <code>{parameter.name}</code> from value and gradient to the change
      </h3>
      <div class="arrays">
        {view("value", parameter.value)}
        {parameter.gradient && view("gradient", parameter.gradient)}
        {parameter.state.map((state) => [
          view(`${state.name} before`, state.before),
          view(`${state.name} after`, state.after),
        ])}
        {parameter.terms.map((term) => (
          <div key={term.name}>
            {view(term.name, term.value)}
            <code class="formula">{term.formula}</code>
          </div>
        ))}
        {parameter.update && view("change Δw", parameter.update)}
      </div>
    </div>
  );
}
