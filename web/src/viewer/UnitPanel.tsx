// The unit and the connection that the reader looks at, and the story of their layer.

import { formatNumber } from "../shared/format";
import type { ArrayJson, Explanation } from "../shared/types";
import { ArrayView } from "./ArrayView";
import { Fold } from "./Fold";
import { Lines } from "./LinePanel";
import type { Connection } from "./Network";
import { terms, type Column, type Scene } from "./scene";
import type { Choice } from "./state";
import type { Textbook } from "./textbook";
import { element } from "./values";
import { sub } from "./write";

const MOST_OPTIONS = 32;

interface Props {
  explanation: Explanation;
  scene: Scene;
  textbook: Textbook;
  choice: Choice;
  column: Column | null;
  hovered: Connection | null;
  onPick: (connection: Connection) => void;
}

export function UnitPanel(props: Props) {
  const { scene, hovered } = props;
  const column = hovered ? (scene.columns[hovered.column] ?? null) : props.column;
  if (!column || (column.kind === "loss" && terms(column).length === 0)) return null;
  const unit = Math.min(hovered?.unit ?? props.choice.unit, Math.max(column.units - 1, 0));
  const source = hovered && hovered.source >= 0 ? hovered.source : props.choice.source;
  return (
    <section class="card unit-panel" aria-label="Unit and connection">
      <h2>
        {column.title} <small>{column.subtitle}</small>
      </h2>
      {(column.kind === "units" || column.weight) && (
        <UnitNumbers {...props} column={column} unit={unit} source={source} />
      )}
      {column.kind === "picture" && <Arrays {...props} column={column} />}
      <Story {...props} column={column} />
    </section>
  );
}

function UnitNumbers({
  textbook,
  choice,
  column,
  unit,
  source,
  onPick,
}: Props & { column: Column; unit: number; source: number }) {
  const numbers = textbook.unit(column, unit, choice.row);
  const symbol = textbook.symbol(column);
  const picks = (count: number, chosen: number, name: string, pick: (k: number) => void) =>
    count > MOST_OPTIONS ? (
      <label>
        {name}{" "}
        <input
          type="number"
          min={1}
          max={count}
          value={chosen + 1}
          onChange={(event) =>
            pick(Math.min(Math.max(Math.trunc(Number(event.currentTarget.value)) || 1, 1), count) - 1)
          }
        />
      </label>
    ) : (
      <label>
        {name}{" "}
        <select value={chosen} onChange={(event) => pick(Number(event.currentTarget.value))}>
          {Array.from({ length: count }, (_, k) => (
            <option key={k} value={k}>
              {k + 1}
            </option>
          ))}
        </select>
      </label>
    );
  const facts: [string, string, number][] = [["output", `${symbol}${sub(unit)}`, numbers.output]];
  if (column.from.length > 0) {
    facts.unshift(["sum", `z${sub(unit)}`, numbers.sum]);
    facts.push(["slope", "f′(z)", numbers.slope], ["error", `δ${sub(unit)}`, numbers.error]);
  } else facts.push(["gradient", `∂L/∂${symbol}${sub(unit)}`, numbers.error]);
  return (
    <>
      <div class="picks">
        {picks(column.units, unit, "Unit", (k) => onPick({ column: column.number, unit: k, source }))}
        {column.weight &&
          picks(column.inputs, Math.min(source, column.inputs - 1), "from input", (k) =>
            onPick({ column: column.number, unit, source: k }),
          )}
      </div>
      <dl class="facts number">
        {facts.map(([name, mark, value]) => (
          <div key={name}>
            <dt>
              {name} <i>{mark}</i>
            </dt>
            <dd>{formatNumber(value, 5)}</dd>
          </div>
        ))}
      </dl>
      {column.weight && <ConnectionNumbers column={column} unit={unit} source={Math.min(source, column.inputs - 1)} />}
      {column.weight && (
        <Fold kind="all-lines" summary="Where these come from">
          {() => (
            <Lines
              title=""
              lines={[
                textbook.sumLine(column, unit, choice.row),
                ...(textbook.hasActivation(column) ? [textbook.outputLine(column, unit, choice.row)] : []),
                textbook.fromAboveLine(column, unit, choice.row),
                ...(textbook.hasActivation(column) ? [textbook.errorLine(column, unit, choice.row)] : []),
                textbook.weightGradientLine(column, unit, Math.min(source, column.inputs - 1)),
              ]}
            />
          )}
        </Fold>
      )}
    </>
  );
}

/** What a layer that is not drawn unit by unit puts out, what comes back to it, and its parameters. */
function Arrays({ explanation, scene, choice, column }: Props & { column: Column }) {
  const node = scene.nodes.get(column.output);
  const view = (title: string, array: ArrayJson, batched: boolean) => (
    <ArrayView
      key={title}
      title={title}
      array={array}
      explanation={explanation}
      choice={choice}
      index={[]}
      batched={batched}
    />
  );
  return (
    <div class="arrays">
      {node && view("output", node.value, true)}
      {node?.gradient && view("∂L/∂ output", node.gradient, true)}
      {column.parameters.map(({ name, value, gradient }) => [
        view(name, value, false),
        gradient && view(`∂L/∂ ${name}`, gradient, false),
      ])}
    </div>
  );
}

function ConnectionNumbers({ column, unit, source }: { column: Column; unit: number; source: number }) {
  const { weight } = column;
  if (!weight) return null;
  const at = [unit, source];
  const facts: [string, string, number][] = [
    ["weight", `w${sub(unit, source)}`, element(weight.value, at)],
    ["gradient", `∂L/∂w${sub(unit, source)}`, element(weight.gradient, at)],
    ["change", `Δw${sub(unit, source)}`, element(weight.update, at)],
  ];
  return (
    <>
      <h3>
        Connection {source + 1} → {unit + 1} <code>{`${weight.name}[${unit}, ${source}]`}</code>
      </h3>
      <dl class="facts number">
        {facts.map(([name, mark, value]) => (
          <div key={name}>
            <dt>
              {name} <i>{mark}</i>
            </dt>
            <dd>{Number.isNaN(value) ? "–" : formatNumber(value, 5)}</dd>
          </div>
        ))}
      </dl>
    </>
  );
}

function Story({ explanation, choice, column }: Props & { column: Column }) {
  const all = terms(column);
  if (all.length === 0) return null;
  return (
    <Fold kind="story" summary="The story of this layer, term by term">
      {() =>
        all.map((term, k) => (
          <div class="term" key={k}>
            <p>
              <b>{term.name}</b> <i>{term.symbol}</i> <code>{term.formula}</code>
            </p>
            <ArrayView
              title={term.axes.join(" × ")}
              name={term.name}
              array={term.value}
              axes={term.axes}
              explanation={explanation}
              choice={choice}
              index={[]}
              batched={term.axes.length === 0}
            />
          </div>
        ))
      }
    </Fold>
  );
}
