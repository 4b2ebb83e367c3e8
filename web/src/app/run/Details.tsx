import { grouped } from "../../shared/format";
import type { RunDetail } from "../../shared/types";
import { api } from "../../shared/api";
import { Card, Failure, useAnswer } from "../parts";
import { href } from "../route";

/** The configuration as a list of paths and values: what was left at its default is left out. */
export function ConfigTable({ config }: { config: Record<string, unknown> }) {
  const entries = flattened(config).filter(([, value]) => value !== null && value !== "[]" && value !== "{}");
  return (
    <div class="scroll config" tabIndex={0} role="region" aria-label="All that was configured">
      <table>
        <tbody>
          {entries.map(([path, value]) => (
            <tr key={path}>
              <th scope="row">{path}</th>
              <td class="number">{value}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function flattened(value: unknown, path = ""): [string, string | null][] {
  if (value === null || value === undefined) return [[path, null]];
  if (typeof value !== "object") return [[path, String(value)]];
  if (Array.isArray(value)) {
    const text = JSON.stringify(value);
    return [[path, text.length > 200 ? `${grouped(value.length)} entries` : text]];
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return [[path, "{}"]];
  return entries.flatMap(([name, inner]) => flattened(inner, path ? `${path}.${name}` : name));
}

/** Lines that the run wrote for people, and its checkpoints. Read again whenever `turn` changes. */
export function RunLog(props: { name: string; turn: string; checkpoints: RunDetail["checkpoints"] }) {
  const { value, failure } = useAnswer(() => api.log(props.name), [props.name, props.turn]);
  return (
    <Card title="Log" id="log">
      {failure && <Failure message={failure} />}
      <pre class="log" tabIndex={0} role="region" aria-label="Lines of the log">
        {value?.lines.join("\n") ?? ""}
      </pre>
      {props.checkpoints.length > 0 && (
        <p class="soft">
          Checkpoints:{" "}
          {props.checkpoints.map(({ step, best }, place) => (
            <span key={step}>
              {place > 0 && ", "}
              {step === 0 ? (
                "the beginning"
              ) : (
                <a href={href.step(props.name, step)} class="number">
                  step {grouped(step)}
                </a>
              )}
              {best && " (best)"}
            </span>
          ))}
        </p>
      )}
    </Card>
  );
}
