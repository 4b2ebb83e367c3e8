"""The page of an explanation: one file, right numbers, nothing from elsewhere, nothing that breaks out of its place."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.explain.two_two_two import BY_HAND, by_library, explanation

from chainrule.errors import ConfigError
from chainrule.explanation.page import page, write_page

BREAKING = "</script><script>alert(1)</script><!--<script>\u2028"


class Reader(HTMLParser):
    """The elements of a page as a browser sees them, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._inside = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append([dict(attributes), ""])

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1][1] += data


def explained(text):
    """The explanation that the viewer in the page would read."""
    (data,) = [body for attributes, body in Reader(text).scripts if attributes.get("id") == "explanation"]
    return json.loads(data)


def numbers(array):
    return np.reshape(array["data"], array["shape"])


def node(e, name):
    return next(n for n in e["nodes"] if n["name"] == name)


def check_by_hand(e, hidden, output):
    """The numbers of the page against those of examples/by_hand.py, all of them."""
    hand = BY_HAND["by_hand"]()
    outputs = [numbers(n["value"])[0] for n in e["nodes"] if n["op"] == "sigmoid"]
    deltas = [numbers(n["gradient"])[0] for n in e["nodes"] if n["op"] == "add"]
    np.testing.assert_allclose(outputs[0], hand["hidden activations"], rtol=1e-13)
    np.testing.assert_allclose(outputs[1], hand["output activations"], rtol=1e-13)
    np.testing.assert_allclose(deltas[0], hand["hidden deltas"], rtol=1e-12)
    np.testing.assert_allclose(deltas[1], hand["output deltas"], rtol=1e-12)
    assert e["loss"] == pytest.approx(hand["loss"][0], rel=1e-13)
    for name, layer in ((f"{hidden}.weight", "hidden"), (f"{output}.weight", "output")):
        (parameter,) = [p for p in e["parameters"] if p["name"] == name]
        np.testing.assert_allclose(numbers(parameter["gradient"]), hand[f"{layer} weight gradients"], rtol=1e-12)
        new = numbers(parameter["value"]) + numbers(parameter["update"])
        np.testing.assert_allclose(new, hand[f"new {layer} weights"], rtol=1e-13)


def test_the_numbers_of_the_textbook_example_are_those_by_hand():
    check_by_hand(explained(page(explanation())), "0", "2")


def test_the_page_of_the_library_has_the_numbers_by_hand(tmp_path):
    path = write_page(by_library(), tmp_path / "step.html")
    check_by_hand(explained(path.read_text("utf-8")), "hidden", "output")


def test_what_goes_in_comes_out():
    assert explained(page(explanation())) == explanation()


def test_the_page_needs_nothing_from_elsewhere():
    reader = Reader(page(explanation()))
    for tag, attributes in reader.elements:
        assert tag not in ("iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(name, "")
            assert value == "" or value.startswith(("data:", "#")), (tag, value)
    whole = page(explanation())
    assert not re.search(r"@import|url\((?!['\"]?data:)", whole)
    # Names of XML vocabularies are no addresses that anybody fetches.
    assert set(re.findall(r"https?://[\w./-]+", whole)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1998/Math/MathML",
        "http://www.w3.org/1999/xhtml",
    }


def test_the_policy_allows_the_shipped_script_alone():
    reader = Reader(page(explanation()))
    (policy,) = [a["content"] for tag, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = [body for attributes, body in reader.scripts if attributes.get("type") == "module"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';")
    assert "unsafe-eval" not in policy and "'unsafe-inline'" not in policy.split(";")[1]
    assert not [a for _, a in reader.elements if any(name.startswith("on") for name in a)]


@pytest.mark.parametrize("place", ["module", "source", "name", "rule", "file"])
def test_no_text_breaks_out_of_its_place(place):
    e = explanation()
    e["nodes"][3][place] = BREAKING
    e["model"] = BREAKING
    text = page(e)
    assert explained(text) == e
    assert len(Reader(text).scripts) == len(Reader(page(explanation())).scripts)
    assert "alert(1)</script>" not in text


def test_numbers_that_json_cannot_write_are_spelled():
    e = explanation()
    e["loss"] = float("nan")
    e["nodes"][4]["value"]["data"] = [float("inf"), float("-inf")]
    read = explained(page(e))
    assert read["loss"] == "NaN"
    assert read["nodes"][4]["value"]["data"] == ["Infinity", "-Infinity"]


def test_single_precision_numbers_take_no_more_digits_than_they_have():
    e = explanation()
    value = np.float32(0.1)
    e["nodes"][0]["value"] = {"shape": [1, 2], "dtype": "float32", "data": [float(value), "NaN"]}
    text = page(e)
    assert float(value) != 0.1 and "0.10000000149" not in text
    first, second = explained(text)["nodes"][0]["value"]["data"]
    assert np.float32(first) == value and second == "NaN"


def test_of_very_many_numbers_the_larger_arrays_become_pictures(monkeypatch):
    e = explanation()
    ramp = np.arange(1600.0)
    e["nodes"][0]["value"] = {"shape": [40, 40], "dtype": "float32", "data": ramp.tolist()}
    small = e["nodes"][4]["value"]
    monkeypatch.setattr("chainrule.explanation.page.BUDGET", 700)
    nodes = explained(page(e))["nodes"]
    large = nodes[0]["value"]
    assert "data" not in large and large["shape"] == [40, 40] and large["dtype"] == "float32"
    assert large["summary"]["max"] == 1599 and large["summary"]["mean"] == pytest.approx(799.5)
    assert (large["image"]["rows"], large["image"]["columns"]) == (16, 16)
    first = ramp.reshape(40, 40)[:2, :2].mean()
    assert large["image"]["data"][0] == pytest.approx(first)
    assert nodes[4]["value"] == small  # small arrays stay whole


def test_pictures_shrink_too(monkeypatch):
    e = explanation()
    cells = [1.0] * 4095 + ["NaN"]
    summary = {"min": 1.0, "max": 1.0, "mean": 1.0, "histogram": {"low": 1.0, "high": 1.0, "counts": [1] * 32}}
    image = {"rows": 64, "columns": 64, "data": cells}
    e["nodes"][0]["value"] = {"shape": [640, 640], "dtype": "float32", "summary": summary, "image": image}
    assert explained(page(e))["nodes"][0]["value"]["image"] == image
    monkeypatch.setattr("chainrule.explanation.page.BUDGET", 700)
    shrunk = explained(page(e))["nodes"][0]["value"]
    assert shrunk["summary"] == summary
    assert shrunk["image"] == {"rows": 16, "columns": 16, "data": [1.0] * 255 + ["NaN"]}


def test_the_template_is_small():
    empty = page({"format": "chainrule explanation 1", "nodes": []})
    assert len(empty.encode()) < 300_000


def test_write_page_writes_the_page(tmp_path):
    path = tmp_path / "step.html"
    assert write_page(explanation(), path) == path
    assert path.read_text("utf-8") == page(explanation())
    assert [f.name for f in tmp_path.iterdir()] == ["step.html"]


def test_half_of_a_surrogate_pair_does_not_stop_the_page(tmp_path):
    e = explanation()
    e["nodes"][3]["source"] = "x = '\ud800'"
    write_page(e, tmp_path / "step.html")
    assert explained((tmp_path / "step.html").read_text("utf-8"))["nodes"][3]["source"] == "x = '?'"


@pytest.mark.parametrize("wrong", [None, {}, {"format": "something else"}, [1]])
def test_what_is_no_explanation_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"to_dict\(\)"):
        page(wrong)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="cannot be written"):
        page({"format": "chainrule explanation 1", "nodes": [object()]})
