"""`why`: contributions that add up to the gradient at every level, opened one after the other, in words."""

import functools
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import chainrule as cr
from chainrule import losses, nn, optim
from chainrule.errors import ConfigError
from chainrule.explanation import explain

EPS = float(np.finfo(np.float32).eps)


def check_sums(why):
    """Every opened one is the sum of its contributions, within the rounding of their sum in float32."""
    opened = [one for one in why if one.expanded and (one.children or one.rest)]
    for one in opened:
        parts = [child.part for child in one.children]
        rest = 0.0 if one.rest is None else one.rest.value
        scale = sum(map(abs, parts)) + abs(rest)
        if one.children and one.children[0].factor.startswith("slope of"):  # of several operations, whose parts cancel
            scale = max(scale, abs(one.children[0].upstream))
        assert abs(sum(parts) + rest - one.value) <= 64 * EPS * scale + 1e-12, one
        for child in one.children:
            assert child.part == pytest.approx(child.upstream * child.local, rel=1e-12, nan_ok=True)
            assert child.value == child.upstream
            if child.share is not None:
                assert child.share * (sum(parts) + rest) == pytest.approx(child.part, rel=1e-6)
    return opened


def test_contributions_add_up_to_the_gradient(small, engine):
    model, x, y = small.make()
    explanation = explain(model, x, y, loss=small.loss, engine=engine)
    draw = np.random.default_rng(1)
    opened = 0
    for name, parameter in explanation.parameters.items():
        if parameter.node is None or parameter.node.gradient is None:
            continue
        place = [int(draw.integers(n)) for n in parameter.value.shape]
        target = f"{name}{place}" if place else name
        why = explanation.why(target, depth=2, width=100_000)
        assert why.value == float(parameter.gradient[tuple(place)])
        opened += len(check_sums(why))
        narrow = explanation.why(target, depth=2, width=2)
        check_sums(narrow)
        assert [c.part for c in narrow.children] == [c.part for c in why.children[:2]]
        hidden = sum(c.part for c in why.children[2:]) + (0.0 if why.rest is None else why.rest.value)
        if narrow.rest is not None:
            assert narrow.rest.value == pytest.approx(hidden, rel=1e-9, abs=1e-15)
            assert narrow.rest.count >= len(why.children[2:])
    assert opened > len(explanation.parameters)


def make_story():
    rng = np.random.default_rng(0)
    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    x, y = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    return explain(model, x, y, loss=losses.cross_entropy, optimizer=optim.Adam(lr=0.01))


@functools.cache
def only_story():
    return make_story()


@pytest.fixture
def story():
    return make_story()


def test_it_opens_level_by_level_and_stays_as_it_is(story):
    why = story.why("0.weight[1, 2]", depth=1)
    assert why.children and not any(child.expanded for child in why.children)
    first = why.children[0]
    children = first.expand().children
    assert children and not children[0].expanded
    assert first.expand().children is children
    assert [one.name for one in story.why("0.weight[1, 2]", depth=2).children[0].children] == [c.name for c in children]
    assert children == sorted(children, key=lambda child: -abs(child.part))


def test_it_ends_at_what_the_model_returned_unless_asked_further(story):
    why = story.why("2.weight[1, 2]", depth=9)
    assert all(child.note and not child.expanded for child in why.children)
    child = why.children[0].expand(9)
    assert child.children
    check_sums(child)
    assert any(one.error == "error of div" or one.node == len(story.nodes) - 1 for one in child)


def test_the_words(story):
    why = story.why("0.weight[1, 2]")
    assert why.error == "∂loss/∂0.weight[1, 2]"
    child = why.children[0]
    row = child.index[0]
    assert child.text == f"error of unit 1 in row {row} (0 Linear) × input 2 in row {row} (x)"
    assert child.local == pytest.approx(float(story.graph.nodes[4].value[row, 2]))
    deeper = child.children[0]
    k = deeper.index[-1]
    assert deeper.error == f"error of unit {k} in row {row} (2 Linear)"
    assert deeper.factor == f"weight 2.weight[{k}, 1]"
    logits = story.words.prediction.value[row].astype(np.float64)
    p = np.exp(logits)[k] / np.exp(logits).sum()
    wanted = int(story.observation.before["y"][row] == k)
    assert deeper.note == f"p = {p:.3g}, wanted {wanted} → error {p - wanted:+.2g}".replace("-", "−")
    assert deeper.value == pytest.approx((p - wanted) / 6, rel=1e-5)
    assert deeper.through[:1] == () or deeper.expanded


def test_the_words_name_places_of_convolutions_and_steps():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(12, 1))
    x, y = rng.normal(size=(2, 2, 4, 4)).astype(np.float32), rng.normal(size=(2, 1)).astype(np.float32)
    explanation = explain(model, x, y, loss=losses.mse)
    why = explanation.why("0.weight[2, 1, 0, 2]", width=100)
    for child in why.children:
        found = [int(word.strip(",()")) for word in child.error.split() if word.strip(",()").isdigit()]
        channel, row_y, row_x, row = found[:4]
        assert channel == 2
        source = (row, 1, row_y * 2 + 0 - 1, row_x * 2 + 2 - 1)
        assert child.factor == f"channel 1 at y {source[2]}, x {source[3]} in row {row} (x)"
        assert child.local == pytest.approx(float(x[source]))
        at = (row, channel, row_y, row_x)
        assert child.value == pytest.approx(float(explanation.find("0").gradient[at]))
    assert "channel 2, input channel 1, y 0, x 2" in str(why)


