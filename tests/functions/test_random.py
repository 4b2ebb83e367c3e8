"""Random numbers: the cipher against its published answers, the distributions against their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import dtypes, random, tree
from chainrule.compile import compile
from chainrule.core.tensor import tensor, wrap
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.primitives.elementwise import random_bits
from chainrule.random import distributions

N = 20_000
WORDS = st.integers(0, 2**32 - 1)


def threefry(counter, key):
    """Threefry-2x32-20 in Python integers, both words: Salmon et al. (2011), section 3.3."""
    mask = 2**32 - 1
    words = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    a, b = (counter[0] + words[0]) & mask, (counter[1] + words[1]) & mask
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    for i in range(20):
        a = (a + b) & mask
        r = rotations[i % 8]
        b = ((b << r | b >> (32 - r)) & mask) ^ a
        if i % 4 == 3:
            n = i // 4 + 1
            a, b = (a + words[n % 3]) & mask, (b + words[(n + 1) % 3] + n) & mask
    return a, b


ALL = 2**32 - 1
PUBLISHED = [  # kat_vectors of the Random123 distribution: counter, key, result
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ALL, ALL), (ALL, ALL), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def first_word(counter, key):
    return int(random_bits(*[wrap(np.array(w, np.uint32)) for w in (*counter, *key)]))


@pytest.mark.parametrize("counter, key, expected", PUBLISHED)
def test_the_cipher_gives_the_published_answers(counter, key, expected):
    assert threefry(counter, key) == expected
    assert first_word(counter, key) == expected[0]


@given(WORDS, WORDS, WORDS, WORDS)
def test_the_cipher_is_threefry_everywhere(c0, c1, k0, k1):
    assert first_word((c0, c1), (k0, k1)) == threefry((c0, c1), (k0, k1))[0]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_bits_are_the_words_of_the_cipher(seed, count):
    high, low = divmod(seed, 2**32)
    words = random.bits(random.key(seed), (2, 2), count).numpy().ravel()
    key = ((high + (count >> 32)) % 2**32, low)
    assert words.tolist() == [threefry((i, count % 2**32), key)[0] for i in range(4)]


def test_bits_of_a_longer_draw_begin_like_those_of_a_shorter_one():
    key = random.key(3)
    assert random.bits(key, 10).tolist()[:4] == random.bits(key, (2, 2)).numpy().ravel().tolist()
    assert random.bits(key, 3, tensor(7)).tolist() == random.bits(key, 3, 7).tolist()
    assert random.bits(key, ()).shape == () and random.bits(key, (0, 3)).shape == (0, 3)


# -- keys


def test_seeds():
    assert random.key(0).tolist() == [0, 0]
    assert random.key(2**64 - 1).tolist() == [ALL, ALL]
    assert random.key(np.int64(2**32)).tolist() == [1, 0]
    for seed in (-1, 2**64, 1.0, "7", None, True):
        with pytest.raises(ConfigError, match="seed"):
            random.key(seed)
        with pytest.raises(ConfigError, match="seed"):
            random.Generator(seed)


def test_keys_made_from_keys_differ_from_each_other_and_from_what_is_drawn():
    key = random.key(11)
    children = random.split(key, 1000).numpy()
    folded = np.array([random.fold_in(key, i).numpy() for i in range(200)])
    drawn = random.bits(key, (500, 2)).numpy()
    every = np.concatenate([children, folded, drawn, key.numpy()[None]]).astype(np.uint64)
    assert len(set((every[:, 0] << np.uint64(32) | every[:, 1]).tolist())) == len(every)
    assert (random.split(key, 3).numpy() == children[:3]).all()
    assert random.fold_in(key, tensor(5)).tolist() == random.fold_in(key, 5).tolist()
    assert random.fold_in(key, 2**62 - 1).tolist() != random.fold_in(key, 0).tolist()


def test_what_is_no_key_is_refused():
    for bad in (tensor([1, 2]), 7, np.zeros(2, np.int32)):
        with pytest.raises(DTypeError, match=r"chainrule\.random\.key"):
            random.uniform(bad, (2,))
    with pytest.raises(ShapeError, match=r"split\(key, n\)\[i\]"):
        random.normal(random.split(random.key(0), 3), (2,))
    with pytest.raises(ConfigError, match="the number"):
        random.fold_in(random.key(0), -1)
    with pytest.raises(ConfigError, match="number of keys"):
        random.split(random.key(0), -1)


# -- uniform and normal


def kolmogorov_smirnov(sample, distribution):
    """√n times the largest distance between the sample's distribution function and the given one."""
    x = np.sort(np.asarray(sample, np.float64).ravel())
    f = np.array([distribution(v) for v in x])
    n = len(x)
    d = max((np.arange(1, n + 1) / n - f).max(), (f - np.arange(n) / n).max())
    return d * math.sqrt(n)


