// The network from left to right: features, units with a map of their answers each, connections between them.

import { useMemo, useState } from "preact/hooks";
import { css, diverging, reach } from "../../shared/colours";
import { formatNumber, toNumber } from "../../shared/format";
import { useDark } from "../../shared/theme";
import type { PlaygroundOptions, PlaygroundState, PlaygroundUnit } from "../../shared/types";
import { useWidth } from "../parts";
import { FieldMap } from "./FieldMap";
import { FEATURES, MOST_LAYERS, MOST_UNITS, type Quantity } from "./options";

/** A unit, by layer (−1: the features) and place within it. */
export interface Place {
  layer: number;
  unit: number;
}

interface Link {
  from: Place;
  to: Place;
  value: number;
}

export function quantityOf(unit: PlaygroundUnit, quantity: Quantity): { weights: number[]; bias: number } {
  const [weights, bias] = {
    weights: [unit.weights, unit.bias] as const,
    gradients: [unit.weight_gradients, unit.bias_gradient] as const,
    updates: [unit.weight_updates, unit.bias_update] as const,
  }[quantity];
  return { weights: weights.map(toNumber), bias: toNumber(bias) };
}

export interface NetworkViewProps {
  options: PlaygroundOptions;
  state: PlaygroundState;
  quantity: Quantity;
  focus: Place | null;
  onFocus: (place: Place) => void;
  onChange: (change: Partial<PlaygroundOptions>) => void;
}

