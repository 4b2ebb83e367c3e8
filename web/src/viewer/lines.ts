// What a single node does, spelled out: its value forward, and backward what it hands to each of its inputs.

import type { ExplanationNode, ExplanationParameter } from "../shared/types";
import { derivative, isInfix, madeOf, spelled, type Made } from "./operations";
import type { Scene } from "./scene";
import { element, flat, position } from "./values";
import { at, factor, product, show, single, sum, type Line } from "./write";

export function nameOf(node: ExplanationNode): string {
  return (
    node.name ||
    (node.role === "constant" && node.shape.length === 0 ? show(element(node.value, [])) : `${node.op}#${node.id}`)
  );
}

/** The value of an element from the elements it is made of. */
export function forwardLine(scene: Scene, node: ExplanationNode, index: readonly number[]): Line {
  const inputs = node.inputs.map((id) => scene.nodes.get(id)).filter((input) => input !== undefined);
  const made = madeOf(
    node,
    inputs.map(({ shape }) => shape),
    index,
  );
  const label = at(nameOf(node), index);
  const result = flat(node.value) ? show(element(node.value, index)) : "";
  if (!made) return { label, symbols: `${node.op}(${inputs.map(nameOf).join(", ")})`, numbers: "", result };
  const names = made.sources.map((source) => at(nameOf(inputs[source.input] as ExplanationNode), source.index));
  const values = made.sources.map((source) => element(inputs[source.input]?.value, source.index));
  const complete = inputs.every((input) => flat(input.value));
  const written = write(node.op, made, names, values);
  return { label, symbols: written.symbols, numbers: complete ? written.numbers : "", result };
}

function write(op: string, made: Made, names: string[], values: number[]): { symbols: string; numbers: string } {
  if (made.how === "products") {
    const terms = [];
    for (let k = 0; k + 1 < names.length; k += 2) {
      terms.push(product([names[k] as string, names[k + 1] as string], values[k] as number, values[k + 1] as number));
    }
    return sum(terms);
  }
  if (made.how === "sum" && op === "sum") return sum(names.map((name, k) => single(name, values[k] as number)));
  const list = (parts: string[]): string =>
    parts.length > 6 ? `${parts.slice(0, 5).join(", ")}, …` : parts.join(", ");
  if (made.how === "sum") return { symbols: `${op}(${list(names)})`, numbers: `${op}(${list(values.map(show))})` };
  if (made.how === "copy") return { symbols: names[0] ?? "", numbers: "" };
  return { symbols: spelled(op, names), numbers: spelled(op, values.map(isInfix(op) ? factor : show)) };
}

/** What an element of a node hands on to its inputs: upstream × local derivative = downstream. */
export function backwardLines(scene: Scene, node: ExplanationNode, index: readonly number[]): Line[] {
  const inputs = node.inputs.map((id) => scene.nodes.get(id) as ExplanationNode);
  const made = madeOf(
    node,
    inputs.map(({ shape }) => shape),
    index,
  );
  const upstream = element(node.gradient, index);
  return node.downstream.map((handed) => {
    const place = node.inputs.indexOf(handed.to);
    const input = inputs[place] as ExplanationNode;
    const source = made?.sources.find((each) => each.input === place);
    if (!made || !source || !flat(handed.value)) {
      return { label: `to ${nameOf(input)}`, symbols: node.rule, numbers: "", result: "" };
    }
    const label = `to ${at(nameOf(input), source.index)}`;
    const result = show(element(handed.value, source.index));
    if (made.how === "products") return { label, result, ...throughProduct(scene, node, place, source.index) };
    if (node.op === "broadcast")
      return { label, result, ...throughBroadcast(node, inputs[0] as ExplanationNode, source.index) };
    const given = element(handed.local, source.index);
    const values = made.how === "sum" ? [] : made.sources.map((each) => element(inputs[each.input]?.value, each.index));
    const local = localOf(node, index, values, handed.to, upstream, element(handed.value, source.index));
    if (made.how === "each" && !Number.isNaN(given)) local.value = given;
    return {
      label,
      result,
      symbols: `upstream × ${local.symbols}`,
      numbers: `${factor(upstream)} · ${factor(local.value)}`,
    };
  });
}

