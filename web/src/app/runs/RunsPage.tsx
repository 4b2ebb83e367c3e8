import { useEffect, useMemo, useState } from "preact/hooks";
import { api } from "../../shared/api";
import type { RunSummary } from "../../shared/types";
import { Card, Failure, Loading, messageOf } from "../parts";
import { go, href } from "../route";
import { useHistories } from "../run/live";
import { Compare } from "./Compare";
import { RunTable } from "./RunTable";

const EVERY = 2000; // milliseconds between two looks at the list

/** All runs, and the curves of those that are chosen. */
export function RunsPage({ selected }: { selected: string[] | null }) {
  const { root, runs, failure } = useRunList();
  const [filter, setFilter] = useState("");
  const shown = useMemo(() => (runs ?? []).filter((run) => matches(run, filter)), [runs, filter]);
  // Nothing chosen yet: the newest two are what one came to see.
  const chosen =
    selected ??
    (runs ?? [])
      .filter((run) => run.status !== "damaged")
      .slice(0, 2)
      .map((run) => run.name);
  const known = chosen.filter((name) => runs?.some((run) => run.name === name));
  const running = (runs ?? []).filter((run) => run.status === "running" && known.includes(run.name));
  const live = useHistories(
    known,
    running.map((run) => run.name),
  );
  const choose = (names: string[]): void => go(href.runs(names), true);

  return (
    <div class="page">
      <div class="page-head">
        <h1>Runs</h1>
        {root && (
          <p class="soft">
            in <code>{root}</code>
          </p>
        )}
      </div>
      {failure && <Failure message={failure} />}
      {runs === null && !failure && <Loading what="Reading the runs …" />}
      {runs?.length === 0 && <NoRuns />}
      {runs !== null && runs.length > 0 && (
        <>
          <Card
            title={known.length > 1 ? `${known.length} runs compared` : "Curves"}
            id="compare"
            {...(known.length === 0 && { hint: "Choose runs in the table below to see and compare their curves." })}
          >
            {live.failure && <Failure message={live.failure} />}
            {known.length > 0 && <Compare names={known} histories={live.histories} all={runs.map((run) => run.name)} />}
          </Card>
          <Card
            title={shown.length === runs.length ? `All ${runs.length}` : `${shown.length} of ${runs.length}`}
            id="list"
            tools={
              <div class="tools">
                <label class="field">
                  Filter
                  <input
                    type="search"
                    value={filter}
                    placeholder="name or status"
                    onInput={(event) => setFilter(event.currentTarget.value)}
                  />
                </label>
                <button disabled={known.length === 0} onClick={() => choose([])}>
                  Choose none
                </button>
              </div>
            }
          >
            <RunTable runs={shown} all={runs.map((run) => run.name)} chosen={known} onChoose={choose} />
          </Card>
        </>
      )}
    </div>
  );
}

function matches(run: RunSummary, filter: string): boolean {
  const text = `${run.name} ${run.status} ${run.best?.metric ?? ""}`.toLowerCase();
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

function NoRuns() {
  return (
    <div class="empty">
      <p>There are no runs here yet. Begin one in a terminal, and it appears by itself:</p>
      <pre>
        <code>chainrule train digits</code>
      </pre>
      <p>
        Or see a network learn, step by step, in the <a href={href.playground()}>playground</a>.
      </p>
    </div>
  );
}

/** The list of runs, the newest first; read again and again while the page is looked at. */
function useRunList() {
  const [root, setRoot] = useState("");
  const [runs, setRuns] = useState<RunSummary[] | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  useEffect(() => {
    let current = true;
    let before = "";
    const look = async (): Promise<void> => {
      if (document.hidden) return;
      try {
        const answer = await api.runs();
        if (!current) return;
        setFailure(null);
        const text = JSON.stringify(answer);
        if (text === before) return; // no news: nothing to draw
        before = text;
        setRoot(answer.root);
        setRuns([...answer.runs].sort((a, b) => (b.started ?? "").localeCompare(a.started ?? "")));
      } catch (error) {
        if (current) setFailure(messageOf(error));
      }
    };
    void look();
    const timer = setInterval(() => void look(), EVERY);
    return () => {
      current = false;
      clearInterval(timer);
    };
  }, []);
  return { root, runs, failure };
}
