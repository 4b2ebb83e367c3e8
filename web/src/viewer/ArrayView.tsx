// An array in small: a heat map that a click enlarges, its numbers in summary, its largest elements.

import { useMemo, useState } from "preact/hooks";
import { reach } from "../shared/colours";
import { formatNumber, formatShape, formatShare } from "../shared/format";
import { isFull, type ArrayJson, type Explanation, type Summary } from "../shared/types";
import { pictureOf } from "./ColumnPicture";
import { Fold } from "./Fold";
import { fit, Heatmap, ZoomDialog } from "./Heatmap";
import type { Choice } from "./state";
import { flat, isBatched, largest } from "./values";

interface Props {
  title: string;
  /** What it is called where the title does not say it. */
  name?: string;
  array: ArrayJson;
  explanation: Explanation;
  choice: Choice;
  index: number[];
  /** Whether the first axis may count the rows of the batch. */
  batched: boolean;
  axes?: readonly string[];
  onIndex?: (index: number[]) => void;
}

const FEW = 8; // so many numbers are shown as numbers

export function ArrayView({ title, name = title, array, explanation, choice, batched, axes = [], onIndex }: Props) {
  const [zoomed, setZoomed] = useState(false);
  const rows = batched ? explanation.rows : null;
  const drawn = useMemo(() => pictureOf(array, axes, choice.row, rows, 6), [array, choice.row, rows]);
  const scale = useMemo(() => reach(flat(array) ?? drawn.panels.flatMap(({ data }) => [...data])), [array, drawn]);
  const shown = drawn.panels.reduce((count, { data }) => count + data.length, 0);
  const across = Math.min(drawn.panels.length, 3);
  return (
    <div class="array">
      <h4>
        {title}{" "}
        <span class="number">
          {isBatched(array.shape, rows) && (rows ?? 1) > 1 ? `row ${choice.row} of ` : ""}
          {formatShape(array.shape)}
        </span>
      </h4>
      {shown <= FEW && drawn.exact ? (
        <p class="few number">
          {drawn.panels.map(({ data, columns }, k) => (
            <span key={k} style={{ gridTemplateColumns: `repeat(${columns}, auto)` }}>
              {[...data].map((value, i) => (
                <b key={i}>{formatNumber(value, 5)}</b>
              ))}
            </span>
          ))}
        </p>
      ) : (
        <button type="button" class="picture-button" onClick={() => setZoomed(true)} aria-label={`Enlarge ${name}`}>
          <span class="tiles">
            {drawn.panels.map((panel, k) => {
              const [width, height] = fit(panel, 210 / across - 4, drawn.panels.length > 3 ? 70 : 130);
              return <Heatmap key={k} panel={panel} reach={scale} label="" width={width} height={height} />;
            })}
          </span>
        </button>
      )}
      {drawn.count > drawn.panels.length && (
        <p class="more">
          {drawn.panels.length} of {drawn.count} shown
        </p>
      )}
      {isFull(array) ? (
        shown > FEW && <Largest array={array} onIndex={onIndex} />
      ) : (
        <SummaryView summary={array.summary} />
      )}
      {zoomed && (
        <ZoomDialog
          title={name}
          {...pictureOf(array, axes, choice.row, rows, 64)}
          reach={scale}
          onClose={() => setZoomed(false)}
          {...(onIndex ? { onPick: onIndex } : {})}
        />
      )}
    </div>
  );
}

interface LargestProps {
  array: ArrayJson;
  onIndex: ((index: number[]) => void) | undefined;
}

function Largest({ array, onIndex }: LargestProps) {
  return (
    <Fold kind="largest" summary="Largest elements">
      {() => <LargestTable array={array} onIndex={onIndex} />}
    </Fold>
  );
}

function LargestTable({ array, onIndex }: LargestProps) {
  const entries = useMemo(() => largest(array, 10), [array]);
  return (
    <table class="number">
      <thead>
        <tr>
          <th scope="col">Element</th>
          <th scope="col">Value</th>
        </tr>
      </thead>
      <tbody>
        {entries.map(({ index, value }) => (
          <tr key={index.join()}>
            <td>
              {onIndex ? (
                <button type="button" class="link" onClick={() => onIndex(index)}>
                  [{index.join(", ")}]
                </button>
              ) : (
                `[${index.join(", ")}]`
              )}
            </td>
            <td>{formatNumber(value, 5)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function SummaryView({ summary }: { summary: Summary }) {
  const facts: [string, string][] = [
    ["min", formatNumber(summary.min)],
    ["max", formatNumber(summary.max)],
    ["mean", formatNumber(summary.mean)],
    ["std", formatNumber(summary.std)],
    ["norm", formatNumber(summary.norm)],
    ["zeros", formatShare(summary.zeros)],
  ];
  if (summary.nonfinite > 0) facts.push(["not finite", String(summary.nonfinite)]);
  return (
    <div class="summary">
      <Histogram summary={summary} />
      <dl class="number">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function Histogram({ summary }: { summary: Summary }) {
  const { low, high, counts } = summary.histogram;
  const most = Math.max(...counts, 1);
  const width = 100 / Math.max(counts.length, 1);
  const label = `Histogram of the values from ${formatNumber(low)} to ${formatNumber(high)}`;
  return (
    <figure class="histogram">
      <svg viewBox="0 0 100 36" preserveAspectRatio="none" role="img" aria-label={label}>
        {counts.map((count, k) => (
          <rect key={k} x={k * width} y={36 - (35 * count) / most} width={width * 0.86} height={(35 * count) / most} />
        ))}
      </svg>
      <figcaption class="number">
        <span>{formatNumber(low)}</span>
        <span>{formatNumber(high)}</span>
      </figcaption>
    </figure>
  );
}
