"""An LSTM that learns to write, character by character: `cr.fit` on windows of a text, then a sample.

Characters are embedded, an LSTM reads them, and a linear layer scores what comes next. To write, its state is handed
from one character to the next, so that each takes a single step however long the text is.
Source: Hochreiter and Schmidhuber, "Long short-term memory" (1997); Karpathy, "The unreasonable effectiveness of
recurrent neural networks" (2015).

    python examples/char_lstm.py tinyshakespeare.txt.gz --plot lstm.png
    python examples/char_lstm.py tinyshakespeare.txt.gz --compare-torch
"""

import argparse
import math
import os
import time

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

LENGTH, BATCH = 64, 32


class CharacterLSTM(nn.Module):
    """ids (batch, time) -> scores of the next character (batch, time, vocabulary)."""

    def __init__(self, vocabulary: int, hidden: int = 128) -> None:
        self.hidden = hidden
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, ids):
        """From the beginning."""
        return self.read(ids, self.fresh(ids.shape[0]))[0]

    def fresh(self, batch: int):
        """The state before the first character."""
        return cr.zeros((1, batch, self.hidden)), cr.zeros((1, batch, self.hidden))

    def read(self, ids, state):
        """The scores, and the state behind the last character."""
        y, state = self.lstm(self.embedding(ids), state)
        return self.out(y), state


def next_character(scores, y):
    return losses.cross_entropy(scores.reshape((y.size, scores.shape[-1])), y.reshape((y.size,)))


def write(model, text, length: int, generator, temperature: float = 0.7) -> str:
    """A text of the model's own: each character drawn by the scores after those before it."""
    read = cr.compile(lambda model, ids, state: model.read(ids, state))
    ids, state = text.encode("\n").tolist(), model.fresh(1)
    for _ in range(length):
        scores, state = read(model, np.array([ids[-1:]], np.int32), state)
        ids.append(int(generator.categorical(scores[0, 0] / temperature)))
    return text.decode(ids)


def train_torch(training, validation, epochs: int, hidden: int) -> tuple[float, float]:
    """The same by PyTorch: the lowest validation loss, and seconds of training, validation included."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self, vocabulary):
            super().__init__()
            self.embedding = torch.nn.Embedding(vocabulary, hidden)
            self.lstm = torch.nn.LSTM(hidden, hidden, batch_first=True)
            self.out = torch.nn.Linear(hidden, vocabulary)

        def forward(self, ids):
            return self.out(self.lstm(self.embedding(ids))[0])

    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ.get("CHAINRULE_THREADS", os.cpu_count() or 1)))
    model = Network(len(training.vocabulary))
    x, y, held_x, held_y = (
        torch.tensor(np.asarray(part), dtype=torch.int64)
        for text in (training, validation)
        for part in text.windows(LENGTH)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(x) / BATCH))
    loss_of, best, begun = torch.nn.CrossEntropyLoss(), math.inf, time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            loss = loss_of(model(x[rows]).flatten(0, 1), y[rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            best = min(best, loss_of(model(held_x).flatten(0, 1), held_y.flatten()).item())
    return best, time.perf_counter() - begun


def main(
    path: str, epochs: int = 10, hidden: int = 128, length: int = 500, plot: str | None = None,
    compare_torch: bool = False,
) -> dict:  # fmt: skip
    """Train, write; returns the history and the text written."""
    training, validation = cr.data.CharacterText.read(path).split(0.1)
    cr.random.manual_seed(0)
    model = CharacterLSTM(len(training.vocabulary), hidden)
    x, y = training.windows(LENGTH)
    schedule = optim.cosine(4e-3, T_max=epochs * math.ceil(len(x) / BATCH))
    print(f"{len(x):,} windows, {len(training.vocabulary)} kinds of characters; {model.parameter_count():,} parameters")
    result = cr.fit(
        model,
        (x, y),
        loss=next_character,
        optimizer=optim.Adam(lr=schedule),
        validation=validation.windows(LENGTH),
        epochs=epochs,
        batch_size=BATCH,
        clip_norm=5.0,
        seed=0,
    )
    text = write(model, training, length, cr.random.Generator(0))
    print(f"validation loss {result.best:.4f} a character, {result.seconds / 60:.2f} minutes\n{text}")
    if plot:
        draw(result.history.columns, plot)
        print(f"picture: {plot}")
    found = {"history": result.history, "text": text, "best": result.best, "seconds": result.seconds}
    if compare_torch:
        best, seconds = found["torch"] = train_torch(training, validation, epochs, hidden)
        print(f"PyTorch: validation loss {best:.4f}, {seconds / 60:.2f} minutes")
    return found


def draw(columns: dict[str, list[float]], path: str) -> None:
    """Both losses over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        axis.plot(columns["epoch"], columns[name], marker=".", label=label)
    axis.set(xlabel="epoch", ylabel="loss of a character, in nats", title="An LSTM learns to write")
    axis.legend()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train an LSTM on a text.")
    parser.add_argument("path", help="a text, which may be gzipped")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture (needs matplotlib)")
    parser.add_argument("--compare-torch", action="store_true", help="train the same network by PyTorch, too")
    arguments = parser.parse_args()
    main(arguments.path, arguments.epochs, plot=arguments.plot, compare_torch=arguments.compare_torch)