export function NetworkView(props: NetworkViewProps) {
  const { options, state, quantity, onChange } = props;
  const [holder, width] = useWidth<HTMLDivElement>();
  const dark = useDark();
  const features = Object.keys(FEATURES);
  const columns = state.layers.length + 1;
  const most = Math.max(features.length, ...state.layers.map((layer) => layer.units.length));
  const size = Math.max(22, Math.min(58, Math.floor(width / (columns * 1.9))));
  const pitch = size + (size > 40 ? 20 : 16);
  const height = most * pitch;
  const [hovered, setHovered] = useState<Link | null>(null);
  const [pointed, setPointed] = useState<Place | null>(null); // its connections stand out while it is pointed at

  const left = (layer: number): number => {
    const label = size > 34 ? 44 : 32; // room for the names of the features
    return label + ((width - label - size - 4) * (layer + 1)) / Math.max(columns - 1, 1);
  };
  const top = (layer: number, unit: number): number => {
    const count = layer < 0 ? features.length : (state.layers[layer]?.units.length ?? 1);
    return height / 2 + (unit - (count - 1) / 2) * pitch - size / 2;
  };
  const links = useMemo(() => linksOf(options, state, quantity, features), [options, state, quantity]);
  const largest = reach(links.map((link) => link.value));
  const maps = useMemo(() => scaledMaps(state), [state]);
  const errors = reach(state.layers.flatMap((layer) => layer.units.map((unit) => toNumber(unit.error))));
  const lit = (link: Link): boolean =>
    link === hovered || (pointed !== null && (same(link.to, pointed) || same(link.from, pointed)));
  const any = hovered !== null || pointed !== null;
  const point = (place: Place): void => {
    setPointed(place);
    if (place.layer >= 0) props.onFocus(place);
  };

  return (
    <div class="net-view">
      <LayerControls options={options} onChange={onChange} />
      <div class="network-body" ref={holder} style={{ height: `${height + 8}px` }}>
        <svg width={width} height={height + 8} aria-hidden="true">
          {links.map((link) => {
            const [x1, y1] = [left(link.from.layer) + size, top(link.from.layer, link.from.unit) + size / 2];
            const [x2, y2] = [left(link.to.layer), top(link.to.layer, link.to.unit) + size / 2];
            const bend = (x2 - x1) / 2;
            const path = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
            const share = link.value / largest;
            return (
              <g key={`${link.to.layer} ${link.from.unit} ${link.to.unit}`}>
                <path
                  d={path}
                  fill="none"
                  stroke={css(diverging(Math.sign(share) * (0.35 + 0.5 * Math.abs(share)), dark))}
                  stroke-width={Number.isNaN(share) ? 1 : 0.6 + 5.4 * Math.abs(share)}
                  stroke-dasharray={Number.isNaN(share) ? "2 4" : undefined}
                  opacity={any && !lit(link) ? 0.25 : 1}
                />
                <path
                  d={path}
                  class="link-target"
                  onPointerEnter={() => setHovered(link)}
                  onPointerLeave={() => setHovered(null)}
                >
                  <title>{describe(link, quantity, features)}</title>
                </path>
              </g>
            );
          })}
        </svg>
        {features.map((name, unit) => (
          <Feature
            key={name}
            name={name}
            on={options.features.includes(name)}
            last={options.features.length === 1}
            size={size}
            style={{ left: `${left(-1)}px`, top: `${top(-1, unit)}px` }}
            onToggle={() =>
              onChange({
                features: features.filter((other) => (other === name) !== options.features.includes(other)),
              })
            }
            onPoint={(on) => setPointed(on ? { layer: -1, unit } : null)}
          />
        ))}
        {state.layers.map((layer, index) =>
          layer.units.map((unit, place) => (
            <button
              key={`${index} ${place}`}
              class={unit.dead ? "neuron dead" : "neuron"}
              style={{ left: `${left(index)}px`, top: `${top(index, place)}px`, width: `${size}px` }}
              aria-pressed={props.focus !== null && same(props.focus, { layer: index, unit: place })}
              aria-label={unitLabel(unit, index, place, state.layers.length)}
              onClick={() => point({ layer: index, unit: place })}
              onFocus={() => point({ layer: index, unit: place })}
              onBlur={() => setPointed(null)}
              onPointerEnter={(event) => event.pointerType === "mouse" && point({ layer: index, unit: place })}
              onPointerLeave={() => setPointed(null)}
            >
              <FieldMap values={maps[index]?.[place] ?? []} size={size} />
              <span class="error-bar" aria-hidden="true">
                <span style={{ width: `${(100 * toNumber(unit.error)) / errors}%` }} />
              </span>
              {unit.dead && (
                <span class="dead-sign" aria-hidden="true">
                  dead
                </span>
              )}
            </button>
          )),
        )}
      </div>
      <p class="hint number" aria-live="off">
        {hovered
          ? describe(hovered, quantity, features)
          : `Thickness and colour of the lines: ${quantity}, at most ${formatNumber(largest)}. The bar under a unit: its error |δ|.`}
      </p>
    </div>
  );
}

const same = (a: Place, b: Place): boolean => a.layer === b.layer && a.unit === b.unit;

function unitLabel(unit: PlaygroundUnit, layer: number, place: number, layers: number): string {
  const name = layer === layers - 1 ? "Output" : `Layer ${layer + 1}, unit ${place + 1}`;
  return `${name}: slope ${formatNumber(unit.slope)}, error ${formatNumber(unit.error)}${unit.dead ? ", dead" : ""}`;
}

function describe({ from, to, value }: Link, quantity: Quantity, features: string[]): string {
  const source = from.layer < 0 ? features[from.unit] : `unit ${from.layer + 1}.${from.unit + 1}`;
  const word = { weights: "weight", gradients: "gradient", updates: "update" }[quantity];
  return `${word} of ${source} in unit ${to.layer + 1}.${to.unit + 1}: ${formatNumber(value)}`;
}

