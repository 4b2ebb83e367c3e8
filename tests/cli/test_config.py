"""Options: their checks, and the file that gives them."""

import json

import pytest
import typer

from chainrule.cli.checks import check_every, check_layers, check_time, choice, real, seconds, whole


@pytest.fixture
def trained(cli, tmp_path):
    """`trained(*arguments)` trains iris without showing it, and returns the options that the run has kept."""

    def train(*arguments):
        shown = cli("train", *arguments, "-q", "--epochs", 1, "--name", "kept")
        assert shown.code == 0, shown.err
        return options_of(tmp_path / "runs" / "kept")

    return train


def options_of(path):
    groups = json.loads((path / "config.json").read_text())["config"]["options"]
    return {name: value for group in groups.values() for name, value in group.items()}


def test_defaults_are_kept_with_the_run(trained):
    kept = trained("iris")
    assert (kept["optimizer"], kept["layers"], kept["seed"], kept["bad_rows"]) == ("adamw", "auto", 0, "error")


def test_a_file_stands_between_the_command_line_and_the_defaults(trained, table):
    table("run.toml", 'lr = 0.5\nseed = 3\nlayers = [8, 4]\nflag-missing = false\nmetric = ["f1", "recall"]\n')
    kept = trained("iris", "--config", "run.toml", "--seed", 4)
    assert (kept["seed"], kept["lr"], kept["layers"], kept["patience"]) == (4, 0.5, "8,4", 10)
    assert kept["flag_missing"] is False
    assert kept["metric"] == ["f1", "recall"]


def test_the_command_line_wins_wherever_the_file_is_named(trained, table):
    table("run.toml", "seed = 3\n")
    assert trained("--seed", 4, "--config", "run.toml", "iris")["seed"] == 4


def test_one_word_will_do_for_an_option_that_may_be_repeated(trained, table):
    table("run.toml", 'metric = "f1"\nignore = "petal length (cm)"\n')
    kept = trained("iris", "--config", "run.toml")
    assert (kept["metric"], kept["ignore"]) == (["f1"], ["petal length (cm)"])


