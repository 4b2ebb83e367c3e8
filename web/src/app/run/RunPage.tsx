import { useEffect, useMemo, useState } from "preact/hooks";
import { formatDuration, formatNumber, grouped } from "../../shared/format";
import type { ChartSettings } from "../charts/Controls";
import { title } from "../charts/series";
import { Card, Failure, Loading, StatusBadge } from "../parts";
import { go, href } from "../route";
import { LossCurves, OtherCurves } from "./Curves";
import { ConfigTable, RunLog } from "./Details";
import { Diagnoses } from "./Diagnoses";
import { Distributions } from "./Distributions";
import { GradientFlow, UpdateRatios } from "./Flow";
import { type RunData, useRun } from "./live";
import { StepBar } from "./StepBar";
import { UnitShares } from "./Units";

/** One run: how it learns, what flows through it, what is wrong with it. */
export function RunPage({ name }: { name: string }) {
  const { data, failure, again } = useRun(name);
  if (failure) {
    return (
      <div class="page">
        <h1>{name}</h1>
        <Failure message={failure} retry={again} />
      </div>
    );
  }
  if (!data) {
    return (
      <div class="page">
        <h1>{name}</h1>
        <Loading what="Reading the run …" />
      </div>
    );
  }
  return <Run data={data} />;
}

function Run({ data }: { data: RunData }) {
  const { run, rows, snapshots, diagnoses } = data;
  const last = Math.max(rows[rows.length - 1]?.step ?? 0, snapshots[snapshots.length - 1]?.step ?? 0);
  const [chosen, setChosen] = useState<number | null>(null);
  const [layer, setLayer] = useState<string | null>(null);
  const step = chosen === null ? last : Math.min(chosen, last); // follows the newest until the reader chooses
  const onStep = (step: number, open: boolean): void => {
    if (open) go(href.step(run.name, step));
    else setChosen(step);
  };
  const paths = useMemo(() => snapshots[snapshots.length - 1]?.layers.map((layer) => layer.path) ?? [], [snapshots]);
  const withWeights = snapshots[snapshots.length - 1]?.parameters[0]?.name.replace(/\.?[^.]*$/, "");
  const shownLayer =
    layer ?? (withWeights !== undefined && paths.includes(withWeights) ? withWeights : paths[0]) ?? null;
  useEffect(() => {
    if (layer !== null && !paths.includes(layer)) setLayer(null);
  }, [paths]);
  const recorded = snapshots.length > 0;
  const shared = { snapshots, mark: step, onStep };
  const [settings, onSettings] = useState<ChartSettings>({ axis: "step", logarithmic: false, smoothing: 0 });
  const curves = { rows, diagnoses, mark: step, onStep, settings, onSettings };

  return (
    <div class="page">
      <p class="crumbs">
        <a href={href.runs()}>Runs</a> <span aria-hidden="true">›</span>
      </p>
      <div class="page-head">
        <h1>{run.name}</h1>
        <StatusBadge status={run.status} reason={run.reason} />
        {run.reason && <span class="soft">{run.reason}</span>}
        <dl class="figures number">
          {run.best && (
            <div>
              <dt>best {title(run.best.metric)}</dt>
              <dd>
                {formatNumber(run.best.value, 4)} <span class="soft">at epoch {run.best.epoch}</span>
              </dd>
            </div>
          )}
          <div>
            <dt>epochs</dt>
            <dd>{Math.max(run.epochs, rows[rows.length - 1]?.epoch ?? 0)}</dd>
          </div>
          <div>
            <dt>steps</dt>
            <dd>{grouped(last)}</dd>
          </div>
          <div>
            <dt>time</dt>
            <dd>{formatDuration(run.seconds)}</dd>
          </div>
        </dl>
      </div>
      <StepBar name={run.name} step={step} last={last} following={chosen === null} onChoose={setChosen} />
      <div class="columns">
        <div class="column">
          <LossCurves {...curves} />
          {recorded ? (
            <>
              <GradientFlow {...shared} selected={shownLayer} onSelect={setLayer} />
              <UpdateRatios {...shared} />
              <UnitShares {...shared} />
            </>
          ) : (
            <Card title="Inside the network" id="inside">
              <p class="soft">
                Nothing of the layers was recorded {run.status === "running" ? "so far" : "in this run"}.
              </p>
            </Card>
          )}
        </div>
        <div class="column">
          <Diagnoses diagnoses={diagnoses} running={run.status === "running"} name={run.name} onStep={setChosen} />
          <OtherCurves {...curves} />
          {recorded && <Distributions {...shared} selected={shownLayer} onSelect={setLayer} />}
          <Card title="Configuration" id="configuration">
            <ConfigTable config={run.config} />
          </Card>
          <RunLog name={run.name} turn={`${run.status} ${Math.floor(last / 500)}`} checkpoints={run.checkpoints} />
        </div>
      </div>
    </div>
  );
}
