// A list of rows of equal height of which only those in view exist, so that thousands stay light.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  count: number;
  /** Height of a row, and the largest height of the list, in pixels. */
  row: number;
  most: number;
  label: string;
  /** A row to be kept in view. */
  present?: number;
  children: (k: number) => ComponentChildren;
}

const SPARE = 6;

export function Window({ count, row, most, label, present, children }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const height = Math.min(count * row, most);
  useEffect(() => {
    const element = frame.current;
    if (present === undefined || !element) return;
    const place = present * row;
    if (place < element.scrollTop || place + row > element.scrollTop + height) element.scrollTop = place - height / 2;
  }, [present, row, height]);
  const first = Math.max(0, Math.floor(top / row) - SPARE);
  const last = Math.min(count, Math.ceil((top + height) / row) + SPARE);
  const rows = [];
  for (let k = first; k < last; k += 1) {
    rows.push(
      <li key={k} style={{ top: `${k * row}px`, height: `${row}px` }} aria-setsize={count} aria-posinset={k + 1}>
        {children(k)}
      </li>,
    );
  }
  return (
    <div
      class="window"
      ref={frame}
      style={{ height: `${height}px` }}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      {...(count * row > most ? { tabIndex: 0, role: "group", "aria-label": label } : {})}
    >
      <ol aria-label={label} style={{ height: `${count * row}px` }}>
        {rows}
      </ol>
    </div>
  );
}
