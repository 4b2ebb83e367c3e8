// What is drawn: the nodes of an explanation gathered into columns from left to right, and what feeds what.
//
// A layer is a column, and so is what joins several of them (the sum of a residual connection, say). An activation goes
// with the layer before it. What comes after the last layer is the loss.

import type { Explanation, ExplanationLayer, ExplanationNode, ExplanationParameter, StoryTerm } from "../shared/types";
import { fitsUnrolled } from "./Unrolled";
import { isBatched, shapeOfRow, sizeOf } from "./values";

export type ColumnKind = "units" | "picture" | "loss";

export interface Column {
  number: number;
  title: string;
  subtitle: string;
  kind: ColumnKind;
  layers: ExplanationLayer[];
  nodes: number[];
  /** The node whose value leaves the column, and the weighted sum before its activation. */
  output: number;
  sum: number;
  /** The weight matrix (units × inputs) and the bias of a layer of neurons. */
  weight: ExplanationParameter | null;
  /** The node that the weights multiply: the output of the column before, or a part or another shape of it. */
  input: number;
  inputs: number;
  bias: ExplanationParameter | null;
  parameters: ExplanationParameter[];
  from: number[];
  /** Shape of the output for one row, and how many units that is. */
  shape: number[];
  units: number;
  /** Over how many steps of time a recurrent layer is drawn unrolled; 0: it is not. */
  steps: number;
}

export interface Scene {
  columns: Column[];
  /** Column of each node; undefined for constants that nothing uses. */
  columnOf: Map<number, Column>;
  nodes: Map<number, ExplanationNode>;
  consumers: Map<number, number[]>;
  /** The last computed node: the loss. */
  loss: number;
  target: ExplanationNode | null;
}

export const MOST_UNITS = 16;

const LAYOUT = new Set(["reshape", "transpose", "broadcast", "cast", "alias", "slice", "pad", "flip", "stop_gradient"]);
const CONTRACTIONS = new Set(["matmul", "convolve", "scan"]);

export function buildScene(explanation: Explanation): Scene {
  return new Builder(explanation).scene();
}

class Builder {
  private readonly nodes: Map<number, ExplanationNode>;
  private readonly consumers = new Map<number, number[]>();
  private readonly layerOf = new Map<number, ExplanationLayer>();
  private readonly columns: Column[] = [];
  private readonly columnOf = new Map<number, Column>();
  private readonly columnOfLayer = new Map<ExplanationLayer, Column>();
  private readonly feedsModule = new Set<number>();
  private readonly rows: number | null;
  private lossLayer: ExplanationLayer | null = null;

  constructor(private readonly explanation: Explanation) {
    this.rows = explanation.rows;
    this.nodes = new Map(explanation.nodes.map((node) => [node.id, node]));
    for (const node of explanation.nodes) {
      for (const input of node.inputs) {
        const list = this.consumers.get(input);
        if (list) list.push(node.id);
        else this.consumers.set(input, [node.id]);
      }
    }
    const layers = explanation.layers.length > 0 ? explanation.layers : layersOf(explanation.nodes, this.consumers);
    for (const layer of layers) {
      if (layer.story?.kind === "loss") this.lossLayer = layer;
      else if (this.isDrawnWhole(layer)) for (const id of layer.nodes) this.layerOf.set(id, layer);
    }
    this.adoptNodes(layers);
    for (const node of [...explanation.nodes].reverse()) {
      const inside = !this.isOfLoss(node) && (node.layer !== "" || this.layerOf.has(node.id));
      if (!inside && !this.feedsModule.has(node.id)) continue;
      for (const input of node.inputs) this.feedsModule.add(input);
    }
  }

  scene(): Scene {
    const { nodes } = this.explanation;
    for (const node of nodes) {
      if (node.role === "input" && this.feedsModule.has(node.id)) this.add(node, node.name || "input", "input");
    }
    const computed = nodes.filter((node) => isComputed(node));
    for (const node of computed) this.place(node);
    const loss = computed.at(-1) ?? nodes.at(-1);
    const last = this.lossColumn(loss);
    for (const node of [...nodes].reverse()) this.placeWithConsumer(node);
    this.link(last);
    const targets = nodes.filter((node) => node.role === "input" && !this.feedsModule.has(node.id));
    return {
      columns: this.columns,
      columnOf: this.columnOf,
      nodes: this.nodes,
      consumers: this.consumers,
      loss: loss?.id ?? -1,
      target: targets[0] ?? null,
    };
  }

