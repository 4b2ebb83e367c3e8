import { useMemo } from "preact/hooks";
import { sequential } from "../../shared/colours";
import { formatShare } from "../../shared/format";
import type { Snapshot } from "../../shared/types";
import { HeatMap } from "../charts/HeatMap";
import { Card } from "../parts";
import { heatRows, layerLabel, type SnapshotView } from "./Flow";

type Kind = "dead" | "saturated";

/** Shares of units that pass on no gradient: ReLUs that never fire, sigmoids and tanhs at their ends. */
export function UnitShares(props: SnapshotView) {
  const dead = useShares(props.snapshots, "dead");
  const saturated = useShares(props.snapshots, "saturated");
  const steps = useMemo(() => props.snapshots.map((snapshot) => snapshot.step), [props.snapshots]);
  if (dead.length + saturated.length === 0) return null;
  const both = [
    ["dead", "Dead", "no row makes them fire", dead],
    ["saturated", "Saturated", "so far at their ends that hardly any gradient passes", saturated],
  ] as const;
  return (
    <Card title="Dead and saturated units" id="units">
      {both.map(
        ([kind, name, meaning, rows]) =>
          rows.length > 0 && (
            <div key={kind}>
              <h3>
                {name} <span class="soft">({meaning})</span>
              </h3>
              <HeatMap
                name={`Share of ${kind} units of each layer over the steps`}
                summary={rows.map((row) => `${row.label} ${formatShare(row.values[row.values.length - 1])}`).join(", ")}
                rows={rows}
                steps={steps}
                colour={sequential}
                format={formatShare}
                legend={SCALE}
                mark={props.mark}
                onStep={props.onStep}
                rowHeight={26}
              />
            </div>
          ),
      )}
    </Card>
  );
}

const SCALE = {
  title: "share of the units",
  colours: Array.from({ length: 9 }, (_, k) => sequential(k / 8)),
  words: ["0 %", "50 %", "100 %"],
};

function useShares(snapshots: Snapshot[], kind: Kind) {
  return useMemo(
    () =>
      heatRows(
        snapshots,
        (snapshot) => snapshot.layers.filter((layer) => layer[kind] !== null && layer[kind] !== undefined),
        (layer) => ({ key: layer.path, label: layerLabel(layer.path, layer.layer), value: layer[kind] ?? NaN }),
      ),
    [snapshots, kind],
  );
}
