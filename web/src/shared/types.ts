// The JSON that Python and the browser exchange. One declaration for the app and for the self-contained page.

/** A number, or one that JSON cannot write. */
export type Num = number | "NaN" | "Infinity" | "-Infinity";

export interface Histogram {
  low: Num;
  high: Num;
  counts: number[];
}

export interface Summary {
  min: Num;
  max: Num;
  mean: Num;
  std: Num;
  norm: Num;
  /** Share of exact zeros, 0 to 1. */
  zeros: number;
  /** How many are NaN or infinite. */
  nonfinite: number;
  histogram: Histogram;
}

/** An array that came whole: row-major, flat. */
export interface FullArray {
  shape: number[];
  dtype: string;
  data: (Num | boolean)[];
}

/** An array too large to come whole: its summary, and a block-averaged image of its last two axes. */
export interface LargeArray {
  shape: number[];
  dtype: string;
  summary: Summary;
  image: { rows: number; columns: number; data: Num[] };
}

export type ArrayJson = FullArray | LargeArray;

export function isFull(array: ArrayJson): array is FullArray {
  return "data" in array;
}

// ---------------------------------------------------------------------------------------------- explanation

export interface ExplanationNode {
  id: number;
  op: string;
  inputs: number[];
  shape: number[];
  dtype: string;
  name: string;
  role: "parameter" | "input" | "state" | "constant" | "frozen" | "";
  module: string;
  layer: string;
  file: string;
  line: number;
  source: string;
  /** The rule of the derivative as text, such as "dA = dy · Bᵀ, dB = Aᵀ · dy". */
  rule: string;
  value: ArrayJson;
  /** d loss / d this node. */
  gradient: ArrayJson | null;
  /** What this node hands to each of its inputs: upstream × local derivative. */
  downstream: { to: number; value: ArrayJson; local?: ArrayJson | null }[];
  /** True: these bits are the compiled step's; false: computed again for the view. */
  observed: boolean;
}

export interface StoryTerm {
  name: string;
  symbol: string;
  formula: string;
  axes: string[];
  value: ArrayJson;
}

export type StoryKind = "neurons" | "convolution" | "recurrent" | "attention" | "normalisation" | "activation" | "loss";

export interface Story {
  kind: StoryKind;
  terms: StoryTerm[];
}

export interface ExplanationLayer {
  path: string;
  layer: string;
  call: number;
  inputs: number[];
  output: number;
  nodes: number[];
  parameters: string[];
  story: Story | null;
}

export interface LossChange {
  predicted: Num;
  actual: Num;
}

export interface ExplanationParameter {
  name: string;
  node: number;
  value: ArrayJson;
  gradient: ArrayJson | null;
  update: ArrayJson | null;
  state: { name: string; before: ArrayJson; after: ArrayJson }[];
  terms: { name: string; symbol: string; formula: string; value: ArrayJson }[];
  loss_change: LossChange | null;
}

export interface Explanation {
  format: string;
  engine: string;
  step: number | null;
  rows: number | null;
  loss: Num;
  model: string;
  optimizer: string | null;
  loss_change: LossChange | null;
  nodes: ExplanationNode[];
  layers: ExplanationLayer[];
  parameters: ExplanationParameter[];
  program: string;
}

export interface Why {
  name: string;
  what: string;
  value: Num;
  upstream: Num | null;
  local: Num | null;
  share: number | null;
  text: string;
  node: number;
  index: number[];
  children: Why[];
  rest: { count: number; value: Num } | null;
}

// ----------------------------------------------------------------------------------------------------- runs

export type Status = "running" | "finished" | "stopped" | "interrupted" | "failed" | "damaged";

export interface RunSummary {
  name: string;
  status: Status;
  reason: string;
  started: string | null;
  seconds: number;
  epochs: number;
  best: { metric: string; value: Num; step: number; epoch: number } | null;
}

export interface RunDetail extends RunSummary {
  config: Record<string, unknown>;
  monitor: string;
  mode: "min" | "max";
  checkpoints: { step: number; best: boolean }[];
}

/** One line of a run's history: step, epoch, and whatever was measured there. null stands for NaN. */
export interface HistoryRow {
  step: number;
  epoch: number;
  [metric: string]: Num | null;
}

export type Stats = Summary;

export interface LayerSnapshot {
  path: string;
  layer: string;
  output: Stats | null;
  gradient: Stats | null;
  dead: number | null;
  saturated: number | null;
}

export interface ParameterSnapshot {
  name: string;
  value: Stats | null;
  gradient: Stats | null;
  update: Stats | null;
  /** ‖Δw‖ / ‖w‖ */
  ratio: Num | null;
}

export interface Snapshot {
  step: number;
  epoch: number;
  layers: LayerSnapshot[];
  parameters: ParameterSnapshot[];
  learning_rate: Num | null;
  loss: Num | null;
  gradient_norm: Num | null;
}

export interface Diagnosis {
  step: number;
  epoch: number;
  kind: string;
  severity: "error" | "warning" | "note";
  where: string;
  message: string;
  evidence: string[];
  remedy: string;
}

// ----------------------------------------------------------------------------------------------- playground

export type Activation = "tanh" | "relu" | "sigmoid" | "gelu";

export interface PlaygroundOptions {
  dataset: string;
  own?: { x: number[]; y: number[]; target: number[] };
  noise: number;
  rows: number;
  features: string[];
  layers: number[];
  activation: Activation;
  optimizer: "sgd" | "momentum" | "adam";
  learning_rate: number;
  regularisation: number;
  batch: number;
  seed: number;
}

export interface PlaygroundUnit {
  weights: Num[];
  bias: Num;
  weight_gradients: Num[];
  bias_gradient: Num;
  /** Δw of the step just made. */
  weight_updates: Num[];
  bias_update: Num;
  /** 20 × 20 outputs over the plane, row-major, y from +6 down to −6. */
  map: Num[];
  slope: Num;
  error: Num;
  dead: boolean;
}

export interface PlaygroundState {
  step: number;
  epoch: number;
  loss: Num;
  test_loss: Num;
  size: number;
  boundary: Num[];
  layers: { units: PlaygroundUnit[] }[];
  batch: number[];
  explanation?: Explanation;
}

export type Point = [x: number, y: number, label: number];

export interface Playground {
  id: string;
  data: {
    task?: "classification" | "regression";
    points: Point[];
    test: Point[];
    /** Of one's own columns: which values lie at the edges of the plane, −6 and +6 (of the target: at 0 and 1). */
    scale?: Record<"x" | "y" | "target", [low: number, high: number]> | null;
  };
  state: PlaygroundState;
}