  /** A whole model written as one module, without layers of its own, is drawn by its products, not as one box. */
  private isDrawnWhole(layer: ExplanationLayer): boolean {
    const products = layer.nodes.filter((id) => CONTRACTIONS.has(this.nodes.get(id)?.op ?? ""));
    return layer.story !== null || layer.path !== "" || products.length < 2;
  }

  /** Nodes of a module that its layer does not name (the steps of its loop, say) go with it all the same. */
  private adoptNodes(layers: readonly ExplanationLayer[]): void {
    const modules = layers.filter((layer) => layer.path !== "" && this.isDrawnWhole(layer));
    const byPath = new Map(modules.map((layer) => [layer.path, layer]));
    for (const node of this.explanation.nodes) {
      if (this.layerOf.has(node.id) || node.layer === "" || this.isOfLoss(node)) continue;
      const parts = node.module.split(".");
      while (parts.length > 0 && !byPath.has(parts.join("."))) parts.pop();
      const layer = parts.length > 0 ? byPath.get(parts.join(".")) : undefined;
      const isWithin = layer?.story?.kind === "recurrent" || layer?.story?.kind === "attention";
      if (layer && (layer.layer === node.layer || isWithin)) this.layerOf.set(node.id, layer);
    }
  }

  private isOfLoss(node: ExplanationNode): boolean {
    return this.lossLayer?.nodes.includes(node.id) ?? false;
  }

  private add(node: ExplanationNode, title: string, subtitle: string): Column {
    const column: Column = {
      number: this.columns.length,
      title,
      subtitle,
      kind: "picture",
      layers: [],
      nodes: [node.id],
      output: node.id,
      sum: node.id,
      weight: null,
      input: -1,
      inputs: 0,
      bias: null,
      parameters: [],
      from: [],
      shape: [],
      units: 0,
      steps: 0,
    };
    this.columns.push(column);
    this.columnOf.set(node.id, column);
    return column;
  }

  private join(node: ExplanationNode, column: Column): void {
    column.nodes.push(node.id);
    this.columnOf.set(node.id, column);
  }

  private place(node: ExplanationNode): void {
    const layer = this.layerOf.get(node.id);
    if (layer) {
      this.placeInLayer(node, layer);
      return;
    }
    if (this.isOfLoss(node) || (node.layer === "" && !this.feedsModule.has(node.id))) return; // part of the loss
    const sources = new Set(node.inputs.map((id) => this.columnOf.get(id)).filter((column) => column !== undefined));
    if (sources.size === 0) return; // made of constants and parameters: goes with whoever uses it
    const [only] = sources;
    const known = node.inputs.every((id) => this.columnOf.has(id));
    const sameShape = only !== undefined && this.sameShape(only.output, node.id);
    if (sources.size === 1 && only && (LAYOUT.has(node.op) || (sameShape && !CONTRACTIONS.has(node.op)))) {
      this.join(node, only);
      if (sameShape && !LAYOUT.has(node.op) && only.nodes.length > 1) {
        only.output = node.id;
        const activation = activationOf(node, only);
        if (activation && !only.subtitle.includes(activation)) only.subtitle += ` → ${activation}`;
        if (!known && node.op === "add") only.sum = node.id; // a bias, added by hand
      }
      return;
    }
    const name = node.module.split(".").pop();
    this.add(node, name ? `${node.module} ${node.op}` : node.op, sources.size > 1 ? "joins" : node.layer);
  }

