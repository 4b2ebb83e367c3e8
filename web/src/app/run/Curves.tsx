import { useMemo } from "preact/hooks";
import type { Diagnosis, HistoryRow } from "../../shared/types";
import { AXIS_NAMES, ChartControls, type ChartSettings } from "../charts/Controls";
import { LineChart } from "../charts/LineChart";
import { family, metricNames, places, points, type Series, title } from "../charts/series";
import { Card } from "../parts";

export interface CurvesProps {
  rows: HistoryRow[];
  diagnoses: Diagnosis[];
  mark: number;
  onStep: (step: number, open: boolean) => void;
  settings: ChartSettings;
  onSettings: (settings: ChartSettings) => void;
}

/** The losses of training, validation and batches in one chart. */
export function LossCurves(props: CurvesProps) {
  const { rows, diagnoses, settings } = props;
  const series = useFamilies(props).get("loss");
  const place = useMemo(() => places(rows, settings.axis), [rows, settings.axis]);
  const notes = useMemo(() => diagnoses.map((diagnosis) => place(diagnosis.step)), [diagnoses, place]);
  return (
    <Card
      title="Loss"
      id="curves"
      tools={<ChartControls settings={settings} onChange={props.onSettings} />}
      hint="Point at a curve to move the step; click to see it explained. Drag to zoom, double-click to zoom out."
    >
      {series ? (
        <LineChart
          name="Loss"
          series={series}
          xLabel={AXIS_NAMES[settings.axis]}
          logarithmic={settings.logarithmic}
          smoothing={settings.smoothing}
          height={320}
          mark={place(props.mark)}
          notes={notes}
          onStep={props.onStep}
        />
      ) : (
        <p class="soft">Nothing has been measured yet.</p>
      )}
    </Card>
  );
}

/** Whatever else was measured, a small chart each. */
export function OtherCurves(props: CurvesProps) {
  const { rows, settings } = props;
  const others = [...useFamilies(props).entries()].filter(([name]) => name !== "loss");
  const place = useMemo(() => places(rows, settings.axis), [rows, settings.axis]);
  if (others.length === 0) return null;
  return (
    <Card title={sentence(others.map(([name]) => title(name)).join(", "))} id="metrics">
      <div class="small-charts">
        {others.map(([name, series]) => (
          <LineChart
            key={name}
            name={sentence(title(name))}
            series={series}
            xLabel={AXIS_NAMES[settings.axis]}
            smoothing={settings.smoothing}
            height={170}
            mark={place(props.mark)}
            onStep={props.onStep}
          />
        ))}
      </div>
    </Card>
  );
}

/** The series by what they measure. What is faint comes first, so that it does not cover the others. */
function useFamilies({ rows, settings }: CurvesProps): Map<string, Series[]> {
  return useMemo(() => {
    const groups = new Map<string, Series[]>();
    for (const metric of metricNames(rows)) {
      const group = groups.get(family(metric)) ?? [];
      group.push({
        key: metric,
        label: title(metric),
        colour: metric.startsWith("validation") ? 1 : metric.startsWith("batch_") ? 6 : 0,
        dashed: metric.startsWith("validation"),
        faint: metric.startsWith("batch_"),
        ...points(rows, metric, settings.axis),
      });
      groups.set(family(metric), group);
    }
    for (const group of groups.values()) group.sort((a, b) => Number(b.faint) - Number(a.faint));
    return groups;
  }, [rows, settings.axis]);
}

const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
