import { useState } from "preact/hooks";
import { line } from "../../shared/colours";
import { formatDuration, formatNumber, toNumber } from "../../shared/format";
import { useDark } from "../../shared/theme";
import type { RunSummary } from "../../shared/types";
import { title } from "../charts/series";
import { StatusBadge } from "../parts";
import { href } from "../route";

type Column = "name" | "status" | "best" | "epochs" | "seconds" | "started";

const COLUMNS: readonly (readonly [Column, string])[] = [
  ["name", "Run"],
  ["status", "Status"],
  ["best", "Best"],
  ["epochs", "Epochs"],
  ["seconds", "Time"],
  ["started", "Begun"],
];

export function RunTable(props: {
  runs: RunSummary[];
  /** Every run's name: a run keeps its colour, whatever is filtered. */
  all: string[];
  chosen: string[];
  onChoose: (names: string[]) => void;
}) {
  const dark = useDark();
  const [order, setOrder] = useState<{ column: Column; falling: boolean }>({ column: "started", falling: true });
  const runs = [...props.runs].sort((a, b) => compare(a, b, order.column) * (order.falling ? -1 : 1));
  const toggle = (name: string): void =>
    props.onChoose(
      props.chosen.includes(name) ? props.chosen.filter((other) => other !== name) : [...props.chosen, name],
    );

  return (
    <table class="runs">
      <caption class="visually-hidden">Runs. Choose some to compare their curves.</caption>
      <thead>
        <tr>
          <th scope="col">
            <span class="visually-hidden">Compare</span>
          </th>
          {COLUMNS.map(([column, text]) => {
            const sorted = order.column === column;
            return (
              <th
                key={column}
                scope="col"
                class={`col-${column}`}
                aria-sort={sorted ? (order.falling ? "descending" : "ascending") : "none"}
              >
                <button
                  class="sort"
                  onClick={() => setOrder({ column, falling: sorted ? !order.falling : column !== "name" })}
                >
                  {text}
                  <span aria-hidden="true">{sorted ? (order.falling ? " ↓" : " ↑") : ""}</span>
                </button>
              </th>
            );
          })}
        </tr>
      </thead>
      <tbody onKeyDown={moveBetweenRows}>
        {runs.map((run) => (
          <tr key={run.name} class={props.chosen.includes(run.name) ? "chosen" : ""}>
            <td class="col-choose">
              <label class="tick">
                <input
                  type="checkbox"
                  checked={props.chosen.includes(run.name)}
                  disabled={run.status === "damaged"}
                  onChange={() => toggle(run.name)}
                  aria-label={`Compare ${run.name}`}
                />
                <span
                  class="swatch"
                  aria-hidden="true"
                  style={{ background: props.chosen.includes(run.name) ? line(props.all.indexOf(run.name), dark) : "" }}
                />
              </label>
            </td>
            <th scope="row" class="col-name">
              <a href={href.run(run.name)}>{run.name}</a>
            </th>
            <td class="col-status">
              <StatusBadge status={run.status} reason={run.reason} />
              {(run.status === "failed" || run.status === "damaged") && <span class="reason">{run.reason}</span>}
            </td>
            <td class="col-best number">
              {run.best ? (
                <>
                  <b>{formatNumber(run.best.value, 4)}</b> <span class="soft">{title(run.best.metric)}</span>
                </>
              ) : (
                "–"
              )}
            </td>
            <td class="col-epochs number">
              {run.epochs}
              <span class="word soft"> epochs</span>
            </td>
            <td class="col-seconds number">{formatDuration(run.seconds)}</td>
            <td class="col-started number">{run.started ? moment(run.started) : "–"}</td>
          </tr>
        ))}
        {runs.length === 0 && (
          <tr>
            <td colSpan={COLUMNS.length + 1}>No run fits the filter.</td>
          </tr>
        )}
      </tbody>
    </table>
  );
}

/** Up and down go from row to row, within the column of ticks or of names. */
function moveBetweenRows(event: KeyboardEvent): void {
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const target = event.target as HTMLElement;
  const kind = target.matches("input[type=checkbox]") ? "input[type=checkbox]" : target.matches("a") ? "a" : null;
  if (!move || !kind) return;
  const all = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>(kind)];
  const next = all[all.indexOf(target) + move];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function compare(a: RunSummary, b: RunSummary, column: Column): number {
  switch (column) {
    case "best": {
      const [left, right] = [a, b].map((run) => (run.best ? toNumber(run.best.value) : Infinity)) as [number, number];
      return left === right ? 0 : left - right;
    }
    case "epochs":
    case "seconds":
      return a[column] - b[column];
    case "name":
      return a.name.localeCompare(b.name, undefined, { numeric: true });
    default:
      return (a[column] ?? "").localeCompare(b[column] ?? "");
  }
}

function moment(text: string): string {
  const date = new Date(text);
  const today = date.toDateString() === new Date().toDateString();
  return today
    ? date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" });
}
