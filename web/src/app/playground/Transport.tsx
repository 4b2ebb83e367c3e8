import { grouped } from "../../shared/format";
import { Choice } from "../parts";
import type { Session } from "./session";

const SPEEDS = [
  ["1", "1"],
  ["10", "10"],
  ["100", "100"],
] as const;

/** Play, pause, a step on, a step back, and a slider over all steps that were made. */
export function Transport(props: {
  session: Session;
  speed: number;
  onSpeed: (speed: number) => void;
  explaining: boolean;
  onExplain: () => void;
}) {
  const { session, speed } = props;
  const step = session.state?.step ?? 0;
  const idle = session.state === null;
  return (
    <div class="transport" role="group" aria-label="Steps">
      <div class="transport-buttons">
        <button
          class="wide-only"
          disabled={idle || step === 0}
          onClick={() => session.to(0)}
          aria-label="Back to the beginning"
        >
          <Icon path="M3 2h2v12H3zM14 2v12L6 8z" />
        </button>
        <button disabled={idle || step === 0} onClick={() => session.by(-1)} aria-label="One step back">
          <Icon path="M12 2v12L3 8z" />
          <span class="wide-only">Back</span>
        </button>
        <button class="primary play-button" disabled={idle} onClick={() => session.play(!session.playing)}>
          <Icon path={session.playing ? "M3 2h4v12H3zM9 2h4v12H9z" : "M3 2v12l11-6z"} />{" "}
          {session.playing ? "Pause" : "Play"}
        </button>
        <button disabled={idle} onClick={() => session.by(1)} aria-label="One step on">
          <span class="wide-only">Step</span>
          <Icon path="M4 2v12l9-6z" />
        </button>
      </div>
      <label class="field speed">
        <span class="wide-only">Steps at a time</span>
        <Choice
          label="Steps at a time while playing"
          value={String(speed) as "1" | "10" | "100"}
          options={SPEEDS}
          onChange={(value) => props.onSpeed(Number(value))}
        />
      </label>
      <label class="field step-field">
        <span>
          Step <b class="number">{grouped(step)}</b>
          <span class="soft number wide-only"> epoch {session.state?.epoch ?? 0}</span>
        </span>
        <input
          type="range"
          aria-label={`Step, of ${session.farthest} made`}
          min={0}
          max={Math.max(session.farthest, 1)}
          value={step}
          disabled={idle || session.farthest === 0}
          onInput={(event) => session.to(event.currentTarget.valueAsNumber)}
        />
      </label>
      <button
        disabled={idle || step === 0}
        aria-disabled={props.explaining}
        onClick={() => !props.explaining && props.onExplain()}
      >
        {props.explaining ? "Explaining …" : "Explain"}
        {!props.explaining && <span class="wide-only"> this step</span>}
      </button>
    </div>
  );
}

/** A sign that is drawn: not every font has those of a tape recorder. */
function Icon({ path }: { path: string }) {
  return (
    <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
      <path d={path} fill="currentColor" />
    </svg>
  );
}