  private placeInLayer(node: ExplanationNode, layer: ExplanationLayer): void {
    const there = this.columnOfLayer.get(layer);
    if (there) {
      this.join(node, there);
      if (node.id === layer.output) this.setOutput(there, layer);
      return;
    }
    const before = layer.inputs.length === 1 ? this.columnOf.get(layer.inputs[0] as number) : undefined;
    if (before && this.isActivationOf(layer, before)) {
      this.columnOfLayer.set(layer, before);
      before.layers.push(layer);
      before.title = `${before.title} → ${layer.path}`;
      before.subtitle = `${before.subtitle} → ${layer.layer}`;
      this.join(node, before);
      if (node.id === layer.output) before.output = node.id;
      return;
    }
    const call = layer.call > 0 ? ` (call ${layer.call + 1})` : "";
    const column = this.add(node, (layer.path || layer.layer) + call, layer.path ? layer.layer : "");
    column.layers.push(layer);
    this.columnOfLayer.set(layer, column);
    if (node.id === layer.output) this.setOutput(column, layer);
  }

  private setOutput(column: Column, layer: ExplanationLayer): void {
    column.output = layer.output;
    if (column.layers[0] === layer) column.sum = layer.output;
  }

  private isActivationOf(layer: ExplanationLayer, before: Column): boolean {
    if (layer.parameters.length > 0 || before.layers.length === 0 || !this.sameShape(before.output, layer.output)) {
      return false;
    }
    if (before.layers.length > 1 || layer.inputs[0] !== before.output) return false;
    return layer.story === null || layer.story.kind === "activation";
  }

  private sameShape(a: number, b: number): boolean {
    const [first, second] = [this.nodes.get(a)?.shape, this.nodes.get(b)?.shape];
    return first !== undefined && second !== undefined && first.join() === second.join();
  }

  private lossColumn(loss: ExplanationNode | undefined): Column | null {
    if (!loss) return null;
    const there = this.columnOf.get(loss.id);
    const column = there ?? this.add(loss, "loss", "");
    column.kind = "loss";
    if (this.lossLayer) column.layers.push(this.lossLayer);
    for (const node of this.explanation.nodes) {
      if (isComputed(node) && !this.columnOf.has(node.id) && !this.feedsModule.has(node.id)) this.join(node, column);
    }
    column.nodes.sort((a, b) => a - b);
    return column;
  }

  private placeWithConsumer(node: ExplanationNode): void {
    if (this.columnOf.has(node.id)) return;
    const columns = (this.consumers.get(node.id) ?? [])
      .map((id) => this.columnOf.get(id))
      .filter((c) => c !== undefined);
    const first = columns.sort((a, b) => a.number - b.number)[0];
    if (!first) return;
    this.columnOf.set(node.id, first);
    if (isComputed(node)) first.nodes.unshift(node.id);
  }

  private link(last: Column | null): void {
    const byNode = new Map(this.explanation.parameters.map((parameter) => [parameter.node, parameter]));
    for (const column of this.columns) {
      const inside = new Set(column.nodes);
      const from = new Set<number>();
      const parameters = new Set<ExplanationParameter>();
      for (const id of column.nodes) {
        for (const input of this.nodes.get(id)?.inputs ?? []) {
          const parameter = byNode.get(input);
          if (parameter) parameters.add(parameter);
          const source = this.columnOf.get(input);
          if (source && source !== column && !inside.has(input) && !parameter) from.add(source.number);
        }
      }
      column.from = [...from].filter((number) => number < column.number).sort((a, b) => a - b);
      column.parameters = [...parameters];
      column.shape = shapeOfRow(this.nodes.get(column.output)?.shape ?? [], this.rows);
      column.units = sizeOf(column.shape);
      const states = timeTerm(column, "value");
      if (states) {
        const [steps = 0, units = 0] = [states.value.shape[0], states.value.shape.at(-1)];
        if (fitsUnrolled(steps, units)) column.steps = steps;
      } else if (column !== last && this.isUnits(column)) column.kind = "units";
      this.findWeight(column);
    }
  }

  private isUnits(column: Column): boolean {
    const shape = this.nodes.get(column.output)?.shape ?? [];
    const one = column.shape.length === 1 || (column.shape.length === 0 && isBatched(shape, this.rows));
    return one && column.units <= MOST_UNITS && "data" in (this.nodes.get(column.output)?.value ?? {});
  }

