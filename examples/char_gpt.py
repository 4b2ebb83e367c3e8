"""A small GPT that learns to write like Shakespeare, character by character, on a laptop's processor.

The model is made of basic layers, and the loop is written out: a compiled step (loss, gradients, clipping, AdamW),
random windows of the text, a learning rate that rises and falls. The setting is that of nanoGPT for processors
(Karpathy, 2022): 4 layers of width 128 with 4 heads, windows of 64 characters, 12 a batch, 2,000 steps; but the rate
rises to 0.002, not 0.001: a validation loss of 1.83 at the end instead of 1.92.
Source: Radford et al., "Language models are unsupervised multitask learners" (2019).

    python examples/char_gpt.py tinyshakespeare.txt.gz --plot gpt.png
    python examples/char_gpt.py tinyshakespeare.txt.gz --compare-torch    # the same weights and windows by PyTorch
"""

import argparse
import copy
import math
import os
import time

import numpy as np

import chainrule as cr
from chainrule import losses, nn, optim

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
RATE = 2e-3


class Attention(nn.Module):
    """Each character looks at those before it, with several heads."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        """(batch, time, width), keeps it."""
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = cr.unstack(cr.permute_dims(self.qkv(x).reshape(shape), (2, 0, 3, 1, 4)))  # (batch, head, time, depth)
        y = cr.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(cr.permute_dims(y, (0, 2, 1, 3)).reshape((batch, length, width)))


class GPT(nn.Module):
    """ids (batch, time) -> scores of the next character (batch, time, vocabulary)."""

    def __init__(self, vocabulary: int, layers: int = LAYERS, heads: int = HEADS, width: int = WIDTH) -> None:
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(BLOCK, width)
        self.blocks = nn.Sequential()
        for _ in range(layers):
            self.blocks.append(nn.Residual(nn.LayerNorm(width, bias=False), Attention(width, heads)))
            wide, narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
            self.blocks.append(nn.Residual(nn.LayerNorm(width, bias=False), wide, nn.GELU(), narrow))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in list(self.named_parameters()):
            if weight.ndim == 2:  # what adds to the residual stream starts smaller, as there are 2 · layers such sums
                adds = name.endswith(("out.weight", "inner.3.weight"))
                std = 0.02 / math.sqrt(2 * layers) if adds else 0.02
                self.assign({name: nn.init.normal(weight.shape, std=std)})

    def forward(self, ids):
        """Characters, and the place of each, through all blocks."""
        x = self.token(ids) + self.place(cr.arange(ids.shape[1]))
        return cr.linear(self.norm(self.blocks(x)), self.token.weight)  # the table of the input once more


def loss_of(model, x, y):
    scores = model(x)
    return losses.cross_entropy(scores.reshape((y.size, scores.shape[-1])), y.reshape((y.size,)))


@cr.compile
def train_step(model, optimizer, x, y):
    loss, grads = cr.value_and_grad(lambda m: loss_of(m, x, y))(model)
    grads, _ = optim.clip_grad_norm(grads, 1.0)
    optimizer.update(model, grads)
    return loss


measure = cr.compile(loss_of)
scores_of = cr.compile(lambda model, ids: model(ids))


def validation_loss(model, text, rows: int = 64) -> float:
    """The mean over all windows side by side (what does not fill the last batch is left out)."""
    x, y = text.windows(BLOCK)
    rows = min(rows, len(x))
    found = [measure(model, x[i : i + rows], y[i : i + rows]) for i in range(0, len(x) - rows + 1, rows)]
    return float(np.mean([float(loss) for loss in found]))


def write(model, text, length: int, generator, temperature: float = 0.8) -> str:
    """A text of the model's own: each character drawn by the scores after those before it."""
    ids = text.encode("\n").tolist()
    for _ in range(length):
        context = ids[-BLOCK:]
        padded = np.zeros((1, BLOCK), np.int32)  # one shape for all; what stands behind is not looked at
        padded[0, : len(context)] = context
        scores = scores_of(model, padded)[0, len(context) - 1]
        ids.append(int(generator.categorical(scores / temperature)))
    return text.decode(ids)


