// Units as circles: the output inside, the weighted sum below, the error above; and the loss.

import { css, diverging, inkOn } from "../shared/colours";
import { formatNumber } from "../shared/format";
import { useDark } from "../shared/theme";
import type { Box } from "./layout";
import type { Connection, DrawingProps } from "./Network";
import { element, flat, ofRow } from "./values";
import { sub } from "./write";

interface Props extends DrawingProps {
  box: Box;
  shown: "value" | "gradient" | "update";
  selected: Connection | null;
  scale: number;
}

const MOST_TAB_STOPS = 48;

export function Units({
  box,
  textbook,
  scene,
  known,
  step,
  choice,
  shown,
  selected,
  hovered,
  scale,
  onPick,
  onHover,
}: Props) {
  const dark = useDark();
  const { column, ys, radius } = box;
  const x = box.x + box.width / 2;
  const present = step.column === column;
  const total = scene.columns.reduce((count, { kind, units }) => count + (kind === "units" ? units : 0), 0);
  const roomy = radius > 20;
  const symbol = textbook.symbol(column);
  const hasSum = column.from.length > 0;
  return (
    <g>
      {ys.map((y, unit) => {
        const numbers = textbook.unit(column, unit, choice.row);
        const hasOutput = known.value(column.output, choice.step);
        const hasError = hasSum && known.gradient(column.sum, choice.step) && !Number.isNaN(numbers.error);
        const hasFromAbove = hasSum && known.gradient(column.output, choice.step) && !Number.isNaN(numbers.fromAbove);
        const inside = hasOutput ? numbers.output : known.value(column.sum, choice.step) ? numbers.sum : NaN;
        const shade = shown === "value" ? inside : hasError ? numbers.error : NaN;
        const fill = Number.isNaN(shade) ? null : diverging((0.62 * shade) / scale, dark);
        const focus = hovered ?? selected;
        const isPicked = focus?.column === column.number && focus.unit === unit;
        const label = describe(symbol, unit, numbers, hasOutput, hasError, column.title);
        const pick = (): void => onPick({ column: column.number, unit, source: choice.source });
        // What is written on a unit stands beside its button, not in it: the button's name says it in words.
        return (
          <g key={unit}>
            <g
              class={`unit${present ? " present" : ""}${isPicked ? " picked" : ""}`}
              role="button"
              tabIndex={total <= MOST_TAB_STOPS ? 0 : -1}
              aria-label={label}
              aria-pressed={isPicked}
              onClick={pick}
              onFocus={pick}
              onPointerEnter={() => onHover({ column: column.number, unit, source: -1 })}
              onPointerLeave={() => onHover(null)}
            >
              <title>{label}</title>
              <circle class="halo" cx={x} cy={y} r={radius + 6} />
              <circle class="body" cx={x} cy={y} r={radius} style={fill ? { fill: css(fill) } : undefined} />
            </g>
            <g class="unit-text" aria-hidden="true">
              {roomy && !Number.isNaN(inside) && (
                <text
                  class={`inside number${short(inside).length > 5 ? " long" : ""}`}
                  x={x}
                  y={y}
                  style={fill ? { fill: inkOn(fill) } : undefined}
                >
                  {short(inside)}
                </text>
              )}
              {radius >= 28 && (
                <text class="name" x={x} y={y + radius + 21}>
                  {hasSum && known.value(column.sum, choice.step) && column.sum !== column.output
                    ? `z${sub(unit)} ${formatNumber(numbers.sum)}`
                    : `${symbol}${sub(unit)}`}
                </text>
              )}
              {radius >= 28 && (hasError || hasFromAbove) && (
                <text class="error number" x={x} y={y - radius - 12}>
                  {hasError
                    ? `δ${sub(unit)} ${formatNumber(numbers.error)}`
                    : `∂L/∂${symbol}${sub(unit)} ${formatNumber(numbers.fromAbove)}`}
                </text>
              )}
            </g>
          </g>
        );
      })}
    </g>
  );
}

/** At most six characters, so that it fits into a circle. */
function short(value: number): string {
  const text = formatNumber(value);
  return text.length > 6 ? formatNumber(value, 2) : text;
}

function describe(
  symbol: string,
  unit: number,
  numbers: { sum: number; output: number; slope: number; error: number },
  hasOutput: boolean,
  hasError: boolean,
  title: string,
): string {
  const parts = [`${title}, unit ${unit + 1} (${symbol}${sub(unit)})`];
  if (hasOutput) parts.push(`sum ${formatNumber(numbers.sum, 4)}`, `output ${formatNumber(numbers.output, 4)}`);
  if (hasError) parts.push(`slope ${formatNumber(numbers.slope, 4)}`, `error ${formatNumber(numbers.error, 4)}`);
  return parts.join(", ");
}

export function LossUnit({ box, explanation, scene, known, choice, step }: DrawingProps & { box: Box }) {
  const x = box.x + box.width / 2;
  const y = box.ys[0] ?? 0;
  const hasValue = known.value(scene.loss, choice.step);
  const target = scene.target && ofRow(scene.target.value, explanation.rows, choice.row);
  const loss = element(scene.nodes.get(scene.loss)?.value, []);
  const shown = flat(scene.nodes.get(scene.loss)?.value)?.length === 1 ? loss : Number(explanation.loss);
  return (
    <g class={`unit loss${step.column === box.column ? " present" : ""}`}>
      <circle class="halo" cx={x} cy={y} r={box.radius + 6} />
      <circle class="body" cx={x} cy={y} r={box.radius} />
      <g class="unit-text">
        <text class="inside number" x={x} y={y}>
          {hasValue ? formatNumber(shown, 4) : "L"}
        </text>
        {target && target.length <= 4 && (
          <text class="name number" x={x} y={y + box.radius + 19}>
            <tspan x={x}>wanted</tspan>
            {[...target].map((value, k) => (
              <tspan key={k} x={x} dy="1.25em">
                {target.length > 1 ? `t${sub(k)} = ` : ""}
                {formatNumber(value, 4)}
              </tspan>
            ))}
          </text>
        )}
      </g>
    </g>
  );
}
