"""A generator: a key and a count, both tensors, so that a compiled step draws and moves on like an eager one."""

from collections.abc import Callable
from typing import Any

from chainrule import dtypes, tree
from chainrule.core.tensor import Tensor, full
from chainrule.random import distributions, keys


class Generator(tree.Stateful):
    """A stream of random numbers: each draw uses the key and the count, and moves the count on by one.

    key    uint32 (2,), from a seed (an integer from 0 to 2⁶⁴ − 1) or given as a key
    count  int64 (), the number of draws so far

    Both are state: saved with a model, and carried through `compile`. A generator with the same key and count gives the
    same numbers, on every engine. Raises ConfigError for a seed that is none.

    >>> import chainrule as cr
    >>> generator = cr.random.Generator(seed=0)
    >>> first, second = generator.uniform(), generator.uniform()
    >>> bool(first == second)
    False
    >>> generator.seed(0)
    >>> bool(first == generator.uniform())
    True
    """

    def __init__(self, seed: int | Tensor = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int | Tensor) -> None:
        """Start again, from a seed or a key."""
        self.key = keys.check_key("Generator", seed) if isinstance(seed, Tensor) else keys.key(seed)
        self.count = full((), 0, dtypes.int64)

    def _draw(self, distribution: Callable[..., Tensor], *args: Any) -> Tensor:
        result = distribution(self.key, *args, count=self.count)
        self.count = self.count + 1
        return result

    def bits(self, shape: Any = ()) -> Tensor:
        """Random words; see chainrule.random.bits."""
        return self._draw(keys.bits, shape)

    def uniform(self, shape: Any = (), low: float = 0.0, high: float = 1.0, dtype: Any = dtypes.float32) -> Tensor:
        """Uniform numbers in [low, high); see chainrule.random.uniform."""
        return self._draw(distributions.uniform, shape, low, high, dtype)

    def normal(self, shape: Any = (), mean: float = 0.0, std: float = 1.0, dtype: Any = dtypes.float32) -> Tensor:
        """Normally distributed numbers; see chainrule.random.normal."""
        return self._draw(distributions.normal, shape, mean, std, dtype)

    def truncated_normal(
        self,
        shape: Any = (),
        mean: float = 0.0,
        std: float = 1.0,
        low: float = -2.0,
        high: float = 2.0,
        dtype: Any = dtypes.float32,
    ) -> Tensor:
        """Normally distributed numbers between two limits; see chainrule.random.truncated_normal."""
        return self._draw(distributions.truncated_normal, shape, mean, std, low, high, dtype)

    def bernoulli(self, p: float | Tensor = 0.5, shape: Any = None) -> Tensor:
        """True with probability p; see chainrule.random.bernoulli."""
        return self._draw(distributions.bernoulli, p, shape)

    def randint(self, low: int, high: int, shape: Any = (), dtype: Any = dtypes.int64) -> Tensor:
        """Uniform integers in [low, high); see chainrule.random.randint."""
        return self._draw(distributions.randint, low, high, shape, dtype)

    def permutation(self, x: int | Tensor) -> Tensor:
        """Numbers or rows in random order; see chainrule.random.permutation."""
        return self._draw(distributions.permutation, x)

    def categorical(self, logits: Tensor, shape: Any = ()) -> Tensor:
        """Class indices with probabilities softmax(logits); see chainrule.random.categorical."""
        return self._draw(distributions.categorical, logits, shape)

    def choice(self, a: int | Tensor, shape: Any = (), replace: bool = True, p: Any = None) -> Tensor:
        """Elements at random; see chainrule.random.choice."""
        return self._draw(distributions.choice, a, shape, replace, p)

    def split(self) -> "Generator":
        """Another generator, independent of this one, which moves on as by a draw."""
        return Generator(self._draw(_child))

    def __repr__(self) -> str:
        return f"Generator(key={self.key!r}, count={self.count!r})"


def _child(key: Tensor, count: Tensor) -> Tensor:
    return keys.fold_in(key, count)


_default = Generator(0)


def default_generator() -> Generator:
    """The one generator of the process. Only the initial weights of layers are drawn from it, where none is given.

    It starts from seed 0 in every process, so a program without a seed is repeatable too.

    >>> import chainrule as cr
    >>> cr.random.default_generator() is cr.random.default_generator()
    True
    """
    return _default


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from `seed`, and return it. Raises ConfigError for a seed that is none.

    >>> import chainrule as cr
    >>> generator = cr.random.manual_seed(0)
    """
    _default.seed(seed)
    return _default
