// A recurrent layer unrolled: a column of units for each step of time, from left to right.

import { css, diverging } from "../shared/colours";
import { formatNumber } from "../shared/format";
import { useDark } from "../shared/theme";
import type { Panel } from "./values";

interface Props {
  /** Units as rows, steps as columns. */
  panel: Panel;
  reach: number;
  width: number;
  /** True: time runs backwards here, as the errors do. */
  backward: boolean;
  label: string;
}

const ROW = 26;
const MOST_UNITS = 8;
const MOST_STEPS = 16;
export const STEP_WIDTH = 44;

export const fitsUnrolled = (steps: number, units: number): boolean => steps <= MOST_STEPS && units <= MOST_UNITS;

export function Unrolled({ panel, reach, width, backward, label }: Props) {
  const dark = useDark();
  const step = width / panel.columns;
  const height = panel.rows * ROW + 26;
  const middle = (panel.rows * ROW) / 2 + 4;
  const circles = [];
  for (let unit = 0; unit < panel.rows; unit += 1) {
    for (let t = 0; t < panel.columns; t += 1) {
      const value = panel.data[unit * panel.columns + t] as number;
      circles.push(
        <circle
          key={`${unit}-${t}`}
          cx={(t + 0.5) * step}
          cy={unit * ROW + 17}
          r={9}
          style={{ fill: css(diverging((0.8 * value) / reach, dark)) }}
        >
          <title>{`step ${t + 1}, unit ${unit + 1}: ${formatNumber(value, 4)}`}</title>
        </circle>,
      );
    }
  }
  return (
    <svg class="unrolled" width={width} height={height} role="img" aria-label={label}>
      {Array.from({ length: panel.columns - 1 }, (_, t) => {
        const [from, to] = [(t + 0.5) * step + 12, (t + 1.5) * step - 12];
        const [tail, tip] = backward ? [to, from] : [from, to];
        const wing = backward ? 5 : -5;
        return <path key={t} d={`M${tail},${middle} H${tip} m${wing},-4 L${tip},${middle} l${wing},4`} />;
      })}
      {circles}
      {Array.from({ length: panel.columns }, (_, t) => (
        <text key={t} x={(t + 0.5) * step} y={height - 6}>
          {t + 1}
        </text>
      ))}
    </svg>
  );
}