function linksOf(options: PlaygroundOptions, state: PlaygroundState, quantity: Quantity, features: string[]): Link[] {
  // The inputs of the network stand in the order in which it was made with them.
  const inputs = options.features.map((name) => features.indexOf(name));
  return state.layers.flatMap((layer, index) =>
    layer.units.flatMap((unit, place) => {
      const { weights } = quantityOf(unit, quantity);
      return unit.weights.flatMap((_, source): Link[] => {
        const from = index === 0 ? inputs[source] : source;
        if (from === undefined) return []; // features were chosen that the server has not heard of yet
        return [
          { from: { layer: index - 1, unit: from }, to: { layer: index, unit: place }, value: weights[source] ?? NaN },
        ];
      });
    }),
  );
}

/** Maps from −1 to 1: each hidden unit by its own reach, the output by its answers from 0 to 1. */
function scaledMaps(state: PlaygroundState): number[][][] {
  return state.layers.map((layer, index) =>
    layer.units.map((unit) => {
      const values = unit.map.map(toNumber);
      if (index === state.layers.length - 1) return values.map((value) => 1.6 * (value - 0.5));
      const largest = reach(values);
      return values.map((value) => (0.9 * value) / largest);
    }),
  );
}

function Feature(props: {
  name: string;
  on: boolean;
  last: boolean;
  size: number;
  style: Record<string, string>;
  onToggle: () => void;
  onPoint: (on: boolean) => void;
}) {
  const values = useMemo(() => featureMap(props.name), [props.name]);
  const fixed = props.on && props.last; // a network needs an input
  return (
    <button
      class="neuron feature"
      style={{ ...props.style, width: `${props.size}px` }}
      aria-pressed={props.on}
      aria-label={`Input ${props.name}`}
      aria-disabled={fixed}
      title={fixed ? "A network needs at least one input" : props.on ? "Leave this input out" : "Take this input in"}
      onClick={() => !fixed && props.onToggle()}
      onPointerEnter={(event) => event.pointerType === "mouse" && props.on && props.onPoint(true)}
      onPointerLeave={() => props.onPoint(false)}
    >
      <span class="feature-name">{props.name}</span>
      <FieldMap values={values} size={props.size} />
    </button>
  );
}

function featureMap(name: string): number[] {
  const side = 20;
  const values = Array.from({ length: side * side }, (_, k) => {
    const x = ((k % side) / (side - 1)) * 12 - 6;
    const y = 6 - (Math.floor(k / side) / (side - 1)) * 12;
    return FEATURES[name]?.(x, y) ?? 0;
  });
  const largest = reach(values);
  return values.map((value) => (0.9 * value) / largest);
}

function LayerControls(props: { options: PlaygroundOptions; onChange: (change: Partial<PlaygroundOptions>) => void }) {
  const { layers } = props.options;
  const set = (next: number[]): void => props.onChange({ layers: next });
  return (
    <div class="layer-controls">
      <div class="stepper" role="group" aria-label="Hidden layers">
        <button aria-label="One layer less" disabled={layers.length === 0} onClick={() => set(layers.slice(0, -1))}>
          −
        </button>
        <span>
          <b class="number">{layers.length}</b> hidden layer{layers.length === 1 ? "" : "s"}
        </span>
        <button
          aria-label="One layer more"
          disabled={layers.length >= MOST_LAYERS}
          onClick={() => set([...layers, layers[layers.length - 1] ?? 4])}
        >
          +
        </button>
      </div>
      {layers.map((units, index) => (
        <div class="stepper" role="group" aria-label={`Units of layer ${index + 1}`} key={index}>
          <button
            aria-label={`One unit less in layer ${index + 1}`}
            disabled={units <= 1}
            onClick={() => set(layers.map((count, k) => (k === index ? count - 1 : count)))}
          >
            −
          </button>
          <span>
            layer {index + 1}: <b class="number">{units}</b>
          </span>
          <button
            aria-label={`One unit more in layer ${index + 1}`}
            disabled={units >= MOST_UNITS}
            onClick={() => set(layers.map((count, k) => (k === index ? count + 1 : count)))}
          >
            +
          </button>
        </div>
      ))}
    </div>
  );
}
