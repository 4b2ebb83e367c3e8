"""Random numbers: counter-based, from explicit keys, the same bits on every engine and any number of threads.

A **key** (two words) and a **count** name a stream of random bits; element i of a draw is the i-th word of its stream,
whatever was drawn before. The functions here take a key; the same key and count give the same numbers again.

>>> import chainrule as cr
>>> k = cr.random.key(0)
>>> bool((cr.random.normal(k, (3,)) == cr.random.normal(k, (3,)))[0])
True

A `Generator` holds a key and a count, and moves on with every draw: what layers and training use.

>>> generator = cr.random.Generator(seed=0)
>>> generator.uniform((2, 3)).shape
(2, 3)
"""

from chainrule.random.distributions import (
    bernoulli,
    categorical,
    choice,
    normal,
    permutation,
    randint,
    truncated_normal,
    uniform,
)
from chainrule.random.generator import Generator, default_generator, manual_seed
from chainrule.random.keys import bits, fold_in, key, split

__all__ = [
    "Generator",
    "bernoulli",
    "bits",
    "categorical",
    "choice",
    "default_generator",
    "fold_in",
    "key",
    "manual_seed",
    "normal",
    "permutation",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
