// A part that the reader opens; what is in it exists only while it is open.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

interface Props {
  summary: string;
  kind: string;
  children: () => ComponentChildren;
}

export function Fold({ summary, kind, children }: Props) {
  const [open, setOpen] = useState(false);
  return (
    <details class={kind} open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{summary}</summary>
      {open && children()}
    </details>
  );
}
