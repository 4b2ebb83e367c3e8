// Layers of neurons in the terms of the textbook: weighted sum, activation, slope, error, weight gradient, update.

import type { ExplanationNode } from "../shared/types";
import { isComputed, term, type Column, type Scene } from "./scene";
import type { Step } from "./steps";
import { element, flat, ofRow } from "./values";
import { factor, product, show, single, sub, sum, type Line } from "./write";
import { superscript } from "../shared/format";

/** The numbers of one unit for one row of the batch; NaN for what did not come along. */
export interface Unit {
  sum: number;
  output: number;
  slope: number;
  fromAbove: number;
  error: number;
}

export class Textbook {
  private readonly hidden: Column[];

  constructor(
    readonly scene: Scene,
    readonly rows: number | null,
  ) {
    const weighted = scene.columns.filter((column) => column.weight !== null);
    this.hidden = weighted.slice(0, -1);
  }

  node(id: number): ExplanationNode | undefined {
    return this.scene.nodes.get(id);
  }

  /** x for inputs, h for hidden layers (numbered where there are several), y for the last layer. */
  symbol(column: Column): string {
    if (column.weight === null) return column.from.length === 0 ? "x" : "a";
    const place = this.hidden.indexOf(column);
    if (place < 0) return "y";
    return this.hidden.length > 1 ? `h⁽${superscript(place + 1)}⁾` : "h";
  }

  /** Whether the column's units have an activation of their own. */
  hasActivation(column: Column): boolean {
    return column.sum !== column.output;
  }

  unit(column: Column, unit: number, row: number): Unit {
    const of = (id: number, what: "value" | "gradient"): number =>
      ofRow(this.node(id)?.[what], this.rows, row)?.[unit] ?? NaN;
    const story = (...names: string[]): number => ofRow(term(column, ...names)?.value, this.rows, row)?.[unit] ?? NaN;
    const error = of(column.sum, "gradient");
    const fromAbove = of(column.output, "gradient");
    const slope = this.hasActivation(column) ? story("slope") : 1;
    const found = Number.isNaN(slope) && fromAbove !== 0 ? error / fromAbove : slope;
    return { sum: of(column.sum, "value"), output: of(column.output, "value"), slope: found, fromAbove, error };
  }

  /** The column of neurons that alone takes this column's output, if there is just one. */
  next(column: Column): Column | null {
    const after = this.scene.columns.filter((other) => other.from.includes(column.number));
    const [only] = after;
    return after.length === 1 && only?.weight && only.inputs === column.units ? only : null;
  }

  /** The lines of a step for one unit and the weight that leads to it from `source`. */
  lines(step: Step, unit: number, source: number, row: number): Line[] {
    const { column } = step;
    if (!column?.weight || step.phase === "overview") return [];
    if (step.phase === "update") return [];
    const isActivation = step.node !== null && isComputed(step.node) && step.node.id > column.sum;
    if (step.phase === "forward")
      return isActivation ? [this.outputLine(column, unit, row)] : [this.sumLine(column, unit, row)];
    if (isActivation) return [this.fromAboveLine(column, unit, row), this.errorLine(column, unit, row)];
    const own = this.hasActivation(column) ? this.errorLine(column, unit, row) : this.fromAboveLine(column, unit, row);
    return [own, this.weightGradientLine(column, unit, source), ...this.biasGradientLine(column, unit, row)];
  }

  sumLine(column: Column, unit: number, row: number): Line {
    const before = this.scene.columns[column.from[0] as number] as Column;
    const inputs = ofRow(this.node(column.input)?.value, this.rows, row);
    const weights = flat(column.weight?.value);
    const label = `weighted sum of unit ${unit + 1}`;
    const z = show(this.unit(column, unit, row).sum);
    const left = `z${sub(unit)}`;
    if (!inputs || !weights)
      return { label, symbols: `${left} = Σ w·${this.symbol(before)} + b`, numbers: "", result: z };
    const terms = [...inputs].map((input, j) =>
      product([`w${sub(unit, j)}`, `${this.symbol(before)}${sub(j)}`], weights[unit * inputs.length + j] ?? NaN, input),
    );
    const bias = flat(column.bias?.value)?.[unit];
    if (bias !== undefined) terms.push(single(`b${sub(unit)}`, bias));
    const written = sum(terms);
    return { label, symbols: `${left} = ${written.symbols}`, numbers: written.numbers, result: z };
  }

