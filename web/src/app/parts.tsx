// Small parts that every view uses.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Diagnosis, Status } from "../shared/types";

export function Card(props: {
  title: string;
  id: string;
  hint?: string;
  tools?: ComponentChildren;
  wide?: boolean;
  children: ComponentChildren;
}) {
  return (
    <section class={props.wide ? "card wide" : "card"} aria-labelledby={props.id}>
      <div class="card-head">
        <h2 id={props.id}>{props.title}</h2>
        {props.tools}
      </div>
      {props.hint && <p class="hint">{props.hint}</p>}
      {props.children}
    </section>
  );
}

const STATUS_SIGNS: Record<Status, string> = {
  running: "▶",
  finished: "✓",
  stopped: "■",
  interrupted: "‖",
  failed: "✕",
  damaged: "!",
};

/** How a run stands, by sign and word; the colour only repeats it. */
export function StatusBadge({ status, reason }: { status: Status; reason?: string }) {
  return (
    <span class={`badge status-${status}`} title={reason || undefined}>
      <span aria-hidden="true" class="badge-sign">
        {STATUS_SIGNS[status] ?? "?"}
      </span>
      {status}
    </span>
  );
}

const SEVERITY_SIGNS: Record<Diagnosis["severity"], string> = { error: "✕", warning: "▲", note: "ℹ" };

export function SeverityBadge({ severity }: { severity: Diagnosis["severity"] }) {
  return (
    <span class={`badge severity-${severity}`}>
      <span aria-hidden="true" class="badge-sign">
        {SEVERITY_SIGNS[severity] ?? "?"}
      </span>
      {severity}
    </span>
  );
}

export function Failure({ message, retry }: { message: string; retry?: () => void }) {
  return (
    <div class="failure" role="alert">
      <span aria-hidden="true">✕</span>
      <p>{message}</p>
      {retry && <button onClick={retry}>Try again</button>}
    </div>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      <span class="spinner" aria-hidden="true" /> {what}
    </p>
  );
}

/** A few exclusive choices side by side: one stop of the tab key, arrows within. */
export function Choice<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  onChange: (value: T) => void;
}) {
  const place = props.options.findIndex(([value]) => value === props.value);
  const onKeyDown = (event: KeyboardEvent): void => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = (place + move + props.options.length) % props.options.length;
    const [value] = props.options[next] as readonly [T, string];
    props.onChange(value);
    ((event.currentTarget as HTMLElement).children[next] as HTMLElement).focus();
  };
  return (
    <div class="choice" role="radiogroup" aria-label={props.label} onKeyDown={onKeyDown}>
      {props.options.map(([value, text]) => (
        <button
          key={value}
          type="button"
          role="radio"
          aria-checked={value === props.value}
          tabIndex={value === props.value ? 0 : -1}
          onClick={() => props.onChange(value)}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

/** The width of an element, kept up to date. */
export function useWidth<T extends HTMLElement>(): [{ current: T | null }, number] {
  const reference = useRef<T>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = reference.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(Math.floor(element.clientWidth)));
    observer.observe(element);
    setWidth(Math.floor(element.clientWidth));
    return () => observer.disconnect();
  }, []);
  return [reference, width];
}

/** What a promise gives, or why it failed; `again` asks once more. */
export function useAnswer<T>(ask: () => Promise<T>, inputs: readonly unknown[]) {
  const [answer, setAnswer] = useState<{ value: T | null; failure: string | null }>({ value: null, failure: null });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let current = true;
    setAnswer({ value: null, failure: null });
    ask().then(
      (value) => current && setAnswer({ value, failure: null }),
      (error: unknown) => current && setAnswer({ value: null, failure: messageOf(error) }),
    );
    return () => {
      current = false;
    };
  }, [...inputs, turn]);
  return { ...answer, again: () => setTurn((number) => number + 1) };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
