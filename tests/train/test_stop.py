"""Stopping rules, asked with rows written by hand."""

import copy
import math

import pytest

from chainrule.errors import ConfigError
from chainrule.train import stop
from chainrule.train.rules import AnyOf, Modes, Rule, as_rules, better

MODES = Modes(
    {"loss": "min", "accuracy": "max", "odd": None, "validation_loss": "min", "validation_accuracy": "max"},
    "validation_loss",
)


def ended_at(rule, values, name="validation_loss"):
    """The epoch after which the rule stops, and its reason."""
    rule.bind(MODES)
    for epoch, value in enumerate(values, 1):
        if reason := rule.after_epoch(epoch, {name: value}):
            return epoch, reason
    return None


def test_plateau_waits_for_patience_epochs_without_improvement():
    assert ended_at(stop.plateau(3), [5, 4, 4, 4.5, 3, 3, 3, 3, 1])[0] == 8
    assert ended_at(stop.plateau(1), [5, 5])[0] == 2
    assert ended_at(stop.plateau(3), [5, 4, 3, 2, 1, 0]) is None
    epoch, reason = ended_at(stop.plateau(2), [1, 1, 1])
    assert (epoch, reason) == (3, "validation loss has not improved for 2 epochs")


def test_plateau_wants_more_than_min_delta():
    falling = [1 - 0.01 * i for i in range(20)]
    assert ended_at(stop.plateau(3), falling) is None
    epoch, reason = ended_at(stop.plateau(3, min_delta=0.1), falling)
    assert epoch == 4
    assert "by more than 0.1" in reason
    assert ended_at(stop.plateau(3, min_delta=0.25), [8, 7.75, 7.75, 7.75])[0] == 4  # exactly min_delta is not enough
    assert ended_at(stop.plateau(4, min_delta=0.25), [8, 7.75, 7.5, 7.5, 7.5, 7.5, 7.5])[0] == 7


def test_plateau_knows_that_more_accuracy_is_better():
    rule = stop.plateau(2, monitor="validation_accuracy")
    assert ended_at(rule, [0.5, 0.6, 0.7, 0.7, 0.65], "validation_accuracy")[0] == 5


def test_nan_is_no_improvement_but_anything_improves_on_it():
    assert ended_at(stop.plateau(2), [math.nan, math.nan])[0] == 2
    assert ended_at(stop.plateau(2), [math.nan, 5, math.nan, 4, math.nan, math.nan])[0] == 6
    assert ended_at(stop.plateau(2, min_delta=1.0), [math.nan, math.inf, 5.0, 5.0, 5.0])[0] == 5


def test_threshold():
    assert ended_at(stop.threshold(0.1), [0.3, 0.1, 0.05])[0] == 2
    assert ended_at(stop.threshold(0.1), [0.3, math.nan]) is None
    rule = stop.threshold(0.9, monitor="accuracy")
    assert ended_at(rule, [0.5, 0.95], "accuracy") == (2, "accuracy has reached 0.95 (asked for: 0.9)")


def test_epochs_and_time():
    assert ended_at(stop.epochs(3), [1, 1, 1, 1]) == (3, "all 3 epochs done")
    rule = stop.time(60)
    assert rule.after_step(1, 59.9) is None
    assert rule.after_step(2, 60.0) == "the time limit of 60 seconds is reached"


def test_all_rules_are_asked_and_the_first_answer_counts():
    patient, eager = stop.plateau(2, monitor="loss"), stop.threshold(0.5, monitor="loss")
    both = AnyOf([patient, eager])
    for rule in both.rules:
        rule.bind(MODES)
    assert both.after_epoch(1, {"loss": 1.0}) is None
    assert "reached" in both.after_epoch(2, {"loss": 0.4})
    assert patient.best == 0.4  # it was asked although the other stopped
    assert AnyOf([]).after_step(1, 1e9) is None


def test_a_rule_goes_on_where_its_state_was_left():
    values = [5, 4, 4, 4, 4]
    whole, first = stop.plateau(3), stop.plateau(3)
    assert ended_at(whole, values)[0] == 5
    assert ended_at(first, values[:3]) is None
    second = stop.plateau(3)
    second.bind(MODES)
    second.load(first.state())
    assert second.after_epoch(4, {"validation_loss": 4}) is None
    assert second.after_epoch(5, {"validation_loss": 4})


def test_unknown_columns_are_named_with_what_there_is():
    with pytest.raises(ConfigError, match="Did you mean 'validation_loss'"):
        stop.plateau(3, monitor="validaton_loss").bind(MODES)
    with pytest.raises(ConfigError, match="need validation data"):
        stop.plateau(3, monitor="validation_loss").bind(Modes({"loss": "min"}, "loss"))
    with pytest.raises(ConfigError, match="mode='min'"):
        stop.threshold(3, monitor="odd").bind(MODES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: stop.plateau(0), lambda: stop.plateau(1.5), lambda: stop.plateau(True), lambda: stop.plateau(3, -0.1),
        lambda: stop.plateau(math.inf), lambda: stop.plateau(3, math.nan), lambda: stop.threshold(math.nan),
        lambda: stop.threshold("low"), lambda: stop.epochs(0), lambda: stop.epochs(2.5), lambda: stop.time(0),
        lambda: stop.time(math.nan), lambda: as_rules("plateau"), lambda: as_rules(10),
        lambda: as_rules([stop.plateau]),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_one_rule_or_several():
    rule = stop.epochs(3)
    assert as_rules(None) == []
    assert as_rules(rule) == [rule]
    assert as_rules((rule, rule)) == [rule, rule]
    assert isinstance(copy.deepcopy(stop.plateau(3)), Rule)


def test_better():
    assert better(1, 2, "min")
    assert not better(2, 2, "min")
    assert better(3, 2, "max")
    assert not better(math.nan, 2, "max")
    assert better(2, math.nan, "max")
    assert not better(1.5, 2, "min", by=0.5)