def rate_of(steps: int):
    """The learning rate: it rises for 100 steps, and falls to the end."""
    warm = min(100, steps // 10)
    return optim.warmup(warm, then=optim.cosine(RATE, T_max=max(1, steps - warm), eta_min=1e-4))


def train_torch(model, training, validation, steps: int) -> tuple[list[float], float, float]:
    """The same by PyTorch, from the weights of `model`: the losses, that of validation, and seconds of training."""
    import torch
    from torch.nn import functional

    def attend(qkv, out, x):
        batch, length, width = x.shape
        heads = model.blocks[0].inner[1].heads
        q, k, v = qkv(x).reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out(y.transpose(1, 2).reshape(batch, length, width))

    def linear(outputs, inputs):
        return torch.nn.Linear(inputs, outputs, bias=False)

    (vocabulary, width), blocks = model.token.weight.shape, len(model.blocks) // 2
    sizes = [(width, (3 * width, width), (width, width)), (width, (4 * width, width), (width, 4 * width))] * blocks
    parts = [torch.nn.Embedding(vocabulary, width), torch.nn.Embedding(BLOCK, width)]
    for norm, one, other in sizes:
        parts += [torch.nn.LayerNorm(norm, bias=False), linear(*one), linear(*other)]
    net = torch.nn.ModuleList([*parts, torch.nn.LayerNorm(width, bias=False)])
    with torch.no_grad():
        for theirs, ours in zip(net.parameters(), model.parameters(), strict=True):
            theirs.copy_(torch.tensor(np.asarray(ours)))

    def loss_of(ids, y):
        x = net[0](ids) + net[1](torch.arange(ids.shape[1]))
        for i in range(2, len(net) - 1, 6):
            x = x + attend(net[i + 1], net[i + 2], net[i](x))
            x = x + net[i + 5](functional.gelu(net[i + 4](net[i + 3](x))))
        scores = functional.linear(net[-1](x), net[0].weight)
        return functional.cross_entropy(scores.reshape(-1, vocabulary), y.reshape(-1))

    torch.set_num_threads(int(os.environ.get("CHAINRULE_THREADS", os.cpu_count() or 1)))
    kinds = [[p for p in net.parameters() if (p.ndim < 2) == thin] for thin in (False, True)]
    groups = [{"params": kinds[0]}, {"params": kinds[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    generator, rate, found, begun = cr.random.Generator(1337), rate_of(steps), [], time.perf_counter()
    for step in range(steps):
        ids, y = (
            torch.tensor(np.asarray(part), dtype=torch.int64) for part in training.sample(BLOCK, BATCH, generator)
        )
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step))
        loss = loss_of(ids, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        found.append(loss.item())
    seconds = time.perf_counter() - begun
    x, y = (torch.tensor(np.asarray(part), dtype=torch.int64) for part in validation.windows(BLOCK))
    with torch.no_grad():
        rows = min(64, len(x))
        losses = [loss_of(x[i : i + rows], y[i : i + rows]).item() for i in range(0, len(x) - rows + 1, rows)]
    return found, float(np.mean(losses)), seconds


def main(
    path: str, steps: int = 2000, every: int = 250, length: int = 500, plot: str | None = None,
    compare_torch: bool = False, **sizes: int,
) -> dict:  # fmt: skip
    """Train, measure, write; returns the losses and the text written."""
    training, validation = cr.data.CharacterText.read(path).split(0.1)
    cr.random.manual_seed(1337)
    model, generator = GPT(len(training.vocabulary), **sizes), cr.random.Generator(1337)
    start, rate = copy.deepcopy(model), rate_of(steps)
    decayed_not = [{"params": lambda name, weight: weight.ndim < 2, "weight_decay": 0.0}]
    optimizer = optim.AdamW(lr=rate, betas=(0.9, 0.99), weight_decay=0.1, groups=decayed_not)
    print(f"{len(training):,} characters, {len(training.vocabulary)} kinds; {model.parameter_count():,} parameters")
    history, recent, seconds = [], [], 0.0
    for step in range(1, steps + 1):
        begun = time.perf_counter()
        recent.append(float(train_step(model, optimizer, *training.sample(BLOCK, BATCH, generator))))
        seconds += time.perf_counter() - begun
        if step % every == 0 or step == steps:
            history.append((step, float(np.mean(recent)), validation_loss(model, validation)))
            recent = []
            print("step {:5}  loss {:.4f}  validation {:.4f}".format(*history[-1]), f" {seconds:6.1f} s")
    text = write(model, training, length, generator)
    print(f"{steps} steps in {seconds / 60:.2f} minutes\n{text}")
    if plot:
        draw(history, plot)
        print(f"picture: {plot}")
    result = {"history": history, "text": text, "seconds": seconds, "model": model}
    if compare_torch:
        result["torch"] = train_torch(start, training, validation, steps)
        _, reached, seconds = result["torch"]
        print(f"PyTorch: validation {reached:.4f}, {steps} steps in {seconds / 60:.2f} minutes")
    return result


def draw(history: list[tuple[int, float, float]], path: str) -> None:
    """Both losses over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps, training, validation = zip(*history, strict=True)
    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(steps, training, label="training, mean since the point before")
    axis.plot(steps, validation, label=f"validation, {validation[-1]:.3f} at the end")
    axis.set(xlabel="step", ylabel="loss of a character, in nats", title="A small GPT learns to write")
    axis.legend()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small GPT on a text.")
    parser.add_argument("path", help="a text, which may be gzipped")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--plot", metavar="FILE.png", help="draw a picture (needs matplotlib)")
    parser.add_argument("--compare-torch", action="store_true", help="train the same network by PyTorch, too")
    arguments = parser.parse_args()
    main(arguments.path, arguments.steps, plot=arguments.plot, compare_torch=arguments.compare_torch)
