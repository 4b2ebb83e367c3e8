"""The other examples run, and what they show is so."""

import numpy as np
import pytest
from tests.examples.programs import EXAMPLES, load


def test_every_example_has_a_test():
    tested = {"by_hand", "learning_rates", "autoencoder_digits", "train_from_python", "custom_training_loop"}
    networks = {"fashion_mnist", "char_lstm", "char_gpt"}
    alone = {"own_layer_and_rule", "explain_by_hand"}
    applications = {"blood_cells", "denoising_autoencoder", "sentences", "spoken_digits", "translation"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested | alone | networks | applications


def test_train_from_python(tmp_path):
    result = load("train_from_python").main(folder=str(tmp_path), progress="silent")
    assert result["test"]["accuracy"] > 0.95
    assert result["same"]
    assert (tmp_path / "digits.safetensors").stat().st_size > 10_000
    history = result["run"].history
    assert history[-1]["loss"] < history[0]["loss"] / 5
    first, _, last = result["steps"]
    assert last < first
    for part in ("in-out  model.0.weight f32[64, 64]", "forward", "backward", "update", "model.3.bias ←"):
        assert part in result["program"]
    assert "train_from_python.py:" in result["program"]


def test_the_styles_of_a_loop_are_the_same():
    example = load("custom_training_loop")
    runs = example.main(epochs=8)
    first, losses = runs["value_and_grad, eager"]
    habitual, same = runs["loss.backward()"]
    assert losses[-1] < losses[0] / 2
    assert same == losses  # to the bit: the same operations in the same order
    for (name, a), (_, b) in zip(first.named_parameters(), habitual.named_parameters(), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)
    for model, values in runs.values():  # the compiled one rounds in its own way
        np.testing.assert_allclose(values, losses, rtol=1e-4)
        for (name, a), (_, b) in zip(first.named_parameters(), model.named_parameters(), strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-4, err_msg=name)
    assert example.accuracy(first) > 0.95


def test_own_layer_and_rule():
    example = load("own_layer_and_rule")
    fixed, learned = example.main().values()
    assert learned > 0.9 > fixed + 0.2


def test_the_rule_passes_the_gradient_near_zero_only():
    import chainrule as cr

    example = load("own_layer_and_rule")
    x = cr.tensor([-3.0, -0.5, 0.5, 3.0])
    assert cr.grad(lambda x: cr.sum(7 * example.yes_or_no(x)))(x).tolist() == [0, 7, 7, 0]
    assert cr.grad(lambda x: cr.sum(7 * example.threshold(x)))(x).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_say_how_they_are_run(path):
    text = path.read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in text.partition('"""\n\n')[0]
    assert '__name__ == "__main__"' in text
