"""`predict` and `evaluate`: a trained network on other rows."""

import json

import numpy as np
import polars as pl
import pytest

from chainrule.train.store import Run


@pytest.fixture
def new(table):
    """Three new houses without their price."""
    return table("new.csv", "size,age,city\n1,2,Ulm\n2,3,Bonn\n-1,5,Köln\n")


def rows(shown):
    assert shown.code == 0, shown.err
    return shown.out.splitlines()


def test_amounts_come_in_the_units_of_the_target(cli, houses_run, new):
    header, *answers = rows(cli("predict", houses_run, "new.csv"))
    assert header == "prediction"
    assert np.abs(np.array(answers, float) - [7, 9, 2]).max() < 2.5


def test_classes_come_by_name_with_probabilities_that_add_up(cli, iris_run):
    header, *answers = rows(cli("predict", iris_run, "iris", "--probabilities"))
    assert header == "prediction,probability setosa,probability versicolor,probability virginica"
    assert len(answers) == 150
    for line in answers:
        name, *shares = line.split(",")
        shares = np.array(shares, float)
        assert shares.sum() == pytest.approx(1)
        assert name == ["setosa", "versicolor", "virginica"][shares.argmax()]


def test_every_format_holds_the_same_answers(cli, iris_run, tmp_path):
    printed = pl.read_csv("\n".join(rows(cli("predict", iris_run, "iris", "-p"))).encode())
    for name in ("a.csv", "a.tsv", "a.json", "a.parquet"):
        shown = cli("predict", iris_run, "iris", "-p", "-o", name)
        assert shown.out == f"150 predictions written to {name}\n"
    frames = [
        pl.read_csv(tmp_path / "a.csv"),
        pl.read_csv(tmp_path / "a.tsv", separator="\t"),
        pl.DataFrame(json.loads((tmp_path / "a.json").read_text())),
        pl.read_parquet(tmp_path / "a.parquet"),
    ]
    assert all(frame.equals(printed) for frame in frames)


def test_the_name_alone_finds_a_run(cli, houses_run, new):
    assert cli("predict", "houses", "new.csv") == cli("predict", houses_run, "new.csv")


def test_what_is_odd_is_noted_beside_the_answers(cli, houses_run, table):
    table("odd.csv", "city,zip,age,size\nUlm,1,2,1\nRom,2,,2\nBonn,3,1,oops\n")
    shown = cli("predict", houses_run, "odd.csv")
    assert len(rows(shown)) == 4
    assert "odd.csv: 1 column unknown to training, ignored: zip" in shown.err
    assert 'city: 1 cell with an unseen category, encoded as none, "Rom" in line 3' in shown.err
    assert "size and age: 2 cells missing, filled by the training median" in shown.err
    assert '"oops" in line 4' in shown.err


def test_a_target_in_the_file_is_scored(cli, houses_run, table):
    table("new.csv", "size,age,city,price\n1,2,Ulm,7\n2,3,Bonn,9\n")
    shown = cli("predict", houses_run, "new.csv")
    assert 'The file has the target "price" of all rows: RMSE' in shown.err


def test_targets_that_are_missing_are_left_out_of_the_score(cli, houses_run, table):
    table("new.csv", "size,age,city,price\n1,2,Ulm,7\n2,3,Bonn,9\n2,3,Bonn,\n")
    shown = cli("predict", houses_run, "new.csv")
    assert len(rows(shown)) == 4
    assert 'The file has the target "price" of 2 of 3 rows' in shown.err


def test_classes_that_training_did_not_have_are_not_scored(cli, iris_run, table):
    flower = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm),species\n5,3,1,0.2,rose\n"
    table("new.csv", flower)
    shown = cli("predict", iris_run, "new.csv")
    assert len(rows(shown)) == 2
    assert 'The answers are not scored: new.csv has no row with a usable target "species"' in shown.err
    assert '"rose"' in shown.err


FATAL = [
    (["new.csv", "-p"], "there are no classes"),
    (["new.csv", "-o", "out.xlsx"], "end it in .csv, .tsv, .json, .parquet"),
    (["new.csv", "-o", "new.csv"], "is the file with the rows itself"),
    (["new.csv", "-o", "nowhere/out.csv"], "a folder that does not exist"),
    (["new.csv", "-o", "folder.csv"], "is a folder"),
    (["nowhere.csv"], "there is no file nowhere.csv"),
    (["missing.csv"], 'lacks 1 column that the model was trained on: "age"'),
    (["words.csv"], 'column "size" should hold numbers'),
    (["digits"], "digits holds images, but the model was trained on a table"),
    (["empty.csv"], "empty.csv is empty"),
]


