"""The loss: what the model says, what is wanted, and the error that goes back.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 5.2, equation (5.18): with the activation that
belongs to a loss, the error of the output is prediction − target; Goodfellow, Bengio and Courville, Deep Learning
(2016), section 6.2.
"""

from typing import Any

import numpy as np

from chainrule.explanation.stories.story import Array, Story, View, wide

CLASSES, LOGITS = ("crossentropy",), ("bcewithlogits", "binarycrossentropywithlogits")
PROBABILITY, SQUARED = ("bce", "binarycrossentropy"), ("mse",)
EXACT = 1e-4  # how far a plain formula may be from the observed error, relative to its largest element


def loss_story(view: View, wanted: Any, loss: Array) -> Story | None:
    """`wanted` knows the name of the loss, the target in the shape of the prediction and what logits mean."""
    prediction = wanted.prediction
    if prediction is None:
        return None
    story, axes = Story("loss"), view.axes_of(prediction)
    logits = wanted.probabilities is not None
    last = "logits" if logits else "prediction"
    story.add(last, "z" if logits else "y", "what the model returned", axes, prediction.value)
    if logits:
        formula = "p = eᶻ / Σ eᶻ" if wanted.name in CLASSES else "p = 1 / (1 + e⁻ᶻ)"
        story.add("probabilities", "p", formula, axes, wanted.probabilities)
    target = wanted.wanted
    if target is not None:
        story.add("wanted" if logits else "target", "t", "what it should be", axes, wide(target))
        said = wanted.probabilities if logits else wide(prediction.value)
        difference = "p − t" if logits else "y − t"
        story.add("difference", difference, difference, axes, said - wide(target))
    symbol = "∂L/∂z" if logits else "∂L/∂y"
    story.add("error", symbol, _formula(wanted, prediction.gradient, symbol), axes, prediction.gradient)
    story.add("loss", "L", _loss_formula(wanted.name), (), loss)
    return story


def _formula(wanted: Any, error: Array | None, symbol: str) -> str:
    """The textbook's formula, where the observed error is that; else what it says without it."""
    if error is None or wanted.wanted is None:
        return f"{symbol}: the derivative of the loss"
    t, y = wide(wanted.wanted), wide(wanted.prediction.value)
    rows = y.size // y.shape[min(1, y.ndim - 1)] if wanted.name in CLASSES and y.ndim else y.size
    plain = {
        **dict.fromkeys(CLASSES, ("(p − t) / {}", lambda: (wanted.probabilities - t) / rows)),
        **dict.fromkeys(LOGITS, ("(p − t) / {}", lambda: (wanted.probabilities - t) / rows)),
        **dict.fromkeys(PROBABILITY, ("(y − t) / (y · (1 − y)) / {}", lambda: (y - t) / (y * (1 - y)) / rows)),
        **dict.fromkeys(SQUARED, ("2 · (y − t) / {}", lambda: 2 * (y - t) / rows)),
    }.get(wanted.name)
    if plain is not None:
        text, compute = plain
        with np.errstate(all="ignore"):
            off = np.abs(compute() - wide(error)).max(initial=0.0)
        if off <= EXACT * np.abs(error).max(initial=0.0):
            return f"{symbol} = {text.format(rows)}"
    return f"{symbol}: the derivative of the loss by it"


def _loss_formula(name: str) -> str:
    return {
        "crossentropy": "L = −Σ t · log p / rows",
        "bcewithlogits": "L = −mean of t · log p + (1 − t) · log(1 − p)",
        "bce": "L = −mean of t · log y + (1 − t) · log(1 − y)",
        "mse": "L = mean of (y − t)²",
        "l1": "L = mean of |y − t|",
    }.get(name, "L")
