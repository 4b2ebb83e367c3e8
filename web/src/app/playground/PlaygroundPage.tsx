import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api } from "../../shared/api";
import { formatNumber, toNumber } from "../../shared/format";
import type { Explanation, PlaygroundOptions, PlaygroundState, Point } from "../../shared/types";
import { ExplanationViewer } from "../../viewer/ExplanationViewer";
import { LineChart } from "../charts/LineChart";
import type { Series } from "../charts/series";
import { Card, Choice, Failure, Loading, messageOf, useAnswer, useWidth } from "../parts";
import { Boundary } from "./FieldMap";
import { NetworkView, type Place } from "./NetworkView";
import { type Quantity, START } from "./options";
import { DataSettings, TrainingSettings } from "./Settings";
import { type Losses, usePlayground } from "./session";
import { Transport } from "./Transport";
import { UnitPanel } from "./UnitPanel";

/** A small network that learns points in the plane: forwards, backwards, with its gradients. */
export function PlaygroundPage() {
  const [options, setOptions] = useState<PlaygroundOptions>(START);
  const [speed, setSpeed] = useState(10);
  const [quantity, setQuantity] = useState<Quantity>("weights");
  const [focus, setFocus] = useState<Place | null>(null);
  const [showTest, setShowTest] = useState(false);
  const datasets = useAnswer(api.datasets, []);
  const session = usePlayground(options, speed);
  const explainer = useExplainer(session.explain);
  const { state, data } = session;
  const change = (part: Partial<PlaygroundOptions>): void =>
    setOptions((known) => {
      const { own, ...rest } = { ...known, ...part };
      return rest.dataset === "own" && own ? { ...rest, own } : rest;
    });

  return (
    <div class="page playground">
      <h1 class="visually-hidden">Playground</h1>
      <Transport
        session={session}
        speed={speed}
        onSpeed={setSpeed}
        explaining={explainer.busy}
        onExplain={explainer.explain}
      />
      {(session.failure ?? explainer.failure ?? datasets.failure) && (
        <Failure message={(session.failure ?? explainer.failure ?? datasets.failure) as string} />
      )}
      {!state && !session.failure && <Loading what="The network is made …" />}
      <div class="playground-grid">
        <Card title="Settings" id="settings">
          <DataSettings options={options} datasets={datasets.value?.datasets ?? []} onChange={change} />
          <TrainingSettings options={options} onChange={change} />
        </Card>
        {state && data && (
          <>
            <Card
              title="Network"
              id="network"
              tools={
                <Choice
                  label="What the connections show"
                  value={quantity}
                  options={[
                    ["weights", "Weights"],
                    ["gradients", "Gradients"],
                    ["updates", "Updates"],
                  ]}
                  onChange={setQuantity}
                />
              }
            >
              <NetworkView
                options={options}
                state={state}
                quantity={quantity}
                focus={focus}
                onFocus={setFocus}
                onChange={change}
              />
              <UnitPanel options={options} state={state} place={focus} />
            </Card>
            <Card title="Output" id="output">
              <Output state={state} data={data} showTest={showTest} onShowTest={setShowTest} />
              <LossChart losses={session.losses} step={state.step} />
            </Card>
          </>
        )}
      </div>
      {explainer.explanation && (
        <ExplanationDialog explanation={explainer.explanation} onClose={() => explainer.close()} />
      )}
    </div>
  );
}

function useExplainer(ask: () => Promise<Explanation>) {
  const [explanation, setExplanation] = useState<Explanation | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const explain = (): void => {
    setBusy(true);
    setFailure(null);
    ask()
      .then(setExplanation, (error: unknown) => setFailure(messageOf(error)))
      .finally(() => setBusy(false));
  };
  return { explanation, failure, busy, explain, close: () => setExplanation(null) };
}

function Output(props: {
  state: PlaygroundState;
  data: { task?: string; points: Point[]; test: Point[] };
  showTest: boolean;
  onShowTest: (on: boolean) => void;
}) {
  const { state, data } = props;
  const [holder, width] = useWidth<HTMLDivElement>();
  const boundary = useMemo(() => state.boundary.map(toNumber), [state]);
  const classes = data.task !== "regression";
  const label =
    `Answers of the network over the plane at step ${state.step}, with ${data.points.length} training points. ` +
    `Loss ${formatNumber(state.loss)}, test loss ${formatNumber(state.test_loss)}.`;
  return (
    <>
      <dl class="figures number">
        <div>
          <dt>training loss</dt>
          <dd>{formatNumber(state.loss)}</dd>
        </div>
        <div>
          <dt>test loss</dt>
          <dd>{formatNumber(state.test_loss)}</dd>
        </div>
      </dl>
      <div ref={holder} class="boundary-holder">
        <Boundary
          boundary={boundary}
          points={data.points}
          test={data.test}
          showTest={props.showTest}
          batch={state.batch}
          size={Math.min(width, 560, Math.max(260, Math.round(innerHeight * 0.48)))}
          label={label}
        />
      </div>
      <div class="tools spread">
        <span class="key">
          <span class="dot blue" aria-hidden="true" /> {classes ? "class 0" : "low"}{" "}
          <span class="dot orange" aria-hidden="true" /> {classes ? "class 1" : "high"}{" "}
          <span class="dot ring" aria-hidden="true" /> in this batch
        </span>
        <label class="check">
          <input
            type="checkbox"
            checked={props.showTest}
            onChange={(event) => props.onShowTest(event.currentTarget.checked)}
          />
          Test points
        </label>
      </div>
    </>
  );
}

function LossChart({ losses, step }: { losses: Losses[]; step: number }) {
  const series = useMemo((): Series[] => {
    const steps = losses.map((loss) => loss.step);
    const line = (key: string, label: string, colour: number, ys: number[]): Series => ({
      key,
      label,
      colour,
      dashed: key === "test",
      faint: false,
      xs: steps,
      ys: ys.map((y) => (Number.isFinite(y) ? y : null)),
      steps,
    });
    return [
      line(
        "loss",
        "training loss",
        0,
        losses.map((loss) => loss.loss),
      ),
      line(
        "test",
        "test loss",
        1,
        losses.map((loss) => loss.test),
      ),
    ];
  }, [losses]);
  return <LineChart name="Loss" series={series} xLabel="step" height={170} mark={step} />;
}

/** The explanation over the playground. A dialog keeps the focus inside, and gives it back. */
function ExplanationDialog({ explanation, onClose }: { explanation: Explanation; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class="explained" aria-labelledby="explanation-title" onClose={onClose}>
      <div class="dialog-head">
        <h2 id="explanation-title">Step {explanation.step ?? ""} explained</h2>
        <button onClick={() => dialog.current?.close()}>Close</button>
      </div>
      <ExplanationViewer explanation={explanation} />
    </dialog>
  );
}
