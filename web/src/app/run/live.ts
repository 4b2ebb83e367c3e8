// A run as it stands, kept up to date while it trains.

import { useEffect, useState } from "preact/hooks";
import { api, listen } from "../../shared/api";
import type { Diagnosis, HistoryRow, RunDetail, Snapshot } from "../../shared/types";
import { messageOf } from "../parts";

export interface RunData {
  run: RunDetail;
  rows: HistoryRow[];
  snapshots: Snapshot[];
  diagnoses: Diagnosis[];
}

/** News put among what is known, by step. What is known of a step is completed, not doubled. */
export function merged<T extends { step: number }>(known: T[], news: T[]): T[] {
  const first = news[0];
  const last = known[known.length - 1];
  if (!first) return known;
  if (!last || first.step > last.step) return [...known, ...news];
  const bySteps = new Map(known.map((item) => [item.step, item]));
  for (const item of news) bySteps.set(item.step, { ...bySteps.get(item.step), ...item });
  return [...bySteps.values()].sort((a, b) => a.step - b.step);
}

/** Diagnoses put together: one step may have several, so they are told apart by what they say. */
export function mergedDiagnoses(known: Diagnosis[], news: Diagnosis[]): Diagnosis[] {
  const key = (item: Diagnosis): string => `${item.step} ${item.kind} ${item.where}`;
  const all = new Map([...known, ...news].map((item) => [key(item), item]));
  return [...all.values()].sort((a, b) => a.step - b.step);
}

const lastStep = (items: { step: number }[]): number | null => items[items.length - 1]?.step ?? null;

export function useRun(name: string): { data: RunData | null; failure: string | null; again: () => void } {
  const [data, setData] = useState<RunData | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [turn, setTurn] = useState(0);

  useEffect(() => {
    let stop = (): void => undefined;
    let current = true;
    const update = (change: (data: RunData) => RunData): void => setData((data) => data && change(data));

    const start = async (): Promise<void> => {
      const [run, history, snapshots, diagnoses] = await Promise.all([
        api.run(name),
        api.history(name),
        api.snapshots(name),
        api.diagnoses(name),
      ]);
      if (!current) return;
      setFailure(null);
      setData({ run, rows: history.rows, snapshots: snapshots.snapshots, diagnoses: diagnoses.diagnoses });
      if (run.status !== "running") return;
      const steps = [lastStep(history.rows), lastStep(snapshots.snapshots)].map((step) => step ?? -1);
      // From the step before the last one known: of the last step, more may have been written since.
      stop = listen(name, Math.max(Math.min(...steps) - 1, 0), {
        history: (rows) => update((data) => ({ ...data, rows: merged(data.rows, rows) })),
        snapshots: (snapshots) => update((data) => ({ ...data, snapshots: merged(data.snapshots, snapshots) })),
        diagnoses: (diagnoses) =>
          update((data) => ({ ...data, diagnoses: mergedDiagnoses(data.diagnoses, diagnoses) })),
        status: (status, reason) => {
          update((data) => ({ ...data, run: { ...data.run, status, reason } }));
          if (status !== "running") void api.run(name).then((run) => current && update((data) => ({ ...data, run })));
        },
      });
    };
    start().catch((error: unknown) => current && setFailure(messageOf(error)));
    return () => {
      current = false;
      stop();
    };
  }, [name, turn]);

  return { data, failure, again: () => setTurn((number) => number + 1) };
}

/** The histories of several runs, kept up to date for those that train. */
export function useHistories(names: readonly string[], running: readonly string[]) {
  const [histories, setHistories] = useState<Record<string, HistoryRow[]>>({});
  const [failure, setFailure] = useState<string | null>(null);
  const wanted = names.join("\n");
  const live = running.join("\n");

  useEffect(() => {
    let current = true;
    const stops: (() => void)[] = [];
    const add = (name: string, rows: HistoryRow[]): void =>
      setHistories((known) => ({ ...known, [name]: merged(known[name] ?? [], rows) }));
    for (const name of names) {
      api
        .history(name)
        .then(({ rows }) => {
          if (!current) return;
          add(name, rows);
          if (!running.includes(name)) return;
          stops.push(listen(name, lastStep(rows), { history: (news) => add(name, news) }));
        })
        .catch((error: unknown) => current && setFailure(messageOf(error)));
    }
    return () => {
      current = false;
      for (const stop of stops) stop();
    };
  }, [wanted, live]);
  return { histories, failure };
}