@pytest.mark.parametrize(("arguments", "message"), FATAL, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_it_cannot_go_on(cli, houses_run, new, table, tmp_path, arguments, message):
    table("missing.csv", "size,city\n1,Ulm\n")
    table("words.csv", "size,age,city\nbig,2,Ulm\nsmall,3,Bonn\n1,1,Bonn\n")
    table("empty.csv", "")
    (tmp_path / "folder.csv").mkdir()
    before = new.read_bytes()
    shown = cli("predict", houses_run, *arguments)
    assert shown.code == 2
    assert message in shown.err
    assert shown.out == ""
    assert new.read_bytes() == before


@pytest.mark.parametrize(
    "command", [["predict", "RUN", "new.csv"], ["evaluate", "RUN"], ["resume", "RUN"], ["check-gradients", "RUN"]]
)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("nowhere", "There is no run nowhere"),
        ("runs/hauses", "Did you mean runs/houses?"),
        ("new.csv", "is not a run"),
        ("config.json: {", "config.json is not valid JSON"),
        ("config.json: {}", "was not written by chainrule"),
        ("checkpoints", "no checkpoint"),
        ("checkpoint", "damaged"),
        ("metrics.sqlite", "metrics.sqlite"),
    ],
)
def test_runs_that_are_none_or_damaged(cli, houses_run, new, tmp_path, command, damage, message):
    run = tmp_path / houses_run
    if damage.startswith("config.json"):
        (run / "config.json").write_text(damage.partition(": ")[2])
    elif damage.startswith("checkpoint"):
        for path in (run / "checkpoints").iterdir():
            path.unlink() if damage == "checkpoints" else path.write_bytes(path.read_bytes()[:-9] + b"something")
    elif damage == "metrics.sqlite":
        (run / damage).write_bytes(b"no database" * 100)
    else:
        houses_run = damage
    shown = cli(*[word.replace("RUN", houses_run) for word in command])
    if command[0] == "resume" and damage == "checkpoints":
        assert shown.code == 0  # it begins anew: the settings are in config.json
        return
    assert shown.code == 2
    assert message.lower() in shown.err.lower()


def test_a_run_that_was_made_in_python(cli, tmp_path):
    with Run.create(tmp_path / "runs", "mine", config={"model": "Linear"}):
        pass
    shown = cli("predict", "mine", "iris")
    assert shown.code == 2
    assert "was not made by `chainrule train`" in shown.err


def test_evaluate_gives_the_table_of_the_training(cli, table):
    trained = json.loads(cli("train", "iris", "--epochs", 5, "--name", "iris", "--json").out)
    assert json.loads(cli("evaluate", "iris", "--json").out)["scores"] == trained["scores"]
    shown = cli("evaluate", "iris")
    assert [line.split()[0] for line in shown.out.splitlines()[1:4]] == ["train", "validation", "test"]
    assert "confusion, test" in shown.out


def test_evaluate_on_other_rows(cli, houses_run, table):
    table("new.csv", "size,age,city,price,zip\n1,2,Ulm,7,1\n2,3,Bonn,9,2\n2,3,Bonn,,2\n")
    shown = cli("evaluate", houses_run, "new.csv")
    assert "1 column unknown to training, ignored: zip" in shown.out
    assert "1 row left out, it is missing" in shown.out
    assert "residuals, new.csv" in shown.out
    assert json.loads(cli("evaluate", houses_run, "new.csv", "--json").out)["rows"] == {"new.csv": 2}


def test_evaluate_needs_the_target(cli, houses_run, new):
    shown = cli("evaluate", houses_run, "new.csv")
    assert shown.code == 2
    assert 'new.csv has no column "price"' in shown.err


def test_data_that_have_changed_are_noticed(cli, houses_run, table, tmp_path):
    path = tmp_path / "houses.csv"
    good = path.read_text()
    table("houses.csv", good.replace("Ulm", "Köln", 1))
    for command in ("evaluate", "resume", "check-gradients"):
        shown = cli(command, houses_run)
        assert shown.code == 2
        assert "has changed since houses was made" in shown.err
    path.unlink()
    shown = cli("evaluate", houses_run)
    assert shown.code == 2
    assert "The data of houses are gone" in shown.err
    table("moved.csv", good)
    assert cli("evaluate", houses_run, "--source", "moved.csv").code == 0


def test_files_of_the_same_kind_are_read_in_the_same_way(cli, table):
    lines = "\n".join(f"{i % 9},5;{i % 9 * 2},25" for i in range(50))
    table("comma.csv", f"a;b\n{lines}\n")
    assert cli("train", "comma.csv", "-t", "b", "--separator", ";", "--decimal", ",", "--name", "comma", "-q").code == 0
    table("new.csv", "a\n7,5\n")  # alone, this could be two columns
    assert 10 < float(rows(cli("predict", "comma", "new.csv"))[1]) < 18