function localOf(
  node: ExplanationNode,
  index: readonly number[],
  values: number[],
  to: number,
  upstream: number,
  downstream: number,
): { symbols: string; value: number } {
  const places = node.inputs.flatMap((id, place) => (id === to ? [place] : []));
  const separate = node.downstream.filter((handed) => handed.to === to).length === places.length;
  const y = element(node.value, index);
  const each = (separate ? places.slice(0, 1) : places).map((place) => derivative(node.op, y, values, place));
  if (each.every((found) => found !== null)) {
    const value = each.reduce((total, [, number]) => total + number, 0);
    return { symbols: each.length > 1 ? "both factors" : (each[0]?.[0] ?? ""), value };
  }
  return { symbols: "local (downstream ÷ upstream)", value: upstream === 0 ? NaN : downstream / upstream };
}

/** dA = dy · Bᵀ and dB = Aᵀ · dy, for one element. */
function throughProduct(scene: Scene, node: ExplanationNode, place: number, index: readonly number[]) {
  const other = scene.nodes.get(node.inputs[1 - place] as number) as ExplanationNode;
  if (!flat(other.value) || !flat(node.gradient)) return { symbols: node.rule, numbers: "" };
  const outer = index.slice(0, -2);
  const [i, k] = [index.at(-2) ?? 0, index.at(-1) ?? 0];
  const length = (place === 0 ? node.shape.at(-1) : node.shape.at(-2)) ?? 0;
  const terms = [];
  for (let j = 0; j < length; j += 1) {
    const upstream = place === 0 ? [...outer, i, j] : [...outer, j, k];
    const factors = place === 0 ? [...outer, k, j] : [...outer, j, i];
    const own = factors.slice(factors.length - other.shape.length);
    const [a, b] = [element(node.gradient, upstream.slice(-node.shape.length)), element(other.value, own)];
    terms.push(product([at("upstream", upstream.slice(-node.shape.length)), at(nameOf(other), own)], a, b));
  }
  return sum(terms);
}

function throughBroadcast(node: ExplanationNode, input: ExplanationNode, index: readonly number[]) {
  const upstream = flat(node.gradient);
  if (!upstream) return { symbols: node.rule, numbers: "" };
  const terms = [];
  const lead = node.shape.length - input.shape.length;
  const full = node.shape.map((length, axis) => (axis < lead || input.shape[axis - lead] !== length ? length : 1));
  const count = full.reduce((total, length) => total * length, 1);
  for (let k = 0; k < Math.min(count, 4096); k += 1) {
    let rest = k;
    const place = [...full];
    for (let axis = full.length - 1; axis >= 0; axis -= 1) {
      const length = full[axis] as number;
      place[axis] = length === 1 ? (index[axis - lead] ?? 0) : rest % length;
      rest = Math.floor(rest / length);
    }
    terms.push(single(at("upstream", place), upstream[position(node.shape, place)] ?? NaN));
  }
  return sum(terms);
}

/** From the gradient of one weight to its change, term by term of the optimiser. */
export function updateLines(parameter: ExplanationParameter, index: readonly number[]): Line[] {
  const gradient = element(parameter.gradient, index);
  const change = element(parameter.update, index);
  const value = element(parameter.value, index);
  if (Number.isNaN(value)) return parameter.terms.map(({ symbol, formula }) => bare(symbol, formula));
  const terms = parameter.terms.filter(({ name }) => name !== "gradient");
  const lines: Line[] = [{ label: "gradient", symbols: at("g", index), numbers: "", result: show(gradient) }];
  for (const state of parameter.state) {
    const own = state.before.shape.length === index.length ? index : [];
    const [before, after] = [element(state.before, own), element(state.after, own)];
    lines.push({
      label: state.name,
      symbols: "before → after",
      numbers: `${show(before)} → ${show(after)}`,
      result: "",
    });
  }
  for (const each of terms) {
    const line = { label: each.name, symbols: each.formula, numbers: "", result: show(element(each.value, index)) };
    const plain = terms.length === 1 && parameter.state.length === 0 && gradient !== 0;
    lines.push(plain ? { ...line, numbers: `${factor(change / gradient)} · ${factor(gradient)}` } : line);
  }
  const after = {
    label: "new value",
    symbols: "w + Δw",
    numbers: `${show(value)} + ${factor(change)}`,
    result: show(value + change),
  };
  return [...lines, after];
}

const bare = (symbol: string, formula: string): Line => ({ label: symbol, symbols: formula, numbers: "", result: "" });
