// The slider through the step, its buttons, and what else the reader may choose.

import type { Explanation } from "../shared/types";
import type { Choice, Showing } from "./state";
import { PHASES, type Step } from "./steps";

interface Props {
  explanation: Explanation;
  steps: Step[];
  choice: Choice;
  playing: boolean;
  onStep: (step: number) => void;
  onPlay: () => void;
  onRow: (row: number) => void;
  onShowing: (showing: Showing) => void;
}

const SHOWINGS: [Showing, string, string][] = [
  ["follow", "Auto", "Colours follow the step: values forward, gradients backward, changes in the update"],
  ["value", "Values", "Colours show values and weights"],
  ["gradient", "Gradients", "Colours show gradients"],
  ["update", "Δw", "Colours show the changes of the weights"],
];

export function Controls({ explanation, steps, choice, playing, onStep, onPlay, onRow, onShowing }: Props) {
  const last = steps.length - 1;
  const step = steps[choice.step] as Step;
  const phase = PHASES.find((each) => each.phase === step.phase)?.title ?? "";
  return (
    <div class="controls">
      <div class="phases" role="group" aria-label="Parts of the step">
        {PHASES.map(({ phase: name, title }) => {
          const first = steps.findIndex((each) => each.phase === name);
          const count = steps.filter((each) => each.phase === name).length;
          if (first < 0) return null;
          return (
            <button
              key={name}
              type="button"
              class={name}
              aria-pressed={step.phase === name}
              title={`${title}: ${count} ${count === 1 ? "step" : "steps"}`}
              onClick={() => onStep(first)}
            >
              {title}
            </button>
          );
        })}
      </div>
      <div class="walk">
        <button
          type="button"
          onClick={() => onStep(choice.step - 1)}
          disabled={choice.step === 0}
          aria-label="One operation back"
        >
          ◀
        </button>
        <button type="button" onClick={onPlay} aria-label={playing ? "Pause" : "Play"} class="play">
          {playing ? "❚❚" : "►"}
        </button>
        <button
          type="button"
          onClick={() => onStep(choice.step + 1)}
          disabled={choice.step === last}
          aria-label="One operation on"
        >
          ▶
        </button>
        <input
          type="range"
          min={0}
          max={last}
          value={choice.step}
          aria-label="Step"
          aria-valuetext={`${phase}: ${step.title}, ${choice.step} of ${last}`}
          onInput={(event) => onStep(Number(event.currentTarget.value))}
        />
        <output class="number">
          {choice.step} / {last}
        </output>
      </div>
      <div class="options">
        <div class="switch" role="group" aria-label="Colours show">
          {SHOWINGS.map(([showing, name, hint]) => (
            <button
              key={showing}
              type="button"
              aria-pressed={choice.showing === showing}
              title={hint}
              onClick={() => onShowing(showing)}
            >
              {name}
            </button>
          ))}
        </div>
        {explanation.rows !== null && explanation.rows > 1 && (
          <label class="row-pick">
            Row{" "}
            <input
              type="number"
              min={0}
              max={explanation.rows - 1}
              value={choice.row}
              onChange={(event) => onRow(Math.trunc(Number(event.currentTarget.value)) || 0)}
            />{" "}
            of {explanation.rows}
          </label>
        )}
      </div>
    </div>
  );
}
