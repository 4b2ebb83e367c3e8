"""Generation: against brute force, against doing without a cache, and by the frequencies of what is drawn."""

import gc
import itertools
import math
import weakref

import numpy as np
import pytest
from tests.nn.gpt import GPT, spread

import chainrule as cr
from chainrule import nn
from chainrule.errors import ConfigError, DataError, Diverged, DTypeError, ShapeError
from chainrule.generation import models
from chainrule.generation.prompts import Ending

PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5]]


def table(size, seed=0, sharpness=1.5):
    """Logits that depend on the last two tokens, at random."""
    weights = np.random.default_rng(seed).normal(size=(size, size, size)).astype("float32") * sharpness

    def logits(tokens):
        known = np.asarray(tokens)
        return cr.tensor(weights[known[:, -2] if known.shape[1] > 1 else known[:, -1] * 0, known[:, -1]])

    return logits


def log_probability(f, sequence, start):
    """Of what stands behind the first `start` tokens."""
    total = 0.0
    for n in range(start, len(sequence)):
        logits = np.asarray(f(cr.tensor([sequence[:n]]))).astype("float64")
        logits = logits[0, -1] if logits.ndim == 3 else logits[0]
        total += logits[sequence[n]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    return total


def uncached(model):
    return lambda tokens: model(tokens)


# -- greedy


def test_greedy_takes_the_most_likely():
    f = table(6)
    made = cr.generate(f, [[2, 3], [0, 5]], 7)
    for row, log_p in zip(made.sequences, made.log_probabilities.tolist(), strict=True):
        for n in range(2, 9):
            assert row[n] == int(cr.argmax(f(cr.tensor([row[:n]]))[0]))
        assert math.isclose(log_p, log_probability(f, row, 2), rel_tol=1e-5)
    single = cr.generate(f, [0, 5], 7)
    assert single.tokens.shape == (9,) and single.sequences == made.sequences[1]
    assert (single.lengths.shape, single.log_probabilities.shape) == ((), ())


@pytest.mark.parametrize("engine", ["reference", "native"])
@pytest.mark.parametrize("rotary", [True, False])
def test_with_a_cache_as_without(engine, rotary):
    model = spread(GPT(rotary=rotary))
    for prompt in (PROMPTS, PROMPTS[0], cr.tensor([PROMPTS[0], PROMPTS[2][:3]])):
        cached = cr.generate(model, prompt, 6, engine=engine)
        plain = cr.generate(uncached(model.eval()), prompt, 6)
        assert cached.sequences == plain.sequences
        np.testing.assert_allclose(cached.log_probabilities, plain.log_probabilities, rtol=1e-3, atol=1e-4)


def test_prompts_of_several_lengths_are_as_if_alone():
    model = spread(GPT())
    together = cr.generate(model, PROMPTS, 4, eos=7)
    for prompt, made, log_p in zip(PROMPTS, together.sequences, together.log_probabilities.tolist(), strict=True):
        alone = cr.generate(model, prompt, 4, eos=7)
        assert alone.sequences == made
        assert math.isclose(float(alone.log_probabilities), log_p, rel_tol=1e-3, abs_tol=1e-5)


def test_a_step_is_compiled_once_and_does_not_keep_the_model():
    model = spread(GPT())
    for prompt in ([1, 2], [3, 4]):
        cr.generate(model, prompt, 8, max_length=10)
    assert sorted(step.compilations for step in models._known[model].values()) == [1, 1]
    for temperature in (0.5, 2.0):
        cr.generate(model, [1, 2], 8, "sample", temperature=temperature, top_k=3, generator=cr.random.Generator(0))
    assert [step.compilations for step in models._known[model].values()] == [1] * 4
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_all_of_a_step_is_native():
    model, generator = spread(GPT()), cr.random.Generator(0)
    cr.generate(model, PROMPTS, 3, "sample", top_k=4, top_p=0.9, repetition_penalty=1.2, generator=generator)
    cr.generate(model, PROMPTS, 3, "beam", repetition_penalty=1.2)
    plans = [step.explain_plan() for step in models._known[model].values()]
    assert len(plans) > 2
    assert not any("no native code" in plan for plan in plans)


def test_evaluation_mode_and_back():
    model = spread(GPT(dropout=0.5))
    model.blocks.layers[1].eval()
    modes = [m.training for m in model.modules()]
    assert cr.generate(model, [1, 2], 6).sequences == cr.generate(uncached(model.eval()), [1, 2], 6).sequences
    for m, mode in zip(model.modules(), modes, strict=True):
        m.training = mode
    with pytest.raises(Diverged):
        cr.generate(model, [1, 2], 60)  # more than it has positions
    with pytest.raises(ShapeError, match="positions 0 to 11; 0 to 12"):
        cr.generate(uncached(model), [1, 2], 60)
    assert [m.training for m in model.modules()] == modes


def test_a_window():
    f = table(5)
    lengths = []

    def noting(tokens):
        lengths.append(tokens.shape[1])
        return f(tokens)

    assert cr.generate(noting, [0, 1, 2, 3], 4, window=3).sequences == cr.generate(f, [0, 1, 2, 3], 4).sequences
    assert lengths == [3] * 4


# -- the end


def test_end_tokens_and_padding():
    follow = nn.Embedding.from_pretrained(cr.eye(6)[cr.tensor([1, 2, 3, 4, 5, 0])] * 50)  # each token plus one
    made = cr.generate(follow, [[0], [3], [4]], 4, eos=5)
    assert made.tokens.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 5, 5], [4, 5, 5, 5, 5]]
    assert made.lengths.tolist() == [5, 3, 2]
    assert made.sequences == [[0, 1, 2, 3, 4], [3, 4, 5], [4, 5]]
    assert cr.generate(follow, [[0], [3]], 4, eos=[5, 2], pad=0).tokens.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert cr.generate(follow, [[5, 0]], 2, eos=5).sequences == [[5, 0, 1, 2]]  # in the prompt it ends nothing
    assert cr.generate(follow, [[0], [1, 2]], 0).sequences == [[0], [1, 2]]
    assert cr.generate(follow, [0], 30, repetition_stop=2).sequences == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert cr.generate(follow, [0], 30, "beam", repetition_stop=2).sequences == [0, 1, 2, 3, 4, 5, 0, 1, 2]