def phi(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


LIMIT = 1.95  # exceeded by one true sample in a thousand


@pytest.mark.parametrize("dtype, bits", [("float32", 24), ("float64", 53), ("bfloat16", 8), ("float16", 11)])
def test_uniform_numbers_are_multiples_of_the_smallest_step(dtype, bits):
    u = random.uniform(random.key(1), (N,), dtype=dtype)
    assert u.dtype.name == dtype
    scaled = u.numpy().astype(np.float64) * 2.0**bits
    assert (scaled == np.floor(scaled)).all() and scaled.min() >= 0 and scaled.max() < 2**bits
    if bits < 12:
        assert len(set(scaled)) > 2**bits * 0.9
    else:  # the lowest bit is as random as the others
        assert abs((scaled % 2).mean() - 0.5) < 4 * 0.5 / math.sqrt(N)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_distributions_of_uniform_and_normal(dtype, seed):
    key = random.key(seed)
    assert kolmogorov_smirnov(random.uniform(key, (N,), dtype=dtype), lambda x: x) < LIMIT
    u = random.uniform(key, (N,), -3.0, 5.0, dtype)
    assert kolmogorov_smirnov(u, lambda x: (x + 3) / 8) < LIMIT
    z = random.normal(key, (N,), dtype=dtype).numpy()
    assert kolmogorov_smirnov(z, phi) < LIMIT
    moved = random.normal(key, (N,), 2.0, 0.5, dtype)
    np.testing.assert_allclose(moved.numpy(), 2 + 0.5 * z, rtol=1e-5)
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        spread = math.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[power] / N)
        assert abs((z.astype(np.float64) ** power).mean() - moment) < 4 * spread


def test_uniform_never_reaches_the_upper_end():
    for low, high, dtype in ((0.1, 0.1 + 1e-7, "float32"), (-1.0, 1.0, "bfloat16"), (5.0, 5.01, "float16")):
        u = random.uniform(random.key(4), (N,), low, high, dtype).numpy().astype(np.float64)
        ends = np.array([low, high]).astype(dtypes.as_dtype(dtype)).astype(np.float64)
        assert ends[0] <= u.min() and u.max() < ends[1]


def test_the_ends_of_the_normal_distribution_are_finite(monkeypatch):
    """The words 0 and 2³² − 1, which no short draw meets, give the largest and the smallest radius."""
    words = wrap(np.array([0, ALL], np.uint32)), wrap(np.array([0, 0], np.uint32))
    monkeypatch.setattr(distributions, "_words", lambda key, n, shape, count: [words[i % 2] for i in range(n)])
    single = random.normal(random.key(0), (2,)).numpy()
    double = random.normal(random.key(0), (2,), dtype="float64").numpy()
    np.testing.assert_allclose(single, [math.sqrt(64 * math.log(2)), 0], atol=1e-6)
    assert np.isfinite(double).all()


