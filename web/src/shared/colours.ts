// Colours of values. Both scales keep their order for every kind of colour blindness and in print: the diverging one
// goes from blue (negative) over the page's own ground to orange (positive), the sequential one from dark to light.

export type Rgb = readonly [red: number, green: number, blue: number];

const LIGHT_DIVERGING: readonly Rgb[] = [
  [8, 64, 129],
  [43, 120, 187],
  [139, 188, 224],
  [247, 247, 246],
  [253, 184, 108],
  [224, 116, 20],
  [140, 62, 4],
];

const DARK_DIVERGING: readonly Rgb[] = [
  [150, 205, 255],
  [64, 152, 222],
  [32, 84, 134],
  [30, 34, 42],
  [136, 78, 22],
  [226, 130, 40],
  [255, 205, 140],
];

const SEQUENTIAL: readonly Rgb[] = [
  [68, 1, 84],
  [71, 45, 123],
  [59, 82, 139],
  [44, 114, 142],
  [33, 145, 140],
  [40, 174, 128],
  [94, 201, 98],
  [173, 220, 48],
  [253, 231, 37],
];

function between(stops: readonly Rgb[], position: number): Rgb {
  const place = Math.min(Math.max(position, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(place), stops.length - 2);
  const share = place - index;
  const low = stops[index] as Rgb;
  const high = stops[index + 1] as Rgb;
  const mix = (channel: 0 | 1 | 2): number => Math.round(low[channel] + (high[channel] - low[channel]) * share);
  return [mix(0), mix(1), mix(2)];
}

/** −1 blue, 0 the ground, +1 orange. NaN is grey; see `NOT_A_NUMBER`. */
export function diverging(value: number, dark: boolean): Rgb {
  if (Number.isNaN(value)) return NOT_A_NUMBER;
  return between(dark ? DARK_DIVERGING : LIGHT_DIVERGING, (value + 1) / 2);
}

/** 0 dark violet to 1 yellow, evenly growing in lightness. */
export function sequential(value: number): Rgb {
  return Number.isNaN(value) ? NOT_A_NUMBER : between(SEQUENTIAL, value);
}

/** What is not a number gets a colour that is on neither scale. */
export const NOT_A_NUMBER: Rgb = [128, 128, 128];

export function css(colour: Rgb): string {
  return `rgb(${colour[0]} ${colour[1]} ${colour[2]})`;
}

/** Black or white, whichever reads better on the colour. */
export function inkOn(colour: Rgb): string {
  const linear = (channel: number): number => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  };
  const luminance = 0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2]);
  return luminance > 0.179 ? "#000" : "#fff";
}

/** The largest size among the values: what the ends of a diverging scale stand for. Never 0, never infinite. */
export function reach(values: Iterable<number>): number {
  let largest = 0;
  for (const value of values) {
    const size = Math.abs(value);
    if (Number.isFinite(size) && size > largest) largest = size;
  }
  return largest || 1;
}

/** Colours of lines in a chart, in order; told apart by everybody (after Okabe and Ito). */
export const LIGHT_LINES = ["#0072b2", "#c2500a", "#007a5a", "#a3458a", "#7a5c00", "#3b3b9e", "#4d4d4d", "#2a7f9e"];
export const DARK_LINES = ["#56b4e9", "#ff9d4d", "#2fcf9f", "#e78ac8", "#e6c229", "#a3a3ff", "#c8c8c8", "#7fd6e0"];

export function line(index: number, dark: boolean): string {
  const lines = dark ? DARK_LINES : LIGHT_LINES;
  return lines[index % lines.length] as string;
}
