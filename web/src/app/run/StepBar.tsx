import { grouped } from "../../shared/format";
import { go, href } from "../route";

/** The step that every chart of the page marks: drawn with a slider, typed, and opened in the explorer. */
export function StepBar(props: {
  name: string;
  step: number;
  last: number;
  following: boolean;
  onChoose: (step: number | null) => void;
}) {
  const { step, last } = props;
  return (
    <form
      class="step-bar"
      aria-label="Marked step"
      onSubmit={(event) => {
        event.preventDefault();
        go(href.step(props.name, step));
      }}
    >
      <label class="field">
        Step
        <input
          type="number"
          class="number step-number"
          min={Math.min(1, last)}
          max={last}
          value={step}
          onChange={(event) => {
            const typed = Math.round(event.currentTarget.valueAsNumber);
            if (Number.isFinite(typed)) props.onChoose(Math.max(Math.min(typed, last), Math.min(1, last)));
          }}
        />
      </label>
      <input
        class="step-slider"
        type="range"
        aria-label={`Step, of ${grouped(last)}`}
        min={Math.min(1, last)}
        max={Math.max(last, 1)}
        value={step}
        onInput={(event) => props.onChoose(event.currentTarget.valueAsNumber)}
      />
      <label class="check">
        <input
          type="checkbox"
          checked={props.following}
          onChange={() => props.onChoose(props.following ? step : null)}
        />
        Newest
      </label>
      <button type="submit" class="primary" disabled={last === 0}>
        Explain step {grouped(step)}
      </button>
    </form>
  );
}