@pytest.mark.parametrize("low, high, mean, std", [(-2, 2, 0, 1), (0.5, 9, 0, 1), (-1, 1, 3, 2), (-6, 6, 0, 1)])
def test_truncated_normal(low, high, mean, std):
    x = random.truncated_normal(random.key(6), (N,), mean, std, low, high, "float64").numpy()
    below, above = phi((low - mean) / std), phi((high - mean) / std)
    assert low <= x.min() and x.max() <= high
    assert kolmogorov_smirnov(x, lambda v: (phi((v - mean) / std) - below) / (above - below)) < LIMIT


def test_the_normal_quantile_is_the_inverse_of_the_distribution_function():
    z = np.linspace(-6, 6, 241)
    p = np.array([phi(v) for v in z])
    resolution = 4e-16 / np.exp(-0.5 * z * z)  # how far p near 1 tells z at all
    error = abs(distributions._normal_quantile(wrap(p)).numpy() - z)
    assert (error < 1e-9 + 10 * resolution).all()


# -- discrete


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("p", [0.0, 0.003, 0.5, 0.9, 1.0])
def test_bernoulli(p):
    x = random.bernoulli(random.key(7), p, (N,))
    assert x.dtype == dtypes.bool_
    assert abs(x.numpy().mean() - p) <= 4 * math.sqrt(p * (1 - p) / N)
    probabilities = tensor([[0.0], [p], [1.0]], "float64")
    rows = random.bernoulli(random.key(7), probabilities, (3, N)).numpy()
    assert not rows[0].any() and rows[2].all() and abs(rows[1].mean() - p) <= 4 * math.sqrt(p * (1 - p) / N)
    assert random.bernoulli(random.key(7), probabilities).shape == (3, 1)


@pytest.mark.parametrize("low, high, dtype", [(0, 6, "int64"), (-3, 4, "int32"), (250, 256, "uint8"), (7, 8, "uint32")])
def test_randint(low, high, dtype):
    x = random.randint(random.key(8), low, high, (N,), dtype)
    assert x.dtype.name == dtype
    counts = np.bincount(x.numpy().astype(np.int64) - low, minlength=high - low)
    assert len(counts) == high - low
    assert chi_square(counts, N / (high - low)) < 30  # 6 degrees of freedom at most: one in 25,000


def test_randint_over_a_wide_range():
    x = random.randint(random.key(9), -(2**31), 2**31, (N,)).numpy()
    assert kolmogorov_smirnov(x, lambda v: (v + 2**31) / 2**32) < LIMIT
    top = random.randint(random.key(9), 2**63 - 4, 2**63, (100,)).numpy()
    assert sorted(set(top.tolist())) == [2**63 - 4, 2**63 - 3, 2**63 - 2, 2**63 - 1]


