// The walk through a step of training: forward, loss, backward, update, one node or one parameter at a time.

import type { Explanation, ExplanationNode, ExplanationParameter } from "../shared/types";
import { isComputed, type Column, type Scene } from "./scene";

export type Phase = "overview" | "forward" | "loss" | "backward" | "update";

export interface Step {
  phase: Phase;
  node: ExplanationNode | null;
  parameter: ExplanationParameter | null;
  column: Column | null;
  title: string;
}

export const PHASES: { phase: Phase; title: string }[] = [
  { phase: "overview", title: "Overview" },
  { phase: "forward", title: "Forward" },
  { phase: "loss", title: "Loss" },
  { phase: "backward", title: "Backward" },
  { phase: "update", title: "Update" },
];

export function buildSteps(explanation: Explanation, scene: Scene): Step[] {
  const steps: Step[] = [{ phase: "overview", node: null, parameter: null, column: null, title: "The whole step" }];
  const forward = explanation.nodes.filter(isComputed);
  for (const node of forward) {
    const column = scene.columnOf.get(node.id) ?? null;
    const phase = column?.kind === "loss" ? "loss" : "forward";
    steps.push({ phase, node, parameter: null, column, title: `${node.op}${place(node, column)}` });
  }
  // In the drawing the loss comes after all layers, even where a part of it was computed before.
  const order: Phase[] = ["overview", "forward", "loss"];
  steps.sort((a, b) => order.indexOf(a.phase) - order.indexOf(b.phase));
  for (const node of [...forward].reverse()) {
    if (node.gradient === null) continue;
    const column = scene.columnOf.get(node.id) ?? null;
    steps.push({ phase: "backward", node, parameter: null, column, title: `∂L/∂ ${node.op}${place(node, column)}` });
  }
  for (const parameter of explanation.parameters) {
    if (parameter.update === null) continue;
    const column = scene.columns.find((candidate) => candidate.parameters.includes(parameter)) ?? null;
    const node = scene.nodes.get(parameter.node) ?? unused(parameter);
    steps.push({ phase: "update", node, parameter, column, title: parameter.name });
  }
  return steps;
}

/** A parameter that the loss does not depend on stands in no node. */
function unused({ name, value, gradient }: ExplanationParameter): ExplanationNode {
  const leaf = { op: "parameter", inputs: [], shape: value.shape, dtype: value.dtype, role: "parameter" as const };
  const place = { module: "", layer: "", file: "", line: 0, source: "", rule: "", downstream: [], observed: true };
  return { id: -1, name, value, gradient, ...leaf, ...place };
}

function place(node: ExplanationNode, column: Column | null): string {
  if (column?.kind === "loss") return "";
  return node.module ? ` · ${node.module} ${node.layer}` : "";
}

/** The first step of the next (+1) or previous (−1) column or phase. */
export function leap(steps: readonly Step[], from: number, direction: 1 | -1): number {
  const same = (a: number, b: number): boolean =>
    steps[a]?.phase === steps[b]?.phase && steps[a]?.column === steps[b]?.column;
  let to = from;
  if (direction === 1) {
    while (to < steps.length - 1 && same(to, from)) to += 1;
    return to;
  }
  if (to > 0) to -= 1;
  while (to > 0 && same(to - 1, to)) to -= 1;
  return to;
}

/** What is known when the walk has come to a step: which nodes have values, gradients, which parameters moved. */
export class Known {
  private readonly values = new Map<number, number>();
  private readonly gradients = new Map<number, number>();
  private readonly updates = new Map<string, number>();

  constructor(steps: readonly Step[], scene: Scene) {
    const backward = new Map<number, number>();
    steps.forEach((step, number) => {
      if (step.parameter) this.updates.set(step.parameter.name, number);
      else if (step.node && step.phase === "backward") backward.set(step.node.id, number);
      else if (step.node) this.values.set(step.node.id, number);
    });
    // A gradient is whole once every node that the value went into has handed back its share.
    const first = Math.min(...backward.values());
    for (const id of scene.nodes.keys()) {
      const shares = (scene.consumers.get(id) ?? []).map((consumer) => backward.get(consumer) ?? 0);
      this.gradients.set(id, Math.max(first, ...shares));
    }
  }

  /** At the overview (0) everything is. */
  value(node: number, at: number): boolean {
    return at === 0 || at >= (this.values.get(node) ?? 0);
  }

  gradient(node: number, at: number): boolean {
    return at === 0 || at >= (this.gradients.get(node) ?? Infinity);
  }

  update(parameter: string, at: number): boolean {
    return at === 0 || at >= (this.updates.get(parameter) ?? Infinity);
  }
}