  private findWeight(column: Column): void {
    const products = column.nodes.filter((id) => this.nodes.get(id)?.op === "matmul");
    const input = this.nodes.get(this.nodes.get(products[0] ?? -1)?.inputs[0] ?? -1);
    if (column.from.length !== 1 || products.length !== 1 || column.shape.length !== 1 || !input) return;
    const count = input.shape.at(-1) ?? 0;
    column.weight =
      column.parameters.find(
        ({ value: { shape } }) => shape.length === 2 && shape[0] === column.units && shape[1] === count,
      ) ?? null;
    if (column.weight === null) return;
    [column.input, column.inputs] = [input.id, count];
    column.bias =
      column.parameters.find(({ value: { shape } }) => shape.length === 1 && shape[0] === column.units) ?? null;
  }
}

/** Runs of nodes of one module, for an explanation that names no layers. */
function layersOf(nodes: readonly ExplanationNode[], consumers: Map<number, number[]>): ExplanationLayer[] {
  const layers: ExplanationLayer[] = [];
  for (const node of nodes) {
    if (!isComputed(node) || node.layer === "") continue;
    let layer = layers.at(-1);
    if (!layer || layer.path !== node.module || layer.layer !== node.layer) {
      layer = {
        path: node.module,
        layer: node.layer,
        call: 0,
        inputs: [],
        output: node.id,
        nodes: [],
        parameters: [],
        story: null,
      };
      layers.push(layer);
    }
    layer.nodes.push(node.id);
  }
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const layer of layers) {
    const inside = new Set(layer.nodes);
    for (const id of layer.nodes) {
      const leaves = (consumers.get(id) ?? []).some((consumer) => !inside.has(consumer));
      if (leaves) layer.output = id;
      for (const input of byId.get(id)?.inputs ?? []) {
        const source = byId.get(input);
        if (!source || inside.has(input) || layer.inputs.includes(input)) continue;
        if (source.role === "parameter") layer.parameters.push(source.name);
        else if (isComputed(source) || source.role === "input") layer.inputs.push(input);
      }
    }
  }
  return layers;
}

const ACTIVATIONS = ["sigmoid", "tanh", "softplus"];

/** What a function between two layers is called. */
function activationOf(node: ExplanationNode, column: Column): string {
  if (ACTIVATIONS.includes(node.op)) return node.op;
  const told = term(column, "activation")?.formula ?? "";
  return node.op === "where" && told.includes("max(0, z)") ? "ReLU" : "";
}

export function isComputed(node: ExplanationNode): boolean {
  return node.role === "" && node.inputs.length > 0;
}

/** A term of a column's story by the beginning of its name. */
export function term(column: Column, ...names: string[]): StoryTerm | null {
  for (const layer of column.layers) {
    for (const candidate of layer.story?.terms ?? []) if (names.includes(candidate.name)) return candidate;
  }
  return null;
}

/** The states of a recurrent layer over time, or the errors that come back through time. */
export function timeTerm(column: Column, shown: "value" | "gradient" | "update"): StoryTerm | null {
  if (column.layers[0]?.story?.kind !== "recurrent") return null;
  const overTime = terms(column).filter(
    ({ axes, value }) => axes[0] === "step" && axes.at(-1) === "unit" && "data" in value,
  );
  const isError = ({ name }: StoryTerm): boolean => /error|gradient|δ/.test(name);
  if (shown === "gradient")
    return overTime.find(({ name }) => name === "error of hidden") ?? overTime.find(isError) ?? null;
  const values = overTime.filter((each) => !isError(each));
  return values.find(({ symbol }) => symbol === "h") ?? values[0] ?? null;
}

/** Terms of all layers of a column. */
export function terms(column: Column): StoryTerm[] {
  const stories = column.layers.map((layer) => layer.story).filter((story) => story !== null);
  // A layer of neurons tells of its activation already.
  const [first] = stories;
  const told = first?.kind === "neurons" && first.terms.some(({ name }) => name === "activation");
  return (told ? [first] : stories).flatMap((story) => story.terms);
}