def test_a_dead_unit_says_that_nothing_comes_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    model.load_state_dict({**model.state_dict(), "0.weight": -np.ones((2, 2)), "0.bias": -np.ones(2)})
    explanation = explain(model, np.ones((3, 2)), np.ones((3, 1)), loss=losses.mse)
    why = explanation.why("0.weight[0, 1]")
    assert why.value == 0
    assert all(child.value == 0 for child in why)
    assert "the slope of ReLU is 0 here" in str(explanation.why("0[1, 0]"))


def test_as_plain_text_it_is_a_tree_with_the_update_below(story):
    lines = str(story.why("0.weight[1, 2]", depth=2, width=2)).splitlines()
    assert lines[0].startswith("∂loss/∂0.weight[1, 2] = ")
    assert "(0 Linear, unit 1, input 2, test_why.py:" in lines[0]
    assert [line[0] for line in lines[1:9]] == ["├", "│", "│", "│", "├", "│", "│", "│"]
    assert lines[9].startswith("└── ") and "the other 4 together" in lines[9]
    assert lines[10].startswith("update  m′ = 0.9 · m + 0.1 · g = ")
    assert lines[13].startswith("        Δw = −lr · m̂ / ") and lines[13].endswith(" = −0.01")
    assert lines[14].startswith("Δloss   predicted −")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("0.wieght[1, 2]", "Nothing here is called '0.wieght'"),
        ("0.weight[9, 0]", "has shape [4, 5]; [9, 0] is outside"),
        ("0.weight[1]", "has shape [4, 5]; [1] is outside"),
        ("0.weight[1, 2", "Nothing here is called '0.weight[1, 2'"),
        ("0.weight[1 2]", "is no index"),
        ("%999", "Nothing here is called '%999'"),
        ("x[0, 1]", "x has no gradient"),
    ],
)
def test_what_does_not_exist_is_said(story, target, said):
    with pytest.raises(ConfigError, match=r".") as error:
        story.why(target)
    assert said in str(error.value)


def test_what_adds_next_to_nothing_is_added_up():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    x = np.array([[1.0], [1e-5], [1e-4]], np.float32)
    why = explain(model, x, np.full((3, 1), 9.0), loss=losses.mse).why("0.weight[0, 0]")
    assert [child.index[0] for child in why.children] == [0]
    assert why.rest.count == 2 and 0 < abs(why.rest.value) < 1e-3 * abs(why.value)


def test_on_a_terminal_the_tree_has_colours_and_is_broken_between_words(story):
    page = io.StringIO()
    story.why("0.weight[1, 2]", depth=2, width=2).show(
        Console(file=page, force_terminal=True, width=70, highlight=False, soft_wrap=True)
    )
    lines = page.getvalue().splitlines()
    assert "\x1b[" in page.getvalue()
    bare = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert bare[0].startswith("∂loss/∂0.weight[1, 2] = ")
    assert all(len(line) <= 70 for line in bare if line[:1] in "├│└")
    assert any(line.startswith("update  m′ = ") for line in bare)


def test_elsewhere_it_is_the_plain_text(story, capsys):
    why = story.why("0.weight[1, 2]")
    why.show()
    assert capsys.readouterr().out == f"{why}\n"
    story.show()
    assert capsys.readouterr().out == f"{story}\n"


def test_an_explanation_is_printed_as_tables(story):
    text = str(story)
    assert text.startswith("a step of Sequential, 6 rows: loss ") and "(engine native)" in text
    rows = {tuple(line.split()[:2]): line for line in text.splitlines() if line.startswith(" ")}
    output = story.find("1").value
    passed = np.linalg.norm(story.find("0").gradient) / np.linalg.norm(story.find("1").gradient)
    assert rows["1", "ReLU"].split()[-2:] == [f"{100 * passed:.3g}", "%"]
    assert f"{output.mean():.3g}" in rows["1", "ReLU"] and f"{output.std():.3g}" in rows["1", "ReLU"]
    gradient = story.parameters["2.bias"].gradient
    assert f"[{np.abs(gradient).argmax()}] " in rows["2.bias", "[3]"]
    assert "Adam(lr=0.01" in text and f"predicted −{abs(story.loss_change.predicted):.3g}" in text
    question = re.search(r'explanation\.why\("(.*)"\)\.show\(\)', text)[1]
    largest = max(np.abs(p.gradient).max() for p in story.parameters.values())
    assert abs(story.why(question).value) == pytest.approx(float(largest))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=12), st.from_regex(r"(0\.weight|2|%[0-9]{1,3}|x|loss)\s*\[[-0-9, ]{0,9}\]", fullmatch=True)
    )
)
def test_whatever_is_asked_there_is_an_answer_or_a_message(target):
    asked = only_story()
    try:
        why = asked.why(target, depth=1, width=3)
    except ConfigError as error:
        assert len(str(error)) > 20
        return
    node = asked.nodes[why.node]
    assert why.value == float(node.gradient[why.index])
    check_sums(why)


def test_what_is_not_used_further_says_so():
    class Last(nn.Module):
        def __init__(self):
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x)[:, -1]

    explanation = explain(Last(), np.ones((2, 3, 2)), np.ones((2, 2)), loss=losses.mse)
    assert explanation.why("inner[0, 1, 0]").note == "nothing comes back: nothing depends on it"
    assert explanation.why("inner[0, 2, 0]").children


def test_negative_indices_count_from_the_end(story):
    assert story.why("0.weight[-1, -1]").name == "0.weight[3, 4]"


def test_without_an_index_it_asks_about_the_largest(story):
    gradient = np.abs(story.parameters["0.weight"].gradient)
    assert story.why("0.weight").index == tuple(np.unravel_index(gradient.argmax(), gradient.shape))
