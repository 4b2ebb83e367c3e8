"""The explained example: its stories are the numbers of examples/by_hand.py."""

import json
import re

import numpy as np
import pytest
from tests.examples.programs import load


@pytest.fixture(scope="module")
def hand():
    return load("by_hand").by_hand()


@pytest.fixture(scope="module")
def explanation():
    return load("explain_by_hand").explained()


def stories(explanation):
    return [layer.story for layer in explanation.layers if layer.layer == "Linear"]


def test_the_stories_are_what_the_hand_computes(hand, explanation):
    example = load("by_hand")
    (hidden, output), close = stories(explanation), pytest.approx
    assert explanation.loss == close(hand["loss"][0], rel=1e-14)
    for story, name, old in ((hidden, "hidden", example.HIDDEN), (output, "output", example.OUTPUT)):
        assert story["activation"][0].tolist() == close(hand[f"{name} activations"], rel=1e-14)
        assert story["error"][0].tolist() == close(hand[f"{name} deltas"], rel=1e-13)
        assert story["weight gradient"].reshape(-1).tolist() == close(
            np.ravel(hand[f"{name} weight gradients"]), rel=1e-13
        )
        new = np.array(old) + story["update"]
        assert new.reshape(-1).tolist() == close(np.ravel(hand[f"new {name} weights"]), rel=1e-14)
    o = hand["output activations"]
    assert output["slope"][0].tolist() == close([y * (1 - y) for y in o], rel=1e-13)
    assert output["error from above"][0].tolist() == close([y - t for y, t in zip(o, example.TARGET, strict=True)])


def test_why_leads_down_to_the_errors_of_the_output(hand, explanation):
    why = explanation.why("0.weight[1, 0]", depth=6)
    assert why.value == pytest.approx(hand["hidden weight gradients"][1][0], rel=1e-13)
    values = [one.value for one in why]
    for delta in (*hand["output deltas"], hand["hidden deltas"][1]):
        assert any(value == pytest.approx(delta, rel=1e-13) for value in values)


def test_it_prints_and_writes_a_page(tmp_path, capsys, hand):
    file = tmp_path / "step.html"
    load("explain_by_hand").main(str(file))
    printed = capsys.readouterr().out
    for number in (*hand["hidden deltas"], *hand["output deltas"], *np.ravel(hand["output weight gradients"])):
        assert f"{number:.9f}" in printed
    found = re.search(r'<script id="explanation" type="application/json">(.*?)</script>', file.read_text("utf-8"), re.S)
    told = json.loads(found[1])
    assert [layer["layer"] for layer in told["layers"]] == ["Linear", "Sigmoid", "Linear", "Sigmoid", "loss"]
    deltas = next(term for term in told["layers"][2]["story"]["terms"] if term["name"] == "error")
    assert deltas["value"]["data"] == pytest.approx(hand["output deltas"], rel=1e-13)