  outputLine(column: Column, unit: number, row: number): Line {
    const numbers = this.unit(column, unit, row);
    const f = this.activation(column);
    const left = `${this.symbol(column)}${sub(unit)}`;
    return {
      label: `output of unit ${unit + 1}`,
      symbols: `${left} = ${f}(z${sub(unit)})`,
      numbers: `${f}(${show(numbers.sum)})`,
      result: show(numbers.output),
    };
  }

  /** Where the error of a unit's output comes from: over the weights of the next layer, or from the loss. */
  fromAboveLine(column: Column, unit: number, row: number): Line {
    const next = this.next(column);
    const left = `∂L/∂${this.symbol(column)}${sub(unit)}`;
    const result = show(this.unit(column, unit, row).fromAbove);
    const errors = next && ofRow(this.node(next.sum)?.gradient, this.rows, row);
    const weights = flat(next?.weight?.value);
    const ofLoss = next ? null : this.lossLine(column, unit, row);
    if (ofLoss) return { label: `error from above, unit ${unit + 1}: the derivative of the loss`, result, ...ofLoss };
    if (!next || !errors || !weights) {
      const from = next ? "Σ w·δ of the next layer" : "derivative of what follows";
      return { label: `error from above, unit ${unit + 1}`, symbols: `${left}: ${from}`, numbers: "", result };
    }
    const terms = [...errors].map((error, k) =>
      product([`w${sub(k, unit)}`, `δ${sub(k)}`], weights[k * column.units + unit] ?? NaN, error),
    );
    const written = sum(terms);
    const label = `error from above, unit ${unit + 1} (w, δ of ${next.title})`;
    return { label, symbols: `${left} = ${written.symbols}`, numbers: written.numbers, result };
  }

  /** The derivative of the loss, where it is one of the textbook's: c · (y − t), or (p − t) / rows after a softmax. */
  private lossLine(column: Column, unit: number, row: number): { symbols: string; numbers: string } | null {
    const y = flat(this.node(column.output)?.value);
    const errors = flat(this.node(column.output)?.gradient);
    const target = flat(this.scene.target?.value);
    if (!y || !errors || !target || this.rows === null) return null;
    const place = row * column.units + unit;
    const symbol = this.symbol(column);
    const left = `∂L/∂${symbol}${sub(unit)}`;
    const matches = (wanted: (k: number) => number): boolean =>
      errors.every((error, k) => Math.abs(error - wanted(k)) <= 1e-5 * Math.abs(error) + 1e-7);
    if (target.length === y.length) {
      const constants: [number, string][] = [
        [1, ""],
        [2, "2 · "],
        [1 / this.rows, `1/${this.rows} · `],
        [2 / y.length, `2/${y.length} · `],
      ];
      const found = constants.find(([c]) => matches((k) => c * ((y[k] as number) - (target[k] as number))));
      if (!found) return null;
      const [open, close] = found[1] ? ["(", ")"] : ["", ""];
      const [own, wanted] = [show(y[place] as number), factor(target[place] as number)];
      return {
        symbols: `${left} = ${found[1]}${open}${symbol}${sub(unit)} − t${sub(unit)}${close}`,
        numbers: `${found[1]}${open}${own} − ${wanted}${close}`,
      };
    }
    if (target.length !== this.rows) return null;
    const shares = softmax(y, column.units);
    const isClass = (k: number): number => Number(target[Math.floor(k / column.units)] === k % column.units);
    if (!matches((k) => ((shares[k] as number) - isClass(k)) / (this.rows ?? 1))) return null;
    const rows = this.rows > 1 ? ` / ${this.rows}` : "";
    return {
      symbols: `${left} = (p${sub(unit)} − t${sub(unit)})${rows}, p = softmax(${symbol}), t = 1 for the class wanted, else 0`,
      numbers: `(${show(shares[place] as number)} − ${isClass(place)})${rows}`,
    };
  }

