import { useEffect, useState } from "preact/hooks";
import { api } from "../../shared/api";
import { formatNumber, grouped } from "../../shared/format";
import type { Explanation } from "../../shared/types";
import { ExplanationViewer } from "../../viewer/ExplanationViewer";
import { Failure, Loading, messageOf } from "../parts";
import { go, href } from "../route";

/** One step of a run, made again bit for bit and explained. */
export function ExplorerPage({ name, step, row }: { name: string; step: number | null; row: number | null }) {
  const [last, setLast] = useState<number | null>(null);
  const [explanation, setExplanation] = useState<Explanation | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    let current = true;
    api
      .history(name)
      .then(({ rows }) => {
        if (!current) return;
        const newest = rows[rows.length - 1]?.step ?? 0;
        setLast(newest);
        if (step === null && newest > 0) go(href.step(name, newest), true);
      })
      .catch((error: unknown) => current && setFailure(messageOf(error)));
    return () => {
      current = false;
    };
  }, [name]);

  useEffect(() => {
    if (step === null) return undefined;
    let current = true;
    setBusy(true);
    setFailure(null);
    api
      .explain(name, step, row)
      .then((found) => current && setExplanation(found))
      .catch((error: unknown) => {
        if (!current) return;
        setExplanation(null);
        setFailure(messageOf(error));
      })
      .finally(() => current && setBusy(false));
    return () => {
      current = false;
    };
  }, [name, step, row]);

  const move = (to: number): void => go(href.step(name, to, row), true);
  return (
    <div class="page">
      <p class="crumbs">
        <a href={href.runs()}>Runs</a> <span aria-hidden="true">›</span> <a href={href.run(name)}>{name}</a>{" "}
        <span aria-hidden="true">›</span>
      </p>
      <div class="page-head">
        <h1>
          Step <span class="number">{step === null ? "" : grouped(step)}</span>
        </h1>
        <StepForm name={name} step={step} row={row} last={last} busy={busy} onMove={move} />
        {explanation && !busy && (
          <p class="soft number" role="status">
            loss {formatNumber(explanation.loss, 4)}, engine {explanation.engine}
            {explanation.rows !== null && `, ${explanation.rows} rows`}
          </p>
        )}
      </div>
      {failure && <Failure message={failure} />}
      {busy && <Loading what={`Step ${step} is made again and explained …`} />}
      {explanation && <ExplanationViewer key={`${name} ${explanation.step} ${row}`} explanation={explanation} />}
    </div>
  );
}

function StepForm(props: {
  name: string;
  step: number | null;
  row: number | null;
  last: number | null;
  busy: boolean;
  onMove: (step: number) => void;
}) {
  const { step, last, row } = props;
  const [typed, setTyped] = useState({ step: String(step ?? ""), row: row === null ? "" : String(row) });
  useEffect(() => setTyped({ step: String(step ?? ""), row: row === null ? "" : String(row) }), [step, row]);
  return (
    <form
      class="tools"
      onSubmit={(event) => {
        event.preventDefault();
        go(href.step(props.name, Number(typed.step), typed.row === "" ? null : Number(typed.row)));
      }}
    >
      <button type="button" disabled={step === null || step <= 1} onClick={() => props.onMove((step ?? 1) - 1)}>
        <span aria-hidden="true">←</span> Previous
      </button>
      <label class="field">
        Step
        <input
          type="number"
          class="number step-number"
          min="1"
          max={last ?? undefined}
          required
          value={typed.step}
          onInput={(event) => setTyped({ ...typed, step: event.currentTarget.value })}
        />
      </label>
      <label class="field">
        Row of the batch
        <input
          type="number"
          class="number row-number"
          min="0"
          placeholder="all"
          value={typed.row}
          onInput={(event) => setTyped({ ...typed, row: event.currentTarget.value })}
        />
      </label>
      <button type="submit" class="primary">
        Explain
      </button>
      <button
        type="button"
        disabled={step === null || (last !== null && step >= last)}
        onClick={() => props.onMove((step ?? 0) + 1)}
      >
        Next <span aria-hidden="true">→</span>
      </button>
    </form>
  );
}
