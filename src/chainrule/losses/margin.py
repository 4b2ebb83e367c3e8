"""Losses that ask for a margin: between scores, or between distances."""

from chainrule.core.autodiff import as_tensor
from chainrule.core.tensor import Tensor
from chainrule.errors import ConfigError, ShapeError
from chainrule.functions.activations import relu
from chainrule.functions.choice import where
from chainrule.functions.linear_algebra import vector_norm
from chainrule.functions.precision import rounded_once
from chainrule.functions.statistics import sum
from chainrule.losses.checks import Reduction, alike, mismatch, predictions, reduced, signs
from chainrule.losses.classification import at_target, classes_of
from chainrule.primitives import elementwise as e
from chainrule.primitives.layout import reshape
from chainrule.primitives.operators import cast_to, minimum


@rounded_once
def hinge_embedding(input: Tensor, target: Tensor, margin: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """For distances `input`: the distance where target is 1, and what it lacks to `margin` where target is −1.

    input and target of one shape. Where a distance equals the margin its slope is 0 (in PyTorch −1). Raises
    ShapeError when shapes differ, DTypeError for an input that is not floating point, DataError for a target other
    than 1 and −1. Source: Hadsell et al., "Dimensionality reduction by learning an invariant mapping" (2006).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> losses.hinge_embedding(cr.tensor([0.5, 0.25]), cr.tensor([1, -1]), reduction="none").tolist()
    [0.5, 0.75]
    """
    input, target = alike("hinge_embedding", ("input", "target"), input, target)
    signs("hinge_embedding", target)
    losses = where(target == -1, relu(margin - input), input)
    return reduced("hinge_embedding", losses, reduction)


@rounded_once
def margin_ranking(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """max(0, margin − target · (input1 − input2)): input1 should be larger where target is 1, smaller where −1.

    All of one shape. Where the margin is met exactly (with margin 0: for equal inputs) slopes are 0 (in PyTorch those
    of a margin missed). Raises ShapeError when shapes differ, DTypeError for inputs that are not floating point,
    DataError for a target other than 1 and −1.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.margin_ranking(cr.tensor([2.0]), cr.tensor([5.0]), cr.tensor([1]), margin=1.0))
    4.0
    """
    a, b, target = alike("margin_ranking", ("input1", "input2", "target"), input1, input2, target)
    signs("margin_ranking", target)
    return reduced("margin_ranking", relu(margin - target * (a - b)), reduction)


@rounded_once
def multi_margin(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Σ over the other classes of max(0, margin − score of the target + score of the class)^p, divided by the classes.

    input (classes,) or (batch, classes), target () or (batch,) of class indices, weight (classes,) -> (), or the
    shape of target with reduction="none". The mean divides by the number of rows. Raises ShapeError, DTypeError or
    IndexOutOfRange for a target that does not fit, ConfigError unless p is 1 or 2. Source: Crammer and Singer, "On
    the algorithmic implementation of multiclass kernel-based vector machines" (2001).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> float(losses.multi_margin(cr.tensor([[1.0, 3.0, 2.5, 0.0]]), cr.tensor([1])))
    0.125
    """
    if p not in (1, 2):
        raise ConfigError(f"multi_margin: p={p} is the power of the margins; it is 1 or 2.")
    input = predictions("multi_margin", input)
    if input.ndim > 2:
        raise ShapeError(f"multi_margin: expected (classes,) or (batch, classes); got shape {input.shape}.")
    found = classes_of("multi_margin", input, target, weight, None)
    wanted = at_target(input, found)
    short = relu(margin - reshape(wanted, shape=(*wanted.shape, 1)) + input)  # (batch, classes)
    others = where(found.hit, 0, short if p == 1 else short * short)
    losses = found.weight * sum(others, axis=found.axis) / input.shape[found.axis]
    return reduced("multi_margin", losses, reduction)


@rounded_once
def cosine_embedding(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """1 − cos(input1, input2) where target is 1, max(0, cos − margin) where it is −1.

    Inputs (features,) or (batch, features), target () or (batch,) -> (), or the shape of target with
    reduction="none". To each squared length 1e-12 is added, as in PyTorch, so that a row of zeros has cosine 0. Where
    the cosine equals the margin its slope is 0 (in PyTorch 1). Raises ShapeError when shapes do not fit, DTypeError
    for inputs that are not floating point, DataError for a target other than 1 and −1.

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> a, b = cr.tensor([[3.0, 4.0], [1.0, 0.0]]), cr.tensor([[4.0, 3.0], [0.0, 1.0]])
    >>> losses.cosine_embedding(a, b, cr.tensor([-1, 1]), reduction="none").tolist()
    [0.9599..., 1.0]
    """
    a, b = alike("cosine_embedding", ("input1", "input2"), input1, input2)
    target = as_tensor(target)
    if a.ndim not in (1, 2):
        raise ShapeError(f"cosine_embedding: expected (features,) or (batch, features); got shape {a.shape}.")
    if target.shape != a.shape[:-1]:
        raise ShapeError(mismatch("cosine_embedding", "each row of the inputs", a.shape[:-1], "target", target.shape))
    target = cast_to(target, a.dtype)
    signs("cosine_embedding", target)
    lengths = e.sqrt(sum(a * a, axis=-1) + 1e-12) * e.sqrt(sum(b * b, axis=-1) + 1e-12)
    cosine = sum(a * b, axis=-1) / lengths
    return reduced("cosine_embedding", where(target == 1, 1 - cosine, relu(cosine - margin)), reduction)


@rounded_once
def triplet_margin(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """max(0, margin + distance(anchor, positive) − distance(anchor, negative)), by the p-norm of x − y + eps.

    All (..., features) of one shape -> (), or (...) with reduction="none". `swap` takes for the second distance that
    from positive to negative where it is smaller. Where the margin is met exactly slopes are 0 (in PyTorch those of a
    margin missed). Raises ShapeError when shapes differ, DTypeError for inputs that are not floating point,
    ConfigError unless margin and p are positive. Source: Balntas et al., "Learning local feature descriptors with
    triplets and shallow convolutional neural networks" (2016).

    >>> import chainrule as cr
    >>> from chainrule import losses
    >>> near, far = cr.tensor([[0.0, 1.0]]), cr.tensor([[0.0, 1.5]])
    >>> round(float(losses.triplet_margin(cr.tensor([[0.0, 0.0]]), near, far)), 5)
    0.5
    """
    if not margin > 0 or not p > 0:
        raise ConfigError(f"triplet_margin: margin={margin} and p={p} must be positive.")
    a, b, c = alike("triplet_margin", ("anchor", "positive", "negative"), anchor, positive, negative)
    if not a.ndim or not a.shape[-1]:
        raise ShapeError(f"triplet_margin: expected (..., features); got shape {a.shape}.")
    near, far = vector_norm(a - b + eps, axis=-1, ord=p), vector_norm(a - c + eps, axis=-1, ord=p)
    if swap:
        far = minimum(far, vector_norm(b - c + eps, axis=-1, ord=p))
    return reduced("triplet_margin", relu(margin + near - far), reduction)
