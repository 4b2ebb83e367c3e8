// What can be chosen in the playground.

import type { Activation, PlaygroundOptions } from "../../shared/types";

export const MOST_LAYERS = 6;
export const MOST_UNITS = 8;

export const FEATURES: Record<string, (x: number, y: number) => number> = {
  x: (x) => x,
  y: (_, y) => y,
  "x²": (x) => x * x,
  "y²": (_, y) => y * y,
  xy: (x, y) => x * y,
  "sin x": (x) => Math.sin(x),
  "sin y": (_, y) => Math.sin(y),
};

export const ACTIVATIONS: readonly (readonly [Activation, string])[] = [
  ["tanh", "tanh"],
  ["relu", "ReLU"],
  ["sigmoid", "sigmoid"],
  ["gelu", "GELU"],
];

export const OPTIMIZERS: readonly (readonly [PlaygroundOptions["optimizer"], string])[] = [
  ["sgd", "SGD"],
  ["momentum", "SGD, momentum 0.9"],
  ["adam", "Adam"],
];

export const LEARNING_RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];
export const REGULARISATIONS = [0, 0.0001, 0.001, 0.003, 0.01, 0.03, 0.1];

export const START: PlaygroundOptions = {
  dataset: "moons",
  noise: 0.1,
  rows: 200,
  features: ["x", "y"],
  layers: [4, 3],
  activation: "tanh",
  optimizer: "sgd",
  learning_rate: 0.1,
  regularisation: 0,
  batch: 10,
  seed: 0,
};

/** What is drawn on the connections. */
export type Quantity = "weights" | "gradients" | "updates";
