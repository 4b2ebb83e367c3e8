"""Strings of spoken digits, written down: a recurrent network and the CTC loss.

A recording becomes a picture of 40 bands of pitch every 20 ms; a convolution halves the time, a bidirectional GRU reads
it both ways and says at each moment which digit was just spoken, or none. Nobody tells it when: the CTC loss adds up
over all ways to line up the digits with time. For training, one to four recordings of a speaker are strung together
anew in each epoch. The Free Spoken Digit Dataset (3,000 recordings, CC BY-SA 4.0) keeps the first five of each speaker
and digit for the test.
Source: Graves et al., "Connectionist temporal classification" (2006).

    python examples/spoken_digits.py fsdd.zip --plot digits.png
"""

import argparse
import io
import time
import wave
import zipfile

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

BANDS, WINDOW, HOP, RATE = (
    40,
    256,
    160,
    8000,
)  # of pitch; samples a Fourier transform and from one to the next; a second
FRAMES, MOST, BLANK = 256, 4, 10  # the longest input; digits in a string; the class for "none now"
BATCH = 32


def read(path: str) -> dict[str, list[tuple[str, int, np.ndarray]]]:
    """(speaker, digit, sound in bands (frames, BANDS)) of the training and the test recordings."""
    parts: dict[str, list] = {"train": [], "test": []}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
            digit, speaker, number = name.split("/")[-1].removesuffix(".wav").split("_")
            with wave.open(io.BytesIO(archive.read(name))) as sound:
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
            part = "test" if int(number) < 5 else "train"
            parts[part].append((speaker, int(digit), bands(samples / 32768)))
    return parts


