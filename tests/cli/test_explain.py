"""`chainrule explain`: rows and steps of a run, questions, files, and what is said when it makes no sense."""

import json
import shutil

import numpy as np
import pytest


@pytest.fixture
def iris(cli, trained, tmp_path):
    """A copy of the run on iris."""
    shutil.copytree(trained / "runs/iris", tmp_path / "runs/iris")
    return tmp_path / "runs/iris"


def test_it_shows_the_layers_of_a_row_and_what_to_ask_next(cli, iris):
    shown = cli("explain", "runs/iris", "--row", 3)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("row          3 of the test part: truth ") and "answer" in lines[0]
    assert "a step of Sequential, 1 row: loss " in shown.out
    layers = [line.split()[:2] for line in lines if line.startswith(" ")]
    assert ["0", "Linear"] in layers and ["1", "ReLU"] in layers
    assert "AdamW(lr=0.003" in shown.out and "Δloss   predicted " in shown.out
    question = lines[-1]
    assert question.startswith('ask     chainrule explain runs/iris --row 3 --why "')
    again = cli(*question.split('"')[0].split()[2:], question.split('"')[1])
    assert again.code == 0 and f"∂loss/∂{question.split(chr(34))[1]} = " in again.out


def test_it_is_row_0_unless_told_otherwise(cli, iris):
    assert cli("explain", "runs/iris").out.replace("--row 0 ", "") == cli("explain", "iris", "--row", 0).out.replace(
        "explain iris --row 0 ", "explain runs/iris "
    )


def test_why_names_columns_and_classes(cli, iris):
    shown = cli("explain", "runs/iris", "--row", 1, "--why", "0.weight[5, 2]", "--depth", 3)
    assert shown.code == 0
    assert "∂loss/∂0.weight[5, 2] = " in shown.out and "(0 Linear, unit 5, input 2)" in shown.out
    dead = "nothing comes back" in shown.out or "= 0 " in shown.out
    if not dead:
        assert "× input 2 petal length (cm) in row 1 (x)" in shown.out
        assert "setosa in row 1 (6 Linear)" in shown.out
    assert "update  m′ = 0.9 · m + 0.1 · g = " in shown.out
    bias = cli("explain", "runs/iris", "--why", "6.bias[1]").out
    assert "error of unit 1 “versicolor” in row 0 (6 Linear)" in bias and "p = " in bias


def test_the_answer_is_that_of_predict(cli, iris, tmp_path):
    evaluated = json.loads(cli("evaluate", "runs/iris", "--json").out)
    rows = evaluated["rows"]["test"]
    right = 0
    for start in range(0, rows, 8):
        numbers = ",".join(map(str, range(start, min(rows, start + 8))))
        for line in cli("explain", "runs/iris", "--rows", numbers).out.splitlines():
            if "of the test part: truth" in line:
                truth, answer = line.split("truth ")[1].split(", answer ")
                right += truth == answer.split(" (p")[0]
    assert right / rows == pytest.approx(evaluated["scores"]["test"]["accuracy"])


def test_several_rows_are_one_batch(cli, iris, tmp_path):
    shown = cli("explain", "runs/iris", "--rows", "0,5,2", "--part", "train", "--json", "-")
    data = json.loads(shown.out)
    assert (shown.code, shown.err, data["rows"], data["step"]) == (0, "", 3, None)
    assert data["optimizer"].startswith("AdamW")
    assert {node["file"] for node in data["nodes"]} == {""}
    losses = [
        json.loads(cli("explain", "iris", "--row", i, "--part", "train", "--json", "-").out)["loss"] for i in (0, 5, 2)
    ]
    assert data["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_step_of_the_training_is_explained(cli, iris):
    shown = cli("explain", "runs/iris", "--step", 5)
    assert shown.code == 0
    assert shown.out.startswith("step         5 in epoch ") and "step 5 of Sequential, 32 rows" in shown.out
    data = json.loads(cli("explain", "runs/iris", "--step", 5, "--json", "-").out)
    history = json.loads(cli("replay", "runs/iris", "--step", 5, "--json").out)
    assert (data["step"], data["loss"]) == (5, pytest.approx(history["loss"], rel=1e-6))
    one = cli("explain", "runs/iris", "--step", 5, "--row", 2)
    assert "row          2 of the batch, row " in one.out and "1 row: loss" in one.out
    assert '--step 5 --row 2 --why "' in one.out


def test_a_regression_is_told_in_the_units_of_the_target(cli, houses_run):
    shown = cli("explain", "runs/houses", "--row", 2)
    assert shown.code == 0
    first = shown.out.splitlines()[0]
    assert first.startswith("row          2 of the test part: truth ") and "answer " in first


def test_it_computes_on_either_engine(cli, iris):
    found = [json.loads(cli("explain", "iris", "--engine", e, "--json", "-").out) for e in ("native", "reference")]
    assert [data["engine"] for data in found] == ["native", "reference"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-4)


def test_files_are_written_whole(cli, iris, tmp_path):
    shown = cli("explain", "runs/iris", "--json", "step.json", "--html", "step.html")
    assert shown.code == 0
    assert "The explanation is in step.json" in shown.err and "The explanation is in step.html" in shown.err
    assert json.loads((tmp_path / "step.json").read_text())["format"] == "chainrule explanation 1"
    page = (tmp_path / "step.html").read_text()
    assert "chainrule explanation 1" in page and "layer " in shown.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--row", 999], "There is no row 999: the test part of iris has rows 0 to "),
        (["--rows", "1,x"], '--rows "1,x" is no list of row numbers'),
        (["--rows", "1,-2"], "There is no row -2"),
        (["--rows", "1", "--row", 2], "--rows does not go with --row"),
        (["--part", "tset"], '"tset" is no part. Did you mean "test"?'),
        (["--why", "0.wieght[1, 2]"], "Nothing here is called '0.wieght'"),
        (["--why", "nothing"], 'as in --why "%12[0, 3]"'),
        (["--why", "0.weight[99, 2]"], "is outside of it"),
        (["--why", "x[0, 1]"], "x has no gradient"),
        (["--step", 0], "at least 1"),
        (["--step", 99999], "99999"),
        (["--step", 5, "--row", 99], "rows 0 to "),
        (["--step", 5, "--engine", "reference"], "--engine does not go with --step"),
        (["--html", "nowhere/step.html"], "lies in a folder that does not exist"),
        (["--json", "."], "is a folder"),
        (["--engine", "natve"], "natve"),
    ],
)
def test_what_makes_no_sense_is_said(cli, iris, arguments, said):
    shown = cli("explain", "runs/iris", *arguments)
    assert shown.code == 2
    assert said in shown.err and shown.out == ""


def test_a_folder_that_is_no_run(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("explain", "empty").code == 2
    assert cli("explain", "nothing").code == 2