def test_going_in_circles():
    ending = Ending([], 3)
    over = lambda *new: ending(np.array(new))
    assert not over(1, 2, 3) and not over(1, 2, 3, 1, 2) and over(1, 2, 3, 1, 2, 3)
    assert over(7, 7, 7, 7) and not over(7, 7, 7)
    assert over(1, 2, 3, 9, 1, 2, 3) and not over(1, 2, 3, 9, 1, 2, 4)


# -- sampling


def distribution(logits, **settings):
    """How often each token is drawn, of 20,000."""
    logits = np.asarray(logits, "float32")
    f = lambda tokens: cr.tensor(np.tile(logits, (tokens.shape[0], 1)))
    generator = cr.random.Generator(7)
    made = cr.generate(f, np.zeros((20_000, 1), int), 1, "sample", generator=generator, **settings)
    return np.bincount(np.asarray(made.tokens)[:, 1], minlength=len(logits)) / 20_000


def softmax(x):
    p = np.exp(x - np.max(x))
    return p / p.sum()


LOGITS = np.log([0.1, 0.4, 0.05, 0.3, 0.15])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.4, 0.05, 0.3, 0.15]),
        ({"temperature": 0.5}, softmax(LOGITS / 0.5)),
        ({"temperature": 3.0}, softmax(LOGITS / 3.0)),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"top_k": 3}, np.array([0, 0.4, 0, 0.3, 0.15]) / 0.85),
        ({"top_k": 99}, [0.1, 0.4, 0.05, 0.3, 0.15]),
        ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.6}, np.array([0, 0.4, 0, 0.3, 0]) / 0.7),
        ({"top_p": 0.86}, np.array([0.1, 0.4, 0, 0.3, 0.15]) / 0.95),
        ({"top_p": 1.0}, [0.1, 0.4, 0.05, 0.3, 0.15]),
        ({"top_k": 3, "top_p": 0.8}, np.array([0, 0.4, 0, 0.3, 0]) / 0.7),  # 0.4 / 0.85 + 0.3 / 0.85 is more than 0.8
        ({"temperature": 0.5, "top_p": 0.55}, [0, 1, 0, 0, 0]),  # 0.16 / 0.285 is more than 0.55
    ],
    ids=str,
)
def test_what_is_drawn(settings, expected):
    found, expected = distribution(LOGITS, **settings), np.asarray(expected)
    assert (found[expected == 0] == 0).all()
    assert (abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_of_equals_the_first_stay():
    assert (distribution([0.0, 1.0, 1.0, 1.0], top_k=2) > 0).tolist() == [False, True, True, False]


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_equal_seeds_draw_equal_tokens(engine):
    model = spread(GPT())
    draw = lambda seed, **k: (
        cr.generate(model, PROMPTS, 5, "sample", generator=cr.random.Generator(seed), temperature=1.3, **k).sequences
    )
    assert draw(1, engine=engine) == draw(1, engine="reference")
    assert draw(1, engine=engine) != draw(2, engine=engine)
    assert draw(3, engine=engine, top_k=4, top_p=0.9) == draw(3, engine="reference", top_k=4, top_p=0.9)


def test_the_generator_moves_on():
    model, generator = spread(GPT()), cr.random.Generator(0)
    first, second = (cr.generate(model, [1], 8, "sample", generator=generator).sequences for _ in range(2))
    assert first != second and int(generator.count) == 16


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_the_repetition_penalty(method):
    """Against the rule in loops; in sampling it is the same function."""
    f, penalty = table(6, sharpness=0.7), 1.8

    def penalised(tokens):
        logits = np.array(f(tokens))
        for row, seen in zip(logits, np.asarray(tokens), strict=True):
            for t in set(seen.tolist()):
                row[t] = row[t] / penalty if row[t] > 0 else row[t] * penalty
        return cr.tensor(logits)

    ours = cr.generate(f, [[0, 1], [4, 2]], 8, method, repetition_penalty=penalty)
    assert ours.sequences == cr.generate(penalised, [[0, 1], [4, 2]], 8, method).sequences
    assert ours.sequences != cr.generate(f, [[0, 1], [4, 2]], 8, method).sequences
    cached = spread(GPT())
    plain = cr.generate(uncached(cached.eval()), PROMPTS, 5, method, repetition_penalty=penalty)
    assert cr.generate(cached, PROMPTS, 5, method, repetition_penalty=penalty).sequences == plain.sequences


# -- beams


def brute_force(f, prompt, new, size, eos, length_penalty):
    """The best of all sequences that end with `eos`, or at full length without."""
    found = []
    for n in range(1, new + 1):
        for tail in itertools.product(range(size), repeat=n):
            if eos in tail[:-1] or (tail[-1] != eos and n < new):
                continue
            log_p = log_probability(f, [*prompt, *tail], len(prompt))
            found.append((log_p / n**length_penalty, log_p, [*prompt, *tail]))
    return max(found)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("seed", range(3))
def test_enough_beams_find_the_best_of_all(length_penalty, seed):
    f, prompts = table(4, seed), [[0, 1], [2, 3]]
    made = cr.generate(f, prompts, 4, "beam", beams=256, length_penalty=length_penalty, early_stopping=False, eos=3)
    for prompt, sequence, log_p in zip(prompts, made.sequences, made.log_probabilities.tolist(), strict=True):
        score, expected, best = brute_force(f, prompt, 4, 4, 3, length_penalty)
        assert math.isclose(log_p / (len(sequence) - 2) ** length_penalty, score, rel_tol=1e-5)
        assert math.isclose(log_p, expected, rel_tol=1e-5)
        assert sequence == best


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_and_more_are_not_worse_for_long(seed):
    f = table(7, seed)
    greedy = cr.generate(f, [[0, 1]], 9, eos=2)
    assert cr.generate(f, [[0, 1]], 9, "beam", beams=1, eos=2).sequences == greedy.sequences


@pytest.mark.parametrize("seed", range(5))
def test_stopping_early_finds_nothing_better(seed):
    f, score = table(7, seed, 1.0), {}
    for early in (True, False):
        made = cr.generate(f, [0, 1], 12, "beam", beams=3, early_stopping=early, eos=2)
        score[early] = float(made.log_probabilities) / (int(made.lengths) - 2)
    assert score[False] >= score[True] - 1e-12


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_beams_with_a_cache_as_without(engine):
    model = spread(GPT(), by=0.5)
    for options in ({}, {"eos": [3, 8], "beams": 5}, {"length_penalty": 0.0, "early_stopping": False, "eos": 1}):
        cached = cr.generate(model, PROMPTS, 6, "beam", engine=engine, **options)
        plain = cr.generate(uncached(model.eval()), PROMPTS, 6, "beam", **options)
        assert cached.sequences == plain.sequences
        np.testing.assert_allclose(cached.log_probabilities, plain.log_probabilities, rtol=1e-3, atol=1e-4)


class Translator(nn.Module):
    """Encoder and decoder; what is to be translated is given beforehand."""

    def __init__(self, size, source):
        generator = cr.random.Generator(0)
        self.embedding = nn.Embedding(size, 8, generator=generator)
        self.encoding = nn.SinusoidalEncoding(8, batch_first=True)
        self.core = nn.Transformer(8, 2, 1, 2, 16, batch_first=True, generator=generator)
        self.head = nn.Linear(8, size, generator=generator)
        self.source = source

    def forward(self, tokens, cache=None):
        x = self.encoding(self.embedding(tokens), 0 if cache is None else cache[0]["self"].offset)
        if cache is not None:
            return self.head(self.core.decoder(x, cache=cache))
        return self.head(self.core.decoder(x, self.memory(), tgt_is_causal=True))

    def memory(self):
        return self.core.encoder(self.encoding(self.embedding(self.source)))

    def make_cache(self, batch_size, max_length):
        return self.core.decoder.make_cache(self.memory(), max_length)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_an_encoder_and_decoder(method):
    source = cr.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    model = spread(Translator(9, source), by=0.6).eval()
    made = cr.generate(model, [[0], [0]], 6, method, eos=8)
    for i, sequence in enumerate(made.sequences):
        model.source = source[i : i + 1]
        alone = cr.generate(model, [[0]], 6, method, eos=8)
        assert alone.sequences == [sequence]
        expected = log_probability(model, sequence, 1)
        assert math.isclose(float(alone.log_probabilities[0]), expected, rel_tol=1e-3, abs_tol=1e-4)


class Padded(Translator):
    """The same for sentences of several lengths, filled up with 0."""

    def forward(self, tokens, cache=None):
        if cache is not None:
            return super().forward(tokens, cache)
        x, nothing = self.encoding(self.embedding(tokens)), self.source == 0
        return self.head(self.core.decoder(x, self.memory(), memory_key_padding_mask=nothing, tgt_is_causal=True))

    def memory(self):
        return self.core.encoder(self.encoding(self.embedding(self.source)), src_key_padding_mask=self.source == 0)

    def make_cache(self, batch_size, max_length):
        return self.core.decoder.make_cache(self.memory(), max_length, self.source == 0)


@pytest.mark.parametrize("method", ["greedy", "beam"])
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_padding_of_what_is_translated_is_not_seen(method, engine):
    """Sentences of several lengths together, by a cache that goes where beams lead, as each by itself."""
    sentences = [[1, 2, 3, 4, 6], [5, 6], [7], [2, 4, 1]]
    source = np.array([sentence + [0] * (5 - len(sentence)) for sentence in sentences])
    model = spread(Padded(9, cr.tensor(source)), by=1.2).eval()
    made = cr.generate(model, [[0]] * 4, 6, method, eos=8, engine=engine)
    found = []
    for i, (sentence, sequence) in enumerate(zip(sentences, made.sequences, strict=True)):
        model.source = cr.tensor([sentence])
        alone = cr.generate(model, [[0]], 6, method, eos=8, engine=engine)
        assert alone.sequences == [sequence]
        expected = log_probability(model, sequence, 1)
        assert math.isclose(float(made.log_probabilities[i]), expected, rel_tol=1e-3, abs_tol=1e-4)
        found.append(tuple(sequence))
    assert len(set(found)) > 1  # what is to be translated matters


# -- mistakes


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: cr.generate(f, [0], 3, "best"), ConfigError, "'greedy', 'sample' or 'beam'; got 'best'"),
        (lambda f: cr.generate(f, [0], 3, temperature=1.0), ConfigError, "temperature is for method='sample'"),
        (lambda f: cr.generate(f, [0], 3, "sample", beams=3), ConfigError, "beams is for method='beam'"),
        (lambda f: cr.generate(f, [0], 3, "sample"), ConfigError, "generator=chainrule.random.Generator"),
        (lambda f: cr.generate(f, [0], -1), ConfigError, "max_new_tokens is a whole number of at least 0"),
        (lambda f: cr.generate(f, [0], 3, "beam", beams=0), ConfigError, "beams is a whole number of at least 1"),
        (lambda f: cr.generate(f, [0], 3, repetition_penalty=0), ConfigError, "must be positive"),
        (lambda f: cr.generate(f, [0], 3, repetition_stop=2.5), ConfigError, "repetition_stop is a whole number"),
        (lambda f: cr.generate(f, [0], 3, max_length=3), ConfigError, "too short for 4 tokens"),
        (lambda f: cr.generate(f, [], 3), ShapeError, "a row of at least one token"),
        (lambda f: cr.generate(f, [[1], []], 3), ShapeError, r"got shape \(0,\)"),
        (lambda f: cr.generate(f, [0.5], 3), DTypeError, "tokens are integers; got float64"),
        (lambda f: cr.generate(f, [-1], 3), DataError, "from 0 on; a prompt has -1"),
        (lambda f: cr.generate(3, [0], 3), ConfigError, "a Module or a function of tokens; got int"),
        (lambda f: cr.generate(lambda t: f(t)[0], [0], 3), ShapeError, r"this one made \(5,\)"),
        (lambda f: cr.generate(lambda t: f(t) * math.nan, [0], 3), Diverged, "logits for the next token are NaN"),
        (lambda f: cr.generate(lambda t: f(t) * math.nan, [0], 3, "beam"), Diverged, "NaN"),
        (lambda f: cr.generate(GPT(), [0], 3, window=2), ConfigError, "a cache holds all tokens"),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call(table(5))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": 0}], ids=str)
def test_settings_of_sampling(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        cr.generate(table(5), [0], 3, "sample", generator=cr.random.Generator(0), **settings)
