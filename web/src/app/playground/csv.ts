// One's own columns: text as spreadsheets copy it.

export interface Table {
  names: string[];
  /** Columns of texts, all of one length. */
  columns: string[][];
}

export const MOST_OWN_ROWS = 2000;

/** Read lines of cells apart by tabs, semicolons or commas; a first line without a number is a header. */
export function readTable(text: string): Table {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  const first = lines[0];
  if (first === undefined) throw new Error("There is nothing to read. Paste some lines, such as: 1.2, 0.7, yes");
  const separator = ["\t", ";", ","].find((mark) => first.includes(mark)) ?? /\s+/;
  const cells = lines.map((line) =>
    line
      .trim()
      .split(separator)
      .map((cell) => cell.trim().replace(/^"(.*)"$/, "$1")),
  );
  const width = cells[0]?.length ?? 0;
  if (width < 3)
    throw new Error(`The first line has ${width} column${width === 1 ? "" : "s"}; three are needed: x, y, target.`);
  const odd = cells.findIndex((line) => line.length !== width);
  if (odd >= 0) throw new Error(`Line ${odd + 1} has ${cells[odd]?.length} columns, the first has ${width}.`);
  const header = (cells[0] as string[]).every((cell) => Number.isNaN(toValue(cell)));
  const names = header ? (cells[0] as string[]) : Array.from({ length: width }, (_, k) => `column ${k + 1}`);
  const rows = header ? cells.slice(1) : cells;
  return { names, columns: names.map((_, column) => rows.map((row) => row[column] as string)) };
}

function toValue(cell: string): number {
  return cell === "" ? NaN : Number(cell);
}

/** Three columns as numbers. Targets that are words are numbered in their order. Bad cells are named, never guessed. */
export function chosenColumns(table: Table, [x, y, target]: [number, number, number]) {
  const rows = table.columns[0]?.length ?? 0;
  if (rows < 10) throw new Error(`There are ${rows} rows; at least 10 are needed.`);
  if (rows > MOST_OWN_ROWS) throw new Error(`There are ${rows} rows; at most ${MOST_OWN_ROWS} fit in the playground.`);
  const numbers = (column: number): number[] =>
    (table.columns[column] ?? []).map((cell, row) => {
      const value = toValue(cell);
      if (Number.isFinite(value)) return value;
      throw new Error(`"${cell}" in row ${row + 1} of ${table.names[column]} is not a number.`);
    });
  const words = table.columns[target] ?? [];
  if (!words.some((cell) => Number.isNaN(toValue(cell))))
    return { x: numbers(x), y: numbers(y), target: numbers(target) };
  const kinds = [...new Set(words)].sort();
  if (kinds.length !== 2) {
    throw new Error(`${table.names[target]} has ${kinds.length} different words; a target of words needs exactly two.`);
  }
  return { x: numbers(x), y: numbers(y), target: words.map((word) => kinds.indexOf(word)) };
}