def bands(samples: np.ndarray) -> np.ndarray:
    """Loudness by pitch, (frames, BANDS): logarithms of short Fourier transforms, summed as the ear does (mel)."""
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    begins = np.arange(0, len(samples) - WINDOW + 1, HOP)
    frames = samples[begins[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1) / RATE * WINDOW
    k = np.arange(power.shape[1])[:, None]
    rising, falling = (k - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - k) / np.diff(edges)[1:]
    sums = power @ np.maximum(0, np.minimum(rising, falling))
    return (np.log(sums + 1e-6) / 4 + 1.5).astype(np.float32)


class Listener(nn.Module):
    """Sounds (batch, FRAMES, BANDS) -> log probabilities of digits and of none (FRAMES / 2, batch, 11)."""

    def __init__(self, hidden: int = 96) -> None:
        self.normalise = nn.BatchNorm1d(BANDS)
        self.conv = nn.Conv1d(BANDS, hidden, 5, stride=2, padding=2)
        self.dropout = nn.Dropout(0.3)
        self.gru = nn.GRU(hidden, hidden, bidirectional=True)
        self.out = nn.Linear(2 * hidden, BLANK + 1)

    def forward(self, x):
        """Time comes first, as the loss wants it."""
        x = cr.relu(self.conv(self.normalise(cr.permute_dims(x, (0, 2, 1)))))
        y, _ = self.gru(self.dropout(cr.permute_dims(x, (2, 0, 1))))
        return cr.log_softmax(self.out(self.dropout(y)), axis=-1)


def strings(recordings, draw, count: int, most: int = MOST):
    """`count` strings of recordings of one speaker each: sounds, their lengths in steps, digits, how many digits."""
    by_speaker: dict[str, list] = {}
    for speaker, digit, sound in recordings:
        by_speaker.setdefault(speaker, []).append((digit, sound))
    speakers = sorted(by_speaker)
    chosen = []
    for _ in range(count):
        own = by_speaker[speakers[draw.integers(len(speakers))]]
        chosen.append([own[i] for i in draw.integers(0, len(own), draw.integers(1, most + 1))])
    return collected(chosen)


def collected(chosen):
    """Lists of (digit, sound) as arrays."""
    sounds = np.full((len(chosen), FRAMES, BANDS), np.log(1e-6) / 4 + 1.5, np.float32)
    lengths, digits, counts = (np.zeros(shape, np.int64) for shape in (len(chosen), (len(chosen), MOST), len(chosen)))
    for i, parts in enumerate(chosen):
        sound = np.concatenate([sound for _, sound in parts])[:FRAMES]
        sounds[i, : len(sound)], lengths[i] = sound, (len(sound) + 1) // 2
        digits[i, : len(parts)], counts[i] = [digit for digit, _ in parts], len(parts)
    return sounds, lengths, digits, counts


@cr.compile
def step(model, optimizer, sounds, lengths, digits, counts):
    def objective(model):
        return losses.ctc(model(sounds), digits, lengths, counts, blank=BLANK, zero_infinity=True)

    loss, grads = cr.value_and_grad(objective)(model)
    grads, _ = optim.clip_grad_norm(grads, 5.0)
    optimizer.update(model, grads)
    return loss


listen = cr.compile(lambda model, sounds: model(sounds))


def written(model, sounds, lengths) -> list[list[int]]:
    """The digits of each sound: the likeliest class at each moment, repetitions and "none" left out."""
    found = []
    for i in range(0, len(sounds), BATCH):
        part = np.zeros((BATCH, *sounds.shape[1:]), np.float32)
        part[: len(sounds[i : i + BATCH])] = sounds[i : i + BATCH]
        best = np.asarray(listen(model.eval(), part)).argmax(-1).T
        for classes, length in zip(best, lengths[i : i + BATCH], strict=False):
            classes = classes[:length]
            changed = np.append(True, classes[1:] != classes[:-1])
            found.append([int(k) for k in classes[changed] if k != BLANK])
    return found


def errors(found: list[int], truth: list[int]) -> int:
    """How many digits must be put in, taken out or changed (Levenshtein)."""
    row = list(range(len(truth) + 1))
    for i, a in enumerate(found, start=1):
        before, row = row, [i]
        for k, b in enumerate(truth, start=1):
            row.append(min(before[k] + 1, row[-1] + 1, before[k - 1] + (a != b)))
    return row[-1]


def main(path: str, epochs: int = 30, steps: int = 60, plot: str | None = None) -> dict[str, float]:
    """Train on strings, test on single digits and on strings of others' recordings; returns both error rates."""
    data = read(path)
    cr.random.manual_seed(0)
    model, draw, begun = Listener(), np.random.default_rng(0), time.perf_counter()
    optimizer = optim.AdamW(lr=optim.one_cycle(4e-3, total_steps=epochs * steps), weight_decay=0.01)
    print(f"{len(data['train']):,} recordings; {model.parameter_count():,} parameters")
    for epoch in range(1, epochs + 1):
        model.train()
        sounds = strings(data["train"], draw, steps * BATCH)
        total = sum(
            float(step(model, optimizer, *[part[i : i + BATCH] for part in sounds]))
            for i in range(0, steps * BATCH, BATCH)
        )
        if epoch % 5 == 0 or epoch == epochs:
            print(f"epoch {epoch:3}   loss {total / steps:.4f}   {time.perf_counter() - begun:.0f} s", flush=True)
    singles = collected([[(digit, sound)] for _, digit, sound in data["test"]])
    several = strings(data["test"], np.random.default_rng(1), 300)
    wrong = np.mean([found != [d] for found, (d, *_) in zip(written(model, *singles[:2]), singles[2], strict=True)])
    told = [errors(found, list(d[:n])) for found, d, n in zip(written(model, *several[:2]), *several[2:], strict=True)]
    result = {"single": float(1 - wrong), "rate": sum(told) / int(several[3].sum())}
    print(f"{result['single']:.2%} of {len(singles[0])} single digits are right; in strings of up to {MOST} digits "
          f"{result['rate']:.2%} are wrong, missing or too many")  # fmt: skip
    if plot:
        picture(model, several, plot)
        print(f"picture: {plot}")
    return result


def picture(model, several, path: str) -> None:
    """A string of digits as sound, and how likely each digit is at each moment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sounds, lengths, digits, counts = several
    i = int(np.argmax(counts))
    p = np.exp(np.asarray(listen(model.eval(), sounds[i : i + BATCH]))[: lengths[i], 0])
    figure, (upper, lower) = pyplot.subplots(2, figsize=(9, 5.5), sharex=True, layout="constrained")
    seconds = 2 * HOP / RATE * np.arange(lengths[i])
    upper.imshow(sounds[i, : 2 * lengths[i]].T, origin="lower", aspect="auto", extent=(0, seconds[-1], 0, BANDS))
    upper.set(title=f"Spoken: {' '.join(map(str, digits[i, : counts[i]]))}", ylabel="band of pitch")
    for k in range(BLANK):
        if p[:, k].max() > 0.1:
            lower.plot(seconds, p[:, k], label=str(k))
    lower.plot(seconds, p[:, BLANK], color="lightgrey", label="none", zorder=0)
    lower.set(xlabel="seconds", ylabel="probability")
    lower.legend(loc="right")
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write down spoken digits.")
    parser.add_argument("path", help="the Free Spoken Digit Dataset, a zip file")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--plot", metavar="FILE.png", help="draw a string of digits (needs matplotlib)")
    arguments = parser.parse_args()
    main(**vars(arguments))
