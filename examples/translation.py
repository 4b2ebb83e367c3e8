"""A transformer that learns to translate: an encoder reads a sentence, a decoder writes it in another language.

Sentences are cut into words, those of similar length make a batch (each length is compiled once), words that come only
once in training are unknown. The translation is searched by beams, with the keys and values of all that was written
kept, and measured by BLEU.
Sources: Vaswani et al., "Attention is all you need" (2017); Papineni et al., "BLEU" (2002); Elliott et al., "Multi30K"
(2016) for the sentences.

    python examples/translation.py FOLDER            # with train.en.gz, train.fr.gz, test_2016_flickr.en.gz ...
    python examples/translation.py FOLDER --epochs 3 --plot attention.png
"""

import argparse
import collections
import gzip
import math
import re
import time
from pathlib import Path

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

PADDING, UNKNOWN, BEGIN, END = range(4)
LENGTHS = (12, 18, 26, 40)  # words, both marks counted; a sentence that is longer is left out in training
WORDS = 1536  # in a batch, of each language, padding counted
WIDTH, HEADS, LAYERS, HIDDEN, DROPOUT = 128, 4, 3, 512, 0.1
RATE, WARM = 2e-3, 600
TEST = "test_2016_flickr"


def read(folder: str, part: str, language: str) -> list[list[str]]:
    """The words of each sentence, in small letters."""
    text = gzip.decompress((Path(folder) / f"{part}.{language}.gz").read_bytes()).decode()
    return [re.findall(r"\w+['’]?|[^\w\s]", line.lower()) for line in text.splitlines()]


class Vocabulary:
    """Words and their numbers."""

    def __init__(self, sentences: list[list[str]]) -> None:
        counts = collections.Counter(word for words in sentences for word in words)
        self.words = ["", "?", "<", ">"] + [word for word, count in counts.most_common() if count > 1]
        self.numbers = {word: i for i, word in enumerate(self.words)}

    def encode(self, words: list[str]) -> list[int]:
        """Numbers, with marks at both ends."""
        return [BEGIN, *(self.numbers.get(word, UNKNOWN) for word in words), END]

    def decode(self, ids) -> list[str]:
        """Words, without marks."""
        return [self.words[i] for i in ids if i not in (PADDING, BEGIN, END)]


def padded(sentences: list[list[int]], length: int) -> np.ndarray:
    """ids (sentences, length)"""
    ids = np.full((len(sentences), length), PADDING, np.int32)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    return ids


class Translator(nn.Module):
    """Sentences (batch, S) and the beginnings of their translations (batch, T) -> scores of the next words."""

    def __init__(self, sources: int, targets: int, width: int = WIDTH, layers: int = LAYERS) -> None:
        self.source, self.target = nn.Embedding(sources, width), nn.Embedding(targets, width)
        for table in (self.source, self.target):
            table.assign({"weight": nn.init.normal(table.weight.shape, std=width**-0.5)})
        self.places, self.dropout = nn.SinusoidalEncoding(width, batch_first=True), nn.Dropout(DROPOUT)
        self.core = nn.Transformer(width, HEADS, layers, layers, HIDDEN, DROPOUT, batch_first=True, norm_first=True)
        self.scale = math.sqrt(width)

    def encode(self, source):
        """What the encoder makes of sentences, and where there is none."""
        nothing = source == PADDING
        return self.core.encoder(self.placed(self.source, source), src_key_padding_mask=nothing), nothing

    def forward(self, source, target):
        """Scores (batch, T, words)."""
        memory, nothing = self.encode(source)
        x = self.placed(self.target, target)
        return self.scores(self.core.decoder(x, memory, memory_key_padding_mask=nothing, tgt_is_causal=True))

    def placed(self, table, ids, offset=0):
        """The vectors of words, and where each stands."""
        return self.dropout(self.places(table(ids) * self.scale, offset))

    def scores(self, y):
        """Of all words, by the table of the input."""
        return cr.linear(y, self.target.weight)


class Writer(nn.Module):
    """The decoder, with the sentences that it is to translate: what cr.generate asks for the next word."""

    def __init__(self, model: Translator, source) -> None:
        self.model, self.given = model, source

    def make_cache(self, batch_size: int, max_length: int):
        """With what the encoder has made of the sentences."""
        memory, nothing = encode(self.model, self.given)
        return self.model.core.decoder.make_cache(memory, max_length, nothing)

    def forward(self, target, cache):
        """Scores of the words that follow."""
        x = self.model.placed(self.model.target, target, cache[0]["self"].offset)
        return self.model.scores(self.model.core.decoder(x, cache=cache))


encode = cr.compile(lambda model, source: model.encode(source))


def loss_of(model, source, target):
    """Of each word of the translation, given those before it."""
    scores, wanted = model(source, target[:, :-1]), target[:, 1:]
    return losses.cross_entropy(
        scores.reshape((wanted.size, scores.shape[-1])), wanted.reshape((wanted.size,)),
        ignore_index=PADDING, label_smoothing=0.1,
    )  # fmt: skip


@cr.compile
def train_step(model, optimizer, source, target):
    loss, grads = cr.value_and_grad(lambda m: loss_of(m, source, target))(model)
    grads, _ = optim.clip_grad_norm(grads, 1.0)
    optimizer.update(model, grads)
    return loss