  errorLine(column: Column, unit: number, row: number): Line {
    const { output, slope, fromAbove, error } = this.unit(column, unit, row);
    const [y, f] = [`${this.symbol(column)}${sub(unit)}`, this.activation(column)];
    const known: Record<string, [string, string]> = {
      σ: [`${y}·(1 − ${y})`, `${factor(output)}·(1 − ${factor(output)})`],
      tanh: [`(1 − ${y}²)`, `(1 − ${factor(output)}²)`],
    };
    const [symbols, numbers] = known[f] ?? [`${f}′(z${sub(unit)})`, ""];
    const spelled = numbers ? `${factor(fromAbove)} · ${numbers} = ` : "";
    return {
      label: `error of unit ${unit + 1} = error from above × slope`,
      symbols: `δ${sub(unit)} = ∂L/∂${y} · ${symbols}`,
      numbers: `${spelled}${factor(fromAbove)} · ${factor(slope)}`,
      result: show(error),
    };
  }

  /** Error × input, summed over the rows of the batch. */
  weightGradientLine(column: Column, unit: number, source: number): Line {
    const before = this.scene.columns[column.from[0] as number] as Column;
    const name = `${this.symbol(before)}${sub(source)}`;
    const rows = this.rows ?? 1;
    const terms = [];
    for (let i = 0; i < rows; i += 1) {
      const error = ofRow(this.node(column.sum)?.gradient, this.rows, i)?.[unit] ?? NaN;
      const input = ofRow(this.node(column.input)?.value, this.rows, i)?.[source] ?? NaN;
      const mark = rows > 1 ? ` (row ${i})` : "";
      terms.push(product([`δ${sub(unit)}`, `${name}${mark}`], error, input));
    }
    const written = terms.some(({ value }) => Number.isNaN(value)) ? null : sum(terms);
    const result = show(element(column.weight?.gradient, [unit, source]));
    const label = `weight gradient = error × input${rows > 1 ? `, over ${rows} rows` : ""}`;
    const right = rows > 1 ? `Σ δ${sub(unit)} · ${name}` : `δ${sub(unit)} · ${name}`;
    return { label, symbols: `∂L/∂w${sub(unit, source)} = ${right}`, numbers: written?.numbers ?? "", result };
  }

  biasGradientLine(column: Column, unit: number, row: number): Line[] {
    if (!column.bias) return [];
    const result = show(element(column.bias.gradient, [unit]));
    const single_ = (this.rows ?? 1) === 1;
    const symbols = `∂L/∂b${sub(unit)} = ${single_ ? "" : "Σ "}δ${sub(unit)}`;
    const numbers = single_ ? show(this.unit(column, unit, row).error) : "";
    return [{ label: "bias gradient = error", symbols, numbers, result }];
  }

  private activation(column: Column): string {
    const names: Record<string, string> = { sigmoid: "σ", tanh: "tanh", softplus: "softplus" };
    const ops = column.nodes.filter((id) => id > column.sum).map((id) => this.node(id)?.op ?? "");
    const only = ops.length === 1 ? names[ops[0] as string] : undefined;
    return only ?? column.layers[1]?.layer ?? (column.subtitle.endsWith("ReLU") ? "ReLU" : "f");
  }
}

function softmax(logits: Float64Array, units: number): Float64Array {
  const shares = new Float64Array(logits.length);
  for (let start = 0; start < logits.length; start += units) {
    const row = logits.subarray(start, start + units);
    const largest = Math.max(...row);
    const total = row.reduce((all, value) => all + Math.exp(value - largest), 0);
    row.forEach((value, k) => (shares[start + k] = Math.exp(value - largest) / total));
  }
  return shares;
}