def test_permutations_are_permutations_and_all_as_likely():
    assert sorted(random.permutation(random.key(0), 1000).tolist()) == list(range(1000))
    rows = tensor(np.arange(10).reshape(5, 2))
    shuffled = random.permutation(random.key(0), rows).numpy()
    assert (shuffled[np.argsort(shuffled[:, 0])] == rows.numpy()).all()
    seen: dict[tuple[int, ...], int] = {}
    for i in range(2400):
        order = tuple(random.permutation(random.key(1), 4, count=i).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert chi_square(np.array(list(seen.values())), 100) < 55  # 23 degrees of freedom: one in 5,000
    assert random.permutation(random.key(0), 0).shape == (0,)


def test_categorical_and_choice_follow_their_probabilities():
    p = np.array([0.1, 0.0, 0.6, 0.3])
    with np.errstate(divide="ignore"):
        logits = tensor(np.stack([np.log(p), np.log(p[::-1])]))
    drawn = random.categorical(random.key(2), logits + 5.0, (N,)).numpy()
    assert drawn.shape == (N, 2)
    chosen = random.choice(random.key(3), 4, (N,), p=p).numpy()
    for sample, expected in ((drawn[:, 0], p), (drawn[:, 1], p[::-1]), (chosen, p)):
        counts = np.bincount(sample, minlength=4)
        present = expected > 0
        assert not counts[~present].any()
        assert chi_square(counts[present], N * expected[present]) < 18  # 2 degrees of freedom: one in 8,000
    assert random.categorical(random.key(2), logits).shape == (2,)


def test_choice_without_replacement():
    p = np.array([0.5, 0.3, 0.2])
    pairs: dict[tuple[int, ...], int] = {}
    for i in range(3000):
        pair = tuple(random.choice(random.key(4), 3, (2,), replace=False, p=p, count=i).tolist())
        pairs[pair] = pairs.get(pair, 0) + 1
    expected = {(i, j): 3000 * p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if i != j}
    assert chi_square(np.array([pairs[k] for k in expected]), np.array(list(expected.values()))) < 25
    rows = random.choice(random.key(5), tensor([[1, 10], [2, 20], [3, 30]]), (3,), replace=False)
    assert sorted(rows.tolist()) == [[1, 10], [2, 20], [3, 30]]
    assert random.choice(random.key(5), 10, (4, 5)).shape == (4, 5)


# -- generators


def test_every_draw_uses_other_words():
    generator = random.Generator(12)
    words = np.concatenate([generator.bits(1000).numpy() for _ in range(50)])
    assert int(generator.count) == 50
    expected = len(words) ** 2 / 2 / 2**32  # duplicates among that many random words: 0.29
    assert len(words) - len(set(words.tolist())) <= expected + 5


def test_draws_and_keys_are_uncorrelated():
    bound = 4.5 / math.sqrt(N)
    generator = random.Generator(13)
    draws = [generator.normal((N,)).numpy() for _ in range(4)]
    draws += [random.normal(random.key(seed), (N,)).numpy() for seed in (0, 1, 2, 2**32)]
    draws += [random.normal(key, (N,)).numpy() for key in random.split(random.key(13), 2)]
    draws += [draws[0][::-1], np.roll(draws[0], 1), np.roll(draws[0], 2)]
    correlation = np.corrcoef(np.stack(draws)) - np.eye(len(draws))
    assert abs(correlation).max() < bound
    bits = np.unpackbits(
        np.stack([random.bits(random.key(s), N // 32).numpy() for s in range(4)]).view(np.uint8), axis=1
    )
    assert abs(np.corrcoef(bits) - np.eye(4)).max() < bound
    assert abs(bits.mean() - 0.5) < 4 * 0.5 / math.sqrt(bits.size)


def test_a_generator_draws_what_the_functions_draw_at_its_count():
    generator = random.Generator(random.key(14))
    key = random.key(14)
    pairs = [
        (generator.bits((3,)), random.bits(key, (3,), 0)),
        (generator.uniform((3,), -1.0, 2.0), random.uniform(key, (3,), -1.0, 2.0, count=1)),
        (generator.normal((3,), 1.0, 2.0, "float64"), random.normal(key, (3,), 1.0, 2.0, "float64", count=2)),
        (generator.truncated_normal((3,)), random.truncated_normal(key, (3,), count=3)),
        (generator.bernoulli(0.3, (3,)), random.bernoulli(key, 0.3, (3,), count=4)),
        (generator.randint(0, 9, (3,)), random.randint(key, 0, 9, (3,), count=5)),
        (generator.permutation(5), random.permutation(key, 5, count=6)),
        (generator.categorical(tensor([0.0, 1.0]), (3,)), random.categorical(key, tensor([0.0, 1.0]), (3,), count=7)),
        (generator.choice(9, (3,)), random.choice(key, 9, (3,), count=8)),
    ]
    for ours, expected in pairs:
        assert ours.dtype == expected.dtype and ours.tolist() == expected.tolist()
    child = generator.split()
    assert int(generator.count) == 10 and int(child.count) == 0
    assert child.key.tolist() == random.fold_in(key, 9).tolist()
    generator.seed(14)
    assert generator.bits((3,)).tolist() == pairs[0][0].tolist()


def test_the_count_goes_on_where_32_bits_end():
    generator = random.Generator(15)
    generator.count = tensor(2**32 - 1)
    before, after = generator.bits(4).tolist(), generator.bits(4).tolist()
    assert int(generator.count) == 2**32 + 1
    assert after == [threefry((i, 0), (1, 15))[0] for i in range(4)]
    assert not set(before) & set(after) and after != random.bits(random.key(15), 4).tolist()


def test_a_generator_is_state_of_two_tensors():
    flat = tree.flatten({"g": random.Generator(3)})
    assert [(leaf.path, leaf.role, leaf.value.dtype) for leaf in flat.leaves] == [
        ("g.key", "state", dtypes.uint32),
        ("g.count", "state", dtypes.int64),
    ]


def test_compiled_draws_are_the_eager_ones_and_the_generator_moves_on():
    def step(generator, x):
        child = generator.split()
        noise = generator.normal(x.shape) + child.uniform(x.shape)
        return x + noise, generator.permutation(6), generator.bernoulli(0.5, (7,)), generator.randint(0, 99, (5,))

    compiled, eager = compile(step), random.Generator(16)
    traced = random.Generator(16)
    x = tensor([1.0, 2.0, 3.0])
    for _ in range(3):
        for ours, expected in zip(compiled(traced, x), step(eager, x), strict=True):
            assert ours.tolist() == expected.tolist()
        assert traced.count.tolist() == eager.count.tolist()
    assert int(traced.count) == 15 and compiled.compilations == 1


def test_the_default_generator():
    generator = random.default_generator()
    key, count = generator.key, generator.count
    try:
        assert random.manual_seed(5) is generator
        first = generator.uniform((3,)).tolist()
        random.manual_seed(5)
        assert random.default_generator().uniform((3,)).tolist() == first
    finally:
        generator.key, generator.count = key, count


def test_arguments_that_make_no_sense():
    k = random.key(0)
    for call, match in (
        (lambda: random.uniform(k, (2,), 1.0, 1.0), "less than"),
        (lambda: random.uniform(k, (2,), 0.0, math.inf), "finite"),
        (lambda: random.normal(k, (2,), std=-1.0), "negative"),
        (lambda: random.truncated_normal(k, (2,), std=0.0), "positive"),
        (lambda: random.truncated_normal(k, (2,), low=50.0, high=60.0), "1e-09"),
        (lambda: random.bernoulli(k, 1.5, (2,)), "between 0 and 1"),
        (lambda: random.bernoulli(k, tensor([0.5, float("nan")])), "between 0 and 1"),
        (lambda: random.randint(k, 3, 3), "less than"),
        (lambda: random.randint(k, 0, 2**32 + 1), "2³²"),
        (lambda: random.randint(k, 0, 257, dtype="uint8"), "high"),
        (lambda: random.randint(k, 0.5, 3), "low"),
        (lambda: random.permutation(k, -1), "elements"),
        (lambda: random.choice(k, 3, (4,), replace=False), "4 are to be chosen from 3"),
        (lambda: random.choice(k, 0, (4,)), "nothing"),
        (lambda: random.choice(k, 3, (4,), p=[0.5, 0.5]), "shape"),
        (lambda: random.choice(k, 2, (4,), p=[0.5, 0.6]), "together 1"),
        (lambda: random.bits(k, (2,), count="x"), "count"),
    ):
        with pytest.raises(ConfigError, match=match):
            call()
    for call in (
        lambda: random.uniform(k, (2,), dtype="int32"),
        lambda: random.randint(k, 0, 3, dtype="float32"),
        lambda: random.categorical(k, tensor([1, 2])),
        lambda: random.bits(k, (2,), count=tensor(0.5)),
    ):
        with pytest.raises(DTypeError):
            call()
    for call in (
        lambda: random.uniform(k, (-1,)),
        lambda: random.uniform(k, 2.5),
        lambda: random.bits(k, (2**16, 2**17)),
        lambda: random.permutation(k, tensor(3)),
        lambda: random.bernoulli(k, tensor([0.5, 0.5]), (3,)),
    ):
        with pytest.raises(ShapeError):
            call()
