import { useMemo } from "preact/hooks";
import { reach } from "../../shared/colours";
import { formatNumber, formatSigned, toNumber } from "../../shared/format";
import type { PlaygroundOptions, PlaygroundState } from "../../shared/types";
import { FieldMap } from "./FieldMap";
import type { Place } from "./NetworkView";

/** The numbers of one unit: slope, error, and weight, gradient and update of every connection into it. */
export function UnitPanel(props: { options: PlaygroundOptions; state: PlaygroundState; place: Place | null }) {
  const { options, state, place } = props;
  const unit = place && place.layer >= 0 ? state.layers[place.layer]?.units[place.unit] : undefined;
  const output = place !== null && place.layer === state.layers.length - 1;
  const map = useMemo(() => {
    const values = (unit?.map ?? []).map(toNumber);
    if (output) return values.map((value) => 1.6 * (value - 0.5));
    const largest = reach(values);
    return values.map((value) => (0.9 * value) / largest);
  }, [unit, output]);
  if (!unit || !place) {
    return <p class="hint">Point at a unit, or go to it with the tab key, to see its numbers.</p>;
  }
  const sources = unit.weights.map((_, k) =>
    place.layer === 0 ? (options.features[k] ?? "?") : `unit ${place.layer}.${k + 1}`,
  );
  return (
    <div class="neuron-panel">
      <FieldMap values={map} size={120} />
      <div>
        <h3>{output ? "Output" : `Unit ${place.layer + 1}.${place.unit + 1}`}</h3>
        <dl class="stats number">
          <div>
            <dt>slope f′(z), mean</dt>
            <dd>{formatNumber(unit.slope)}</dd>
          </div>
          <div>
            <dt>error |δ|, mean</dt>
            <dd>{formatNumber(unit.error)}</dd>
          </div>
        </dl>
        {unit.dead && <p class="warn">▲ Dead: its slope is 0 for every point, so no gradient passes.</p>}
      </div>
      <table class="number">
        <caption class="visually-hidden">Connections into this unit</caption>
        <thead>
          <tr>
            <th scope="col">from</th>
            <th scope="col">weight</th>
            <th scope="col">gradient</th>
            <th scope="col">update Δw</th>
          </tr>
        </thead>
        <tbody>
          {sources.map((source, k) => (
            <tr key={source}>
              <th scope="row">{source}</th>
              <td>{formatSigned(unit.weights[k])}</td>
              <td>{formatSigned(unit.weight_gradients[k])}</td>
              <td>{formatSigned(unit.weight_updates[k])}</td>
            </tr>
          ))}
          <tr>
            <th scope="row">bias</th>
            <td>{formatSigned(unit.bias)}</td>
            <td>{formatSigned(unit.bias_gradient)}</td>
            <td>{formatSigned(unit.bias_update)}</td>
          </tr>
        </tbody>
      </table>
    </div>
  );
}
