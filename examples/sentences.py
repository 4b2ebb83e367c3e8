"""What kind of sentence is this? Convolutions over its words, and a look at the words that decided.

Each word has a vector; windows of 3, 4 and 5 words are scored by 100 filters each, of each filter the highest score in
the sentence counts. The files have a sentence a line, "label word word ...", as the usual sets for this do: TREC (what
is asked for: a person, a place, a number ...), MR and SST (is a film praised or not), Subj. A word's contribution is
the gradient of the winning score by its vector, times the vector.
Sources: Kim, "Convolutional neural networks for sentence classification" (2014); for the contributions Shrikumar et
al., "Not just a black box" (2016).

    python examples/sentences.py TREC.train.all.gz --test TREC.test.all.gz --plot words.png
    python examples/sentences.py stsa.binary.train.gz --test stsa.binary.dev.gz
"""

import argparse
import collections
import gzip
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

PADDING, UNKNOWN = 0, 1
WINDOWS = (3, 4, 5)
MOST = 60  # words of a sentence that are read


def read(path: str) -> tuple[list[list[str]], list[str]]:
    """The words of each sentence, and its label."""
    data = Path(path).read_bytes()
    text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("latin-1")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [words[1:] for words in lines], [words[0] for words in lines]


def vocabulary(sentences: list[list[str]]) -> dict[str, int]:
    """A number for each word, the commonest first; 0 and 1 stand for padding and for words not in it."""
    counts = collections.Counter(word for words in sentences for word in words)
    return {word: i for i, (word, _) in enumerate(counts.most_common(), start=2)}


def encode(sentences: list[list[str]], numbers: dict[str, int], length: int) -> np.ndarray:
    """ids (sentences, length)"""
    ids = np.full((len(sentences), length), PADDING, np.int32)
    for row, words in zip(ids, sentences, strict=True):
        known = [numbers.get(word, UNKNOWN) for word in words[:length]]
        row[: len(known)] = known
    return ids


class SentenceCNN(nn.Module):
    """ids (batch, length) -> a score for each class (batch, classes)."""

    def __init__(self, words: int, classes: int, width: int = 300, filters: int = 100) -> None:
        self.embedding = nn.Embedding(words, width, padding_idx=PADDING)
        self.embedding.assign({"weight": nn.init.uniform((words, width), -0.25, 0.25)})
        self.windows = nn.ModuleList([nn.Conv1d(width, filters, size) for size in WINDOWS])
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(filters * len(WINDOWS), classes)

    def forward(self, ids):
        """Scores of whole sentences."""
        return self.read(self.embedding(ids))

    def read(self, vectors):
        """From the words' vectors (batch, length, width) on."""
        x = cr.permute_dims(vectors, (0, 2, 1))
        return self.out(
            self.dropout(cr.concat([cr.max(cr.relu(window(x)), axis=2) for window in self.windows], axis=1))
        )


def contributions(model: SentenceCNN, ids) -> tuple[np.ndarray, np.ndarray]:
    """The class that wins for each sentence (batch,), and what each word adds to its score (batch, length)."""
    vectors = model.eval().embedding(ids)
    winners = cr.argmax(model.read(vectors), axis=1)

    def score(vectors):
        return cr.sum(cr.take_along_axis(model.read(vectors), winners[:, None], axis=1))

    return np.asarray(winners), np.asarray(cr.sum(cr.grad(score)(vectors) * vectors, axis=2))


def main(path: str, test: str, epochs: int = 8, plot: str | None = None, progress: str = "auto") -> dict:
    """Train, test, look; returns the accuracy on the test sentences and the seconds it took."""
    (sentences, labels), (test_sentences, test_labels) = read(path), read(test)
    numbers, classes = vocabulary(sentences), sorted(set(labels))
    length = min(MOST, max(max(map(len, sentences)), max(WINDOWS)))
    x, y = encode(sentences, numbers, length), np.array([classes.index(label) for label in labels])
    x_test, y_test = encode(test_sentences, numbers, length), np.array([classes.index(label) for label in test_labels])
    cr.random.manual_seed(0)
    model = SentenceCNN(len(numbers) + 2, len(classes))
    print(
        f"{len(x):,} sentences, {len(numbers):,} words, {len(classes)} classes; {model.parameter_count():,} parameters"
    )
    order = np.asarray(cr.random.Generator(0).permutation(len(x)))
    learn, check = order[len(x) // 10 :], order[: len(x) // 10]
    result = cr.fit(
        model,
        (x[learn], y[learn]),
        loss=losses.cross_entropy,
        optimizer=optim.Adam(lr=1e-3),
        validation=(x[check], y[check]),
        metrics="accuracy",
        monitor="validation_accuracy",
        epochs=epochs,
        batch_size=50,
        seed=0,
        progress=progress,
    )
    accuracy = float(cr.evaluate(model, (x_test, y_test), metrics="accuracy", batch_size=50)["accuracy"])
    print(f"accuracy on {len(x_test):,} test sentences {accuracy:.2%}, {result.seconds / 60:.2f} minutes")
    if plot:
        draw(model, x_test[:6], test_sentences[:6], [classes[i] for i in y_test[:6]], classes, plot)
        print(f"picture: {plot}")
    return {"accuracy": accuracy, "seconds": result.seconds, "model": model}


def draw(model, x, sentences, labels, classes, path: str) -> None:
    """For some sentences, what each word adds to the score of the class that won."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    winners, added = contributions(model, x)
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 7), layout="constrained")
    for axis, words, label, winner, numbers in zip(axes.flat, sentences, labels, winners, added, strict=False):
        words = words[:14]
        colours = ["tab:green" if value > 0 else "tab:red" for value in numbers[: len(words)]]
        axis.barh(range(len(words)), numbers[: len(words)], color=colours)
        axis.set_yticks(range(len(words)), words)
        axis.invert_yaxis()
        axis.set_title(f"class {classes[winner]} (truth: {label})", fontsize=10)
    for axis in list(axes.flat)[len(sentences) :]:
        axis.axis("off")
    figure.suptitle("What each word adds to the score of the class that won")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a convolutional network on sentences.")
    parser.add_argument("path", help="sentences to learn from, a line each: label word word ...; may be gzipped")
    parser.add_argument("--test", required=True, help="sentences to test on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--plot", metavar="FILE.png", help="draw what the words contribute (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))
