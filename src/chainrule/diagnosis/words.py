"""How diagnoses speak of layers, shares and numbers."""

from collections.abc import Sequence


def layer_named(path: str, layer: str) -> str:
    """`layer 2 (Sigmoid)`; an activation that a module applies as a function: `tanh in encoder`.

    >>> from chainrule.diagnosis.words import layer_named
    >>> layer_named("2", "Sigmoid"), layer_named("encoder", "tanh"), layer_named("", "relu")
    ('layer 2 (Sigmoid)', 'tanh in encoder', 'relu in the model')
    """
    if layer[:1].islower():
        return f"{layer} in {path or 'the model'}"
    return f"layer {path} ({layer})" if path else layer


def share(value: float) -> str:
    """A share as a percentage in two digits that count.

    >>> from chainrule.diagnosis.words import share
    >>> share(0.94), share(0.0081), share(1.0), share(3e-7)
    ('94 %', '0.81 %', '100 %', '3e-05 %')
    """
    return f"{100 * value:.3g} %" if value >= 0.995 else f"{100 * value:.2g} %"


def number(value: float) -> str:
    """A number in three digits that count."""
    return f"{value:.3g}"


def listed(words: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def counted(count: int, noun: str) -> str:
    """`1 row`, `2 rows`; `1 batch`, `2 batches`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith(("s", "ch", "x")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"
