"""When to stop. `fit` takes one rule or a list of them; the first that is met ends the training.

    stop=[cr.stop.plateau(patience=5), cr.stop.time(600)]

A loss that is no number always ends it. A rule of one's own is derived from `Rule`.
"""

from chainrule.train.rules import Rule, epochs, plateau, threshold, time

__all__ = ["Rule", "epochs", "plateau", "threshold", "time"]
