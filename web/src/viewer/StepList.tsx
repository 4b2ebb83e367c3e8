// All steps of the walk as a list, and the compiled program as text.

import { Fold } from "./Fold";
import { Window } from "./Window";
import { PHASES, type Step } from "./steps";
import { fileName } from "./write";

interface Props {
  steps: Step[];
  present: number;
  program: string;
  onStep: (step: number) => void;
}

export function StepList({ steps, present, program, onStep }: Props) {
  return (
    <section class="card step-list" aria-label="All steps">
      <Fold kind="steps" summary={`All ${steps.length} steps`}>
        {() => (
          <Window count={steps.length} row={34} most={340} label="Steps" present={present}>
            {(k) => <Row step={steps[k] as Step} number={k} isPresent={k === present} onStep={onStep} />}
          </Window>
        )}
      </Fold>
      {program !== "" && (
        <Fold kind="program" summary="The compiled program">
          {() => <pre tabIndex={0}>{program}</pre>}
        </Fold>
      )}
    </section>
  );
}

interface RowProps {
  step: Step;
  number: number;
  isPresent: boolean;
  onStep: (step: number) => void;
}

function Row({ step, number, isPresent, onStep }: RowProps) {
  const phase = PHASES.find((each) => each.phase === step.phase)?.title;
  return (
    <button
      type="button"
      class="step-row"
      {...(isPresent ? { "aria-current": "step" as const } : {})}
      onClick={() => onStep(number)}
    >
      <span class="number">{number}</span>
      <span class={`phase ${step.phase}`}>{phase}</span>
      <span>{step.title}</span>
      {step.node?.source && (
        <code>
          {fileName(step.node.file)}:{step.node.line}
        </code>
      )}
    </button>
  );
}
