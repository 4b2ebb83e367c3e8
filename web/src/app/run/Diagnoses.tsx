import { useEffect, useRef, useState } from "preact/hooks";
import { grouped } from "../../shared/format";
import type { Diagnosis } from "../../shared/types";
import { Card, SeverityBadge } from "../parts";
import { href } from "../route";

/** What is wrong, with the evidence and what to try; the newest first. */
export function Diagnoses(props: {
  diagnoses: Diagnosis[];
  running: boolean;
  name: string;
  onStep: (step: number) => void;
}) {
  const { diagnoses } = props;
  const newest = diagnoses[diagnoses.length - 1];
  return (
    <Card title={diagnoses.length ? `Diagnoses (${diagnoses.length})` : "Diagnoses"} id="diagnoses">
      <Announcement newest={newest} count={diagnoses.length} />
      {diagnoses.length === 0 && (
        <p class="healthy">
          <span aria-hidden="true">✓</span> {props.running ? "Nothing wrong so far." : "Nothing wrong was found."}
        </p>
      )}
      <ul class="diagnoses" tabIndex={diagnoses.length ? 0 : -1} aria-label="Diagnoses, the newest first">
        {[...diagnoses].reverse().map((diagnosis) => (
          <li key={`${diagnosis.step} ${diagnosis.kind} ${diagnosis.where}`} class={`edge-${diagnosis.severity}`}>
            <div class="diagnosis-head">
              <SeverityBadge severity={diagnosis.severity} />
              <button class="text-link number" onClick={() => props.onStep(diagnosis.step)}>
                step {grouped(diagnosis.step)}
              </button>
              <span class="soft">epoch {diagnosis.epoch}</span>
            </div>
            <p class="message">{diagnosis.message}</p>
            <ul class="evidence">
              {diagnosis.evidence.map((line) => (
                <li key={line}>{line}</li>
              ))}
            </ul>
            <p class="remedy">
              <b>Try:</b> {diagnosis.remedy.replace(/^try:? /i, "")}
            </p>
            <a href={href.step(props.name, diagnosis.step)}>Explain step {grouped(diagnosis.step)}</a>
          </li>
        ))}
      </ul>
    </Card>
  );
}

/** Says a new diagnosis aloud, but not those that were there when the page opened. */
function Announcement({ newest, count }: { newest: Diagnosis | undefined; count: number }) {
  const before = useRef(count);
  const [text, setText] = useState("");
  useEffect(() => {
    if (count > before.current && newest) setText(`${newest.severity} at step ${newest.step}: ${newest.message}`);
    before.current = count;
  }, [count]);
  return (
    <p class="visually-hidden" role="status">
      {text}
    </p>
  );
}
