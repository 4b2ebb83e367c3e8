"""What came of learning so far: overfitting in the history, and networks that learn nothing, and why."""

import math

import numpy as np

from chainrule.diagnosis.case import Case
from chainrule.diagnosis.diagnosis import Diagnosis
from chainrule.diagnosis.rates import progress
from chainrule.diagnosis.words import counted, number, share

AFTER = 5
"""Epochs after the best one that tell a turn from a bad epoch."""

IN_VAIN = 20
"""As many epochs after the best one are worth a note where its weights are kept anyway: they were for nothing."""

TURNED = 0.25
"""How much of the fall of the validation loss, from that of a constant answer, must be lost again."""

NOTHING_LEARNED = 0.95
"""A loss above this share of that of the best constant answer: nothing is learned yet."""

BY_HEART = 0.5
"""A batch is learned by heart when less than half of the loss of its best constant answer is left."""


def overfitting(case: Case) -> list[Diagnosis]:
    """The validation loss has turned, while that of training falls on."""
    rows = [(r["epoch"], r["loss"], r["validation_loss"]) for r in case.history if _complete(r)]
    if len(rows) < AFTER + 2:
        return []
    epochs, train, held_out = (np.asarray(column, np.float64) for column in zip(*rows, strict=True))
    best = int(held_out.argmin())
    kept = case.keeps_best
    if len(rows) - 1 - best < (IN_VAIN if kept else AFTER):
        return []
    latest = float(np.median(held_out[-AFTER:]))
    lowest = float(held_out[best])
    fell = max(float(held_out[0]), case.constant or float(train[0])) - lowest
    if latest - lowest <= max(TURNED * fell, 0.05 * abs(lowest)):
        return []
    if not np.median(train[-AFTER:]) < train[best]:
        return []
    return [
        Diagnosis(
            "overfitting",
            "note" if kept else "warning",
            "",
            f"overfitting begins in epoch {int(epochs[best])}: since then the validation loss rose from "
            f"{number(lowest)} to {number(latest)}, while that of training fell on",
            (
                f"training loss {number(float(train[best]))} in epoch {int(epochs[best])}, {number(float(train[-1]))} "
                "at the end",
                *(("the weights of the best epoch were kept",) if kept else ()),
            ),
            "Stop there (stop=cr.stop.plateau(patience=10)); more data, dropout, weight decay, or a smaller network.",
        )
    ]


def _complete(row: object) -> bool:
    return isinstance(row, dict) and all(
        isinstance(row.get(name), (int, float)) and math.isfinite(row[name])
        for name in ("epoch", "loss", "validation_loss")
    )


def learned_nothing(case: Case) -> bool:
    """Whether the network is no better than a constant answer, before and after every trial."""
    if case.constant is None or not case.trials or case.before is None or case.before.loss is None:
        return False
    if min(case.before.loss, progress(case.trials)) <= NOTHING_LEARNED * case.constant:
        return False
    return case.unseen is None or case.unseen[0] > NOTHING_LEARNED * case.unseen[1]


def plateau(case: Case) -> list[Diagnosis]:
    """Why the loss stays where a constant answer would be."""
    if not learned_nothing(case) or case.constant is None or case.before is None:
        return []
    norm = case.before.gradient_norm
    evidence = [
        f"the loss is {number(case.before.loss or 0.0)}, and {number(progress(case.trials))} at best after "
        f"{counted(max(t.steps for t in case.trials), 'step')}; the best constant answer makes {number(case.constant)}"
    ]
    if case.unseen is not None:
        evidence.append(
            f"trained for longer, it makes {number(case.unseen[0])} on rows left out; a constant answer "
            f"{number(case.unseen[1])}"
        )
    evidence += [f"the gradient has length {number(norm)}"] if norm is not None else []
    if case.one_batch is not None:
        after, constant = case.one_batch
        if after > BY_HEART * constant:
            evidence.append(
                f"even a single small batch cannot be learned by heart: its loss stays at {number(after)}, with a "
                f"constant answer {number(constant)}"
            )
            return [
                Diagnosis(
                    "capacity",
                    "error",
                    "",
                    "the network cannot express what is to be learned",
                    tuple(evidence),
                    "Try more units or layers, an activation between linear layers, and look whether the inputs "
                    "reach the output.",
                )
            ]
        evidence.append(
            f"a single small batch is learned by heart (its loss falls to {share(after / constant)} of that of a "
            "constant answer): the network and its gradients work"
        )
        return [
            Diagnosis(
                "no-signal",
                "warning",
                "",
                "nothing is learned that holds for other rows",
                tuple(evidence),
                "Do the rows of x and y belong together (shuffled apart?); do the features say anything about the "
                "target? "
                "Else train longer: some tasks begin with a plateau.",
            )
        ]
    evidence.append(
        "no small batch tells more: in those looked at all rows want nearly the same answer, or the loss is not finite"
    )
    return [
        Diagnosis(
            "plateau",
            "warning",
            "",
            "the loss does not leave the level of a constant answer",
            tuple(evidence),
            "Where other targets are rare, draw them more often or weight them (sample_weight); else try other first "
            "weights, cr.find_lr, or another network.",
        )
    ]
