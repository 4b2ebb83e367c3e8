import { Choice } from "../parts";
import type { XAxis } from "./series";

export interface ChartSettings {
  axis: XAxis;
  logarithmic: boolean;
  smoothing: number;
}

export const AXIS_NAMES: Record<XAxis, string> = { step: "step", epoch: "epoch", time: "seconds of training" };

/** How curves are drawn: the x axis, the scale, smoothing. */
export function ChartControls(props: { settings: ChartSettings; onChange: (settings: ChartSettings) => void }) {
  const { settings, onChange } = props;
  return (
    <div class="tools">
      <Choice
        label="Horizontal axis"
        value={settings.axis}
        options={[
          ["step", "Step"],
          ["epoch", "Epoch"],
          ["time", "Time"],
        ]}
        onChange={(axis) => onChange({ ...settings, axis })}
      />
      <label class="check">
        <input
          type="checkbox"
          checked={settings.logarithmic}
          onChange={(event) => onChange({ ...settings, logarithmic: event.currentTarget.checked })}
        />
        Log scale
      </label>
      <label class="field">
        Smoothing
        <input
          type="range"
          min="0"
          max="0.98"
          step="0.02"
          value={settings.smoothing}
          onInput={(event) => onChange({ ...settings, smoothing: Number(event.currentTarget.value) })}
        />
        <output class="number">{settings.smoothing.toFixed(2)}</output>
      </label>
    </div>
  );
}
