// The present line: where it stands in the source, what it does in symbols and in numbers, and how it is differentiated.

import { formatNumber, formatShape } from "../shared/format";
import type { Explanation, ExplanationNode } from "../shared/types";
import { ArrayView } from "./ArrayView";
import { backwardLines, forwardLine, nameOf, updateLines } from "./lines";
import type { Scene } from "./scene";
import { clip, indexFor, type Choice } from "./state";
import { PHASES, type Step } from "./steps";
import type { Textbook } from "./textbook";
import { fileName, type Line } from "./write";

interface Props {
  explanation: Explanation;
  scene: Scene;
  textbook: Textbook;
  step: Step;
  choice: Choice;
  onIndex: (index: number[]) => void;
  onNode: (node: ExplanationNode) => void;
}

export function LinePanel(props: Props) {
  const { explanation, scene, textbook, step, choice } = props;
  const { node, parameter, column } = step;
  if (step.phase === "overview" || !node) return <Overview {...props} />;
  const phase = PHASES.find((each) => each.phase === step.phase)?.title ?? "";
  const index = indexFor(node, choice, column, explanation.rows);
  const neurons = textbook.lines(step, Math.min(choice.unit, (column?.units ?? 1) - 1), choice.source, choice.row);
  const exact =
    step.phase === "update" && parameter
      ? updateLines(parameter, index)
      : step.phase === "backward"
        ? backwardLines(scene, node, index)
        : [forwardLine(scene, node, index)];
  return (
    <section class="card line-panel" aria-label="The present line">
      <h2>
        <span class={`phase ${step.phase}`}>{phase}</span>{" "}
        {parameter ? `Δ ${parameter.name}` : nodeTitle(node, step.phase)}
      </h2>
      <Place node={node} parameter={parameter !== null} />
      {neurons.length > 0 && <Lines title="In the textbook's terms" lines={neurons} />}
      <Element node={node} index={index} onIndex={props.onIndex} />
      {step.phase === "backward" && (
        <p class="rule">
          <span>Rule</span> <code>{node.rule || "–"}</code> <span>upstream here</span>{" "}
          <b class="number">{showAt(node, index)}</b>
        </p>
      )}
      <Lines title={titleOf(step)} lines={exact} />
      <Inputs {...props} node={node} />
      <div class="arrays">
        <ArrayView
          title={parameter ? "value" : "value of this node"}
          array={node.value}
          {...props}
          index={index}
          batched={!parameter}
        />
        {node.gradient && (
          <ArrayView title="gradient: ∂L/∂ this" array={node.gradient} {...props} index={index} batched={!parameter} />
        )}
        {step.phase === "update" && parameter?.update && (
          <ArrayView title="change Δw" array={parameter.update} {...props} index={index} batched={false} />
        )}
      </div>
    </section>
  );
}

function showAt(node: ExplanationNode, index: number[]): string {
  if (!node.gradient || !("data" in node.gradient)) return "see below";
  const place = node.shape.reduce((all, length, axis) => all * length + (index[axis] ?? 0), 0);
  return formatNumber(node.gradient.data[place] ?? null, 5);
}

const nodeTitle = (node: ExplanationNode, phase: string): string =>
  phase === "backward" ? `through ${node.op}` : `${node.op}${node.name ? ` ${node.name}` : ""}`;

function titleOf(step: Step): string {
  if (step.phase === "update") return "From the gradient to the change";
  return step.phase === "backward" ? "Upstream × local derivative = downstream" : "This operation, for one element";
}

function Place({ node, parameter }: { node: ExplanationNode; parameter: boolean }) {
  return (
    <div class="place">
      {node.module !== "" && (
        <span>
          <b>{node.module}</b> {node.layer}
        </span>
      )}
      <span class="number">
        {formatShape(node.shape)} {node.dtype}
      </span>
      {!parameter && (
        <span class={`bits ${node.observed ? "observed" : "again"}`}>
          {node.observed ? "✓ the training step's own bits" : "↻ computed again for this view"}
        </span>
      )}
      {node.source !== "" && (
        <code class="source">
          <span class="where" title={node.file}>
            {fileName(node.file)}:{node.line}
          </span>
          {node.source.trim()}
        </code>
      )}
    </div>
  );
}