def test_the_file_may_name_the_source(cli, table):
    table("houses.csv")
    table("run.toml", 'source = "houses.csv"\ntarget = "price"\nepochs = 1\nquiet = true\n')
    assert cli("train", "--config", "run.toml").code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 5", 'run.toml: "epoch" is not an option. Did you mean "epochs"?'),
        ("batch_sise = 5", 'Did you mean "batch-size"?'),
        ("nonsense = 1", "Options: activation, augment, bad-rows"),
        ("[train]\nepochs = 5", 'run.toml: "train" is a table.'),
        ("epochs = 2.5", '"2.5" is no whole number (from run.toml).'),
        ("epochs = true", '"True" is no whole number (from run.toml).'),
        ('lr = "fast"', '"fast" is no number (from run.toml).'),
        ('optimizer = "adma"', '"adma" is no optimizer.'),
        ("layers = [[1], [2]]", "lists in a list"),
        ('epochs = "many', "not valid TOML"),
        (b"\xff\xfe\x00", "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_sense(cli, table, text, message):
    table("run.toml", text)
    shown = cli("train", "iris", "--config", "run.toml")
    assert shown.code == 2
    assert message in shown.err


@pytest.mark.parametrize("name", ["nowhere.toml", "."])
def test_a_file_that_cannot_be_read(cli, name):
    shown = cli("train", "iris", "--config", name)
    assert shown.code == 2
    assert f"{name} cannot be read" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "adma"], 'Did you mean "adamax"?'),
        (["--activation", "rleu"], 'Did you mean "relu"?'),
        (["--norm", "x"], "Known: auto, none, batch, layer"),
        (["--loss", "crossentropy"], 'Did you mean "cross_entropy"?'),
        (["--metric", "acuracy"], 'Did you mean "accuracy"?'),
        (["--schedule", "cosin"], 'Did you mean "cosine"?'),
        (["--task", "classify"], "Known: binary, multiclass, regression"),
        (["--class-weight", "blanced"], 'Did you mean "balanced"?'),
        (["--engine", "refrence"], 'Did you mean "reference"?'),
        (["--precision", "fsat"], 'Did you mean "fast"?'),
        (["--bad-rows", "keep"], "Known: error, skip"),
        (["--epochs", "ten"], '"ten" is no whole number'),
        (["--epochs", "0"], "at least 1"),
        (["--batch-size", "-5"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
        (["--lr", "0"], "above 0"),
        (["--lr", "nan"], "no finite number"),
        (["--lr", "1e400"], "no finite number"),
        (["--dropout", "1"], "at most 0.99"),
        (["--validation", "1.5"], "at most 0.99"),
        (["--layers", "64,x"], "64,64"),
        (["--layers", "0"], "64,64"),
        (["--time-limit", "soon"], "10m for minutes"),
        (["--checkpoint-every", "never"], "30 s, 5 min, or 500 steps"),
        (["--kind", "zip"], "COLUMN=KIND"),
        (["--kind", "zip=number"], '--kind names the column "zip"'),
        (["--kind", "petal width (cm)=nmber"], '"nmber" is no kind of column'),
        (["--ignore", "petal"], "no column of iris"),
        (["--validation", "0.6", "--test", "0.6"], "--validation 0.6 and --test 0.6"),
        (["--loss", "mse"], "--loss mse does not fit a multiclass task"),
        (["--metric", "rmse"], "--metric rmse does not fit"),
        (["--metric", "auc"], "--metric auc does not fit"),
        (["--warmup", "5", "--epochs", "5"], "--warmup 5 is not shorter"),
        (["--label-smoothing", "0.1", "--loss", "multi_margin"], "goes with the loss cross_entropy"),
        (["--optimizer", "lbfgs", "--clip-norm", "1"], "lbfgs"),
        (["--norm", "batch", "--batch-size", "1"], "--norm batch"),
        (["--name", "a/b"], "Try 'a-b'"),
        (["--decimal", "x"], "decimal"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_options_that_make_no_sense_leave_no_run_behind(cli, tmp_path, arguments, message):
    shown = cli("train", "iris", *arguments)
    assert shown.code == 2
    assert message in shown.err
    assert not list(tmp_path.glob("runs/*"))


def test_balanced_classes_need_classes(cli):
    assert "needs classes" in cli("train", "diabetes", "--class-weight", "balanced").err


def test_words_may_be_written_with_dashes_and_capitals():
    assert choice("loss", ("cross_entropy",))(" Cross-Entropy ") == "cross_entropy"


@pytest.mark.parametrize(
    ("check", "given", "value"),
    [
        (whole(1), "7", 7),
        (whole(1), 7, 7),
        (real(0), "0", 0.0),
        (real(0, 1), "1", 1.0),
        (check_layers, " 64, 32 ", "64,32"),
        (check_layers, "None", "none"),
        (check_time, "1.5h", "1.5h"),
        (check_every, "500", "500 steps"),
        (check_every, "5 min", "5 min"),
    ],
)
def test_checks_let_pass_what_makes_sense(check, given, value):
    assert check(given) == value


@pytest.mark.parametrize(
    ("check", "given"),
    [
        (whole(1), "1.0"),
        (whole(1), ""),
        (real(0), "inf"),
        (real(0, above=True), "0"),
        (check_layers, ""),
        (check_time, "0"),
    ],
)
def test_checks_hold_back_what_makes_none(check, given):
    with pytest.raises(typer.BadParameter):
        check(given)


def test_times():
    assert [seconds(text) for text in ("90", "90 s", "2m", "2 min", ".5h", "1.5d", "-3")] == [
        90,
        90,
        120,
        120,
        1800,
        0,
        0,
    ]
