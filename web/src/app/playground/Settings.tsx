import { useState } from "preact/hooks";
import { formatNumber } from "../../shared/format";
import type { PlaygroundOptions } from "../../shared/types";
import { chosenColumns, readTable, type Table } from "./csv";
import { ACTIVATIONS, LEARNING_RATES, OPTIMIZERS, REGULARISATIONS } from "./options";

interface SettingsProps {
  options: PlaygroundOptions;
  datasets: { id: string; title: string }[];
  onChange: (change: Partial<PlaygroundOptions>) => void;
}

/** What to learn. */
export function DataSettings({ options, datasets, onChange }: SettingsProps) {
  const own = options.dataset === "own";
  const [pasting, setPasting] = useState(false);
  return (
    <div class="settings">
      <label class="field stacked">
        Data
        <select
          value={pasting || own ? "own" : options.dataset}
          onChange={(event) => {
            const dataset = event.currentTarget.value;
            setPasting(dataset === "own");
            if (dataset !== "own") onChange({ dataset });
          }}
        >
          {datasets.map(({ id, title }) => (
            <option key={id} value={id}>
              {title}
            </option>
          ))}
          <option value="own">My own two columns …</option>
        </select>
      </label>
      {(pasting || own) && (
        <OwnColumns
          onRead={(columns) => {
            setPasting(false);
            onChange({ dataset: "own", own: columns });
          }}
        />
      )}
      {!own && !pasting && (
        <>
          <Slider
            label="Noise"
            value={options.noise}
            min={0}
            max={1}
            step={0.05}
            onChange={(noise) => onChange({ noise })}
          />
          <Slider
            label="Points"
            value={options.rows}
            min={20}
            max={1000}
            step={20}
            onChange={(rows) => onChange({ rows })}
          />
        </>
      )}
      <Slider
        label="Batch"
        value={options.batch}
        min={1}
        max={100}
        step={1}
        onChange={(batch) => onChange({ batch })}
      />
      <label class="field stacked">
        Seed
        <input
          type="number"
          class="number"
          min="0"
          max="999999"
          value={options.seed}
          onChange={(event) => {
            const seed = Math.round(event.currentTarget.valueAsNumber);
            if (seed >= 0) onChange({ seed });
          }}
        />
      </label>
    </div>
  );
}

/** How to learn it. */
export function TrainingSettings({ options, onChange }: Omit<SettingsProps, "datasets">) {
  return (
    <div class="settings">
      <Select
        label="Activation"
        value={options.activation}
        options={ACTIVATIONS}
        onChange={(activation) => onChange({ activation })}
      />
      <Select
        label="Optimiser"
        value={options.optimizer}
        options={OPTIMIZERS}
        onChange={(optimizer) => onChange({ optimizer })}
      />
      <Select
        label="Learning rate"
        value={String(options.learning_rate)}
        options={LEARNING_RATES.map((rate) => [String(rate), formatNumber(rate)] as const)}
        onChange={(rate) => onChange({ learning_rate: Number(rate) })}
      />
      <Select
        label="Weight decay"
        value={String(options.regularisation)}
        options={REGULARISATIONS.map((rate) => [String(rate), rate === 0 ? "none" : formatNumber(rate)] as const)}
        onChange={(rate) => onChange({ regularisation: Number(rate) })}
      />
    </div>
  );
}

function Select<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  return (
    <label class="field stacked">
      {props.label}
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value as T)}>
        {props.options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

function Slider(props: {
  label: string;
  value: number;
  min: number;
  max: number;
  step: number;
  onChange: (value: number) => void;
}) {
  return (
    <label class="field stacked">
      <span class="between">
        {props.label} <output class="number">{props.value}</output>
      </span>
      <input
        type="range"
        min={props.min}
        max={props.max}
        step={props.step}
        value={props.value}
        onInput={(event) => props.onChange(event.currentTarget.valueAsNumber)}
      />
    </label>
  );
}

const EXAMPLE = "x, y, target\n1.2, 0.7, yes\n0.3, 1.9, no";

/** Text pasted or a file chosen, and which of its columns are meant. Nothing leaves this machine. */
function OwnColumns({ onRead }: { onRead: (columns: NonNullable<PlaygroundOptions["own"]>) => void }) {
  const [text, setText] = useState("");
  const [columns, setColumns] = useState<[number, number, number]>([0, 1, 2]);
  const [failure, setFailure] = useState<string | null>(null);
  const table = tableOf(text);

  const read = (): void => {
    try {
      onRead(chosenColumns(readTable(text), columns));
      setFailure(null);
    } catch (error) {
      setFailure(error instanceof Error ? error.message : String(error));
    }
  };
  const update = (next: string): void => {
    setText(next);
    setFailure(null);
    const width = tableOf(next)?.names.length ?? 3;
    setColumns([0, 1, width - 1]);
  };
  return (
    <div class="own">
      <label class="field stacked">
        Paste lines of a table
        <textarea rows={5} value={text} placeholder={EXAMPLE} onInput={(event) => update(event.currentTarget.value)} />
      </label>
      <label class="field stacked">
        or choose a file
        <input
          type="file"
          accept=".csv,.tsv,.txt"
          onChange={(event) => void event.currentTarget.files?.[0]?.text().then(update)}
        />
      </label>
      {table && (
        <div class="own-columns">
          {(["across", "up", "target"] as const).map((use, place) => (
            <label class="field stacked" key={use}>
              {use}
              <select
                value={columns[place]}
                onChange={(event) => {
                  const next: [number, number, number] = [...columns];
                  next[place] = Number(event.currentTarget.value);
                  setColumns(next);
                }}
              >
                {table.names.map((name, column) => (
                  <option key={column} value={column}>
                    {name}
                  </option>
                ))}
              </select>
            </label>
          ))}
        </div>
      )}
      {failure && (
        <p class="field-error" role="alert">
          {failure}
        </p>
      )}
      <button class="primary" onClick={read}>
        Use these points
      </button>
    </div>
  );
}

function tableOf(text: string): Table | null {
  try {
    return readTable(text);
  } catch {
    return null; // said when the reader asks to use it, not at every letter typed
  }
}