def batches(sources, targets, draw=None):
    """Pairs of one length after the other: ids (rows, length) each; in random order if `draw` is given."""
    lengths = np.array([max(len(a), len(b)) for a, b in zip(sources, targets, strict=True)])
    made, least = [], 0
    for length in LENGTHS:
        rows, size = np.flatnonzero((lengths > least) & (lengths <= length)), WORDS // length
        rows = rows if draw is None else draw.permutation(rows)
        made += [(rows[i : i + size], length) for i in range(0, len(rows) - size + 1, size)]
        least = length
    for i in range(len(made)) if draw is None else draw.permutation(len(made)):
        rows, length = made[i]
        yield padded([sources[k] for k in rows], length), padded([targets[k] for k in rows], length)


def translate(model, sources: list[list[int]], beams: int = 4, together: int = 50) -> list[list[int]]:
    """The best translation found of each sentence, without its marks."""
    order, found = sorted(range(len(sources)), key=lambda i: len(sources[i])), {}
    longest = max(map(len, sources))
    for begin in range(0, len(order), together):
        rows = order[begin : begin + together]
        writer = Writer(model.eval(), padded([sources[i] for i in rows], longest))
        made = cr.generate(writer, [[BEGIN]] * len(rows), longest + 10, "beam", beams=beams, eos=END)
        found.update(zip(rows, made.sequences, strict=True))
    return [found[i] for i in range(len(sources))]


def bleu(found: list[list[str]], truth: list[list[str]]) -> float:
    """Of 100: the geometric mean of the shares of right runs of 1 to 4 words, less where too little was written."""
    right, made = np.zeros(4), np.zeros(4)
    for ours, theirs in zip(found, truth, strict=True):
        for n in range(4):
            a, b = (collections.Counter(zip(*(x[i:] for i in range(n + 1)), strict=False)) for x in (ours, theirs))
            right[n], made[n] = right[n] + (a & b).total(), made[n] + a.total()
    if not right.all():
        return 0.0
    brevity = min(0.0, 1 - sum(map(len, truth)) / max(1, sum(map(len, found))))
    return 100 * math.exp(brevity + float(np.mean(np.log(right / made))))


def main(
    folder: str, languages: str = "en-fr", epochs: int = 12, plot: str | None = None, width: int = WIDTH,
    layers: int = LAYERS,
) -> dict:  # fmt: skip
    """Train, translate the test sentences; returns BLEU, the validation losses, and some translations."""
    pairs = {part: [read(folder, part, name) for name in languages.split("-")] for part in ("train", "val", TEST)}
    source, target = map(Vocabulary, pairs["train"])
    ids = {
        part: ([source.encode(words) for words in one], [target.encode(words) for words in other])
        for part, (one, other) in pairs.items()
    }
    cr.random.manual_seed(0)
    model = Translator(len(source.words), len(target.words), width, layers)
    print(f"{len(source.words):,} and {len(target.words):,} words; {model.parameter_count():,} parameters")
    draw, begun, history = np.random.default_rng(0), time.perf_counter(), []
    steps = epochs * len(list(batches(*ids["train"])))
    warm = min(WARM, steps // 4)
    rate = optim.warmup(warm, then=optim.cosine(RATE, T_max=steps - warm, eta_min=RATE / 50))
    optimizer = optim.Adam(lr=rate, betas=(0.9, 0.98))
    measure = cr.compile(loss_of)
    for epoch in range(1, epochs + 1):
        model.train()
        losses_seen = [float(train_step(model, optimizer, *batch)) for batch in batches(*ids["train"], draw)]
        model.eval()
        validation = float(np.mean([float(measure(model, *batch)) for batch in batches(*ids["val"])]))
        history.append((float(np.mean(losses_seen)), validation))
        seconds = time.perf_counter() - begun
        print(
            f"epoch {epoch:2}   loss {history[-1][0]:.3f}   validation {validation:.3f}   {seconds:.0f} s", flush=True
        )
    found = [target.decode(sentence) for sentence in translate(model, ids[TEST][0])]
    score = bleu(found, pairs[TEST][1])
    for i in range(min(5, len(found))):
        print("\n".join(["", *map(" ".join, (pairs[TEST][0][i], found[i], pairs[TEST][1][i]))]))
    print(f"\nBLEU {score:.1f} on {len(found):,} test sentences, {seconds / 60:.2f} minutes of training")
    if plot:
        draw_attention(model, source, target, ids[TEST][0][0], found[0], plot)
        print(f"picture: {plot}")
    return {"bleu": score, "history": history, "found": found}


def attention(model, source, target):
    """To which words of the source (S) the decoder's last layer looks for each word (T) that it writes: (T, S)"""
    memory, _ = model.eval().encode(source[None])
    x = model.placed(model.target, target[None])
    *others, last = model.core.decoder.layers
    for layer in others:
        x = layer(x, memory, tgt_is_causal=True)
    y = last.norm1(x)
    x = x + last.self_attn(y, y, y, is_causal=True)[0]
    return last.multihead_attn(last.norm2(x), memory, memory)[1][0]


def draw_attention(model, source, target, ids: list[int], found: list[str], path: str) -> None:
    """A grid: words written downwards, words read to the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    weights = np.asarray(attention(model, cr.tensor(ids), cr.tensor(target.encode(found)[:-1])))
    figure, axis = pyplot.subplots(figsize=(7, 6), layout="constrained")
    axis.imshow(weights, cmap="Greys", vmin=0)
    axis.set_xticks(range(len(ids)), [source.words[i] for i in ids], rotation=60, ha="right")
    axis.set_yticks(range(len(weights)), [*found, target.words[END]])
    axis.set_title("Where the decoder's last layer looks, word by word")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a transformer to translate.")
    parser.add_argument("folder", help=f"with train, val and {TEST} in both languages, such as train.en.gz")
    parser.add_argument("--languages", default="en-fr", help="the endings of the files, from-to")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--plot", metavar="FILE.png", help="draw where the decoder looks (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))