export function Lines({ title, lines }: { title: string; lines: Line[] }) {
  return (
    <div class="lines">
      <h3>{title}</h3>
      {lines.map((line, k) => (
        <div class="equation" key={k}>
          <span class="label">{line.label}</span>
          <span class="symbols">{line.symbols}</span>
          {(line.numbers || line.result) && (
            <span class="numbers number">
              {line.numbers && `= ${line.numbers} `}
              {line.result && (
                <>
                  = <b>{line.result}</b>
                </>
              )}
            </span>
          )}
        </div>
      ))}
    </div>
  );
}

/** Which element of the node is spelled out. */
function Element({
  node,
  index,
  onIndex,
}: {
  node: ExplanationNode;
  index: number[];
  onIndex: (index: number[]) => void;
}) {
  if (node.shape.length === 0 || node.shape.every((length) => length === 1)) return null;
  return (
    <div class="element">
      <span>Element</span>
      {node.shape.map((length, axis) => (
        <input
          key={axis}
          type="number"
          min={0}
          max={length - 1}
          value={index[axis]}
          disabled={length === 1}
          aria-label={`Axis ${axis + 1} of ${node.shape.length}, 0 to ${length - 1}`}
          onChange={(event) => {
            const next = [...index];
            next[axis] = Math.trunc(Number(event.currentTarget.value)) || 0;
            onIndex(clip(node.shape, next));
          }}
        />
      ))}
    </div>
  );
}

function Inputs({ scene, node, onNode }: Props & { node: ExplanationNode }) {
  const inputs = node.inputs.map((id) => scene.nodes.get(id)).filter((input) => input !== undefined);
  const consumers = (scene.consumers.get(node.id) ?? [])
    .map((id) => scene.nodes.get(id))
    .filter((each) => each !== undefined);
  if (inputs.length + consumers.length === 0) return null;
  const link = (other: ExplanationNode, k: number) =>
    other.inputs.length > 0 ? (
      <button type="button" class="link" key={k} onClick={() => onNode(other)}>
        {nameOf(other)}
      </button>
    ) : (
      <code key={k}>{nameOf(other)}</code>
    );
  return (
    <p class="inputs">
      {inputs.length > 0 && <span>fed by</span>} {inputs.map(link)}
      {consumers.length > 0 && <span>feeds</span>} {consumers.slice(0, 8).map(link)}
      {consumers.length > 8 && <span>and {consumers.length - 8} more</span>}
    </p>
  );
}

function Overview({ explanation, scene }: Props) {
  const change = explanation.loss_change;
  const weights = explanation.parameters.reduce((all, { value }) => all + value.shape.reduce((a, b) => a * b, 1), 0);
  return (
    <section class="card line-panel" aria-label="The whole step">
      <h2>The whole step at a glance</h2>
      <p>
        {explanation.rows === 1 ? "One row" : explanation.rows ? `${explanation.rows} rows` : "The data"} through{" "}
        {scene.columns.length} columns and {weights.toLocaleString("en")} weights gave the loss{" "}
        <b class="number">{formatNumber(explanation.loss, 6)}</b>. Press <kbd>→</kbd> to walk through it: forward, loss,
        backward, update, one operation at a time.
      </p>
      {change && (
        <p>
          The update was to change the loss by <b class="number">{formatNumber(change.predicted, 4)}</b> (gradient ·
          Δw); it changed it by <b class="number">{formatNumber(change.actual, 4)}</b>.
        </p>
      )}
      <dl class="keys">
        <dt>
          <kbd>←</kbd> <kbd>→</kbd>
        </dt>
        <dd>one operation back or on</dd>
        <dt>
          <kbd>Page Up</kbd> <kbd>Page Down</kbd>
        </dt>
        <dd>one layer back or on</dd>
        <dt>
          <kbd>↑</kbd> <kbd>↓</kbd>
        </dt>
        <dd>
          another unit; with <kbd>Shift</kbd> another connection of it
        </dd>
        <dt>
          <kbd>Home</kbd> <kbd>End</kbd>
        </dt>
        <dd>the overview, the last step</dd>
        <dt>
          <kbd>Space</kbd>
        </dt>
        <dd>play and pause</dd>
      </dl>
    </section>
  );
}
