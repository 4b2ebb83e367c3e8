"""The examples that train the same network by PyTorch: it is the same, as far as weights, losses and scores tell."""

import numpy as np
import pytest
from tests.examples.programs import load

POEM = "the fog comes on little cat feet. it sits looking over harbor and city on silent haunches and then moves on.\n"


@pytest.fixture
def poem(tmp_path):
    file = tmp_path / "poem.txt"
    file.write_text(POEM * 40)
    return str(file)


def test_the_gpt_of_pytorch_goes_the_same_way_from_the_same_weights(poem):
    example = load("char_gpt")
    result = example.main(poem, steps=20, every=1, length=5, compare_torch=True, layers=2, heads=2, width=32)
    losses, validation, seconds = result["torch"]
    np.testing.assert_allclose([loss for _, loss, _ in result["history"]], losses, rtol=2e-3)
    assert validation == pytest.approx(result["history"][-1][2], rel=2e-3)
    assert seconds > 0


def test_the_lstm_of_pytorch_has_as_many_weights_and_learns_as_well(poem):
    import torch

    result = load("char_lstm").main(poem, epochs=4, hidden=16, length=5, compare_torch=True)
    best, seconds = result["torch"]
    assert best == pytest.approx(result["best"], rel=0.25)
    assert best < np.log(len(set(POEM))) and seconds > 0
    ours = load("char_lstm").CharacterLSTM(9, 16).parameter_count()
    theirs = [torch.nn.Embedding(9, 16), torch.nn.LSTM(16, 16), torch.nn.Linear(16, 9)]
    assert sum(p.numel() for part in theirs for p in part.parameters()) == ours
