import { useMemo, useState } from "preact/hooks";
import type { HistoryRow } from "../../shared/types";
import { AXIS_NAMES, ChartControls, type ChartSettings } from "../charts/Controls";
import { LineChart } from "../charts/LineChart";
import { metricNames, points, type Series, title } from "../charts/series";
import { go, href } from "../route";

/** The curves of several runs in one chart: a colour for each run; validation dashed. */
export function Compare(props: { names: string[]; histories: Record<string, HistoryRow[]>; all: string[] }) {
  const { names, histories, all } = props;
  const [settings, setSettings] = useState<ChartSettings>({ axis: "step", logarithmic: false, smoothing: 0 });
  const [wanted, setWanted] = useState<string[] | null>(null);
  const metrics = useMemo(() => {
    const found = new Set(names.flatMap((name) => metricNames(histories[name] ?? [])));
    return [...found];
  }, [names.join("\n"), histories]);
  const usual = metrics.filter((metric) => metric === "loss" || metric === "validation_loss");
  const chosen = (wanted ?? (usual.length ? usual : metrics.slice(0, 1))).filter((metric) => metrics.includes(metric));

  const series = useMemo(
    () =>
      names
        .flatMap((name) =>
          chosen.map((metric): Series => {
            const rows = histories[name] ?? [];
            return {
              key: `${name} ${metric}`,
              label: `${name}: ${title(metric)}`,
              colour: all.indexOf(name),
              dashed: chosen.length > 1 && metric !== chosen[0],
              faint: metric.startsWith("batch_"),
              ...points(rows, metric, settings.axis),
            };
          }),
        )
        .filter((series) => series.xs.length > 0),
    [names.join("\n"), chosen.join("\n"), histories, settings.axis],
  );

  return (
    <>
      <div class="tools spread">
        <fieldset class="chips">
          <legend class="visually-hidden">What is drawn</legend>
          {metrics.map((metric) => (
            <label key={metric} class="chip">
              <input
                type="checkbox"
                checked={chosen.includes(metric)}
                onChange={() =>
                  setWanted(chosen.includes(metric) ? chosen.filter((other) => other !== metric) : [...chosen, metric])
                }
              />
              {title(metric)}
            </label>
          ))}
        </fieldset>
        <ChartControls settings={settings} onChange={setSettings} />
      </div>
      <LineChart
        name={chosen.map(title).join(", ")}
        series={series}
        xLabel={AXIS_NAMES[settings.axis]}
        logarithmic={settings.logarithmic}
        smoothing={settings.smoothing}
        height={340}
        onStep={(step, open) => {
          if (open && names.length === 1) go(href.step(names[0] as string, step));
        }}
      />
    </>
  );
}
