"""Everything that is made of primitives: the functions of the Python Array API standard, and those of networks."""

from chainrule.functions import methods  # noqa: F401  (attaches the methods of Tensor)
from chainrule.functions.activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    mish,
    one_hot,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
)
from chainrule.functions.adaptive_pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
)
from chainrule.functions.arithmetic import (
    abs,
    add,
    ceil,
    copysign,
    divide,
    floor,
    floor_divide,
    hypot,
    maximum,
    minimum,
    multiply,
    negative,
    nextafter,
    positive,
    pow,
    reciprocal,
    remainder,
    round,
    sign,
    sqrt,
    square,
    subtract,
    trunc,
)
from chainrule.functions.attention import scaled_dot_product_attention
from chainrule.functions.choice import clip, where
from chainrule.functions.comparison import (
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    equal,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
    signbit,
)
from chainrule.functions.contraction import einsum, tensordot
from chainrule.functions.convolution import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from chainrule.functions.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from chainrule.functions.custom import checkpoint, custom_vjp
from chainrule.functions.derivatives import hessian, jacobian
from chainrule.functions.dropping import alpha_dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from chainrule.functions.exponential import exp, expm1, log, log1p, log2, log10, logaddexp
from chainrule.functions.layers import bilinear, dropout, embedding, linear
from chainrule.functions.linear_algebra import (
    diagonal,
    matmul,
    matrix_norm,
    matrix_transpose,
    norm,
    outer,
    trace,
    vecdot,
    vector_norm,
)
from chainrule.functions.manipulation import (
    broadcast_arrays,
    broadcast_to,
    concat,
    expand_dims,
    flip,
    moveaxis,
    pad,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    tile,
    unstack,
)
from chainrule.functions.normalisation import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from chainrule.functions.pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from chainrule.functions.positional import alibi, rotary_encoding, sinusoidal_encoding
from chainrule.functions.rearranging import channel_shuffle, fold, pixel_shuffle, pixel_unshuffle, unfold
from chainrule.functions.resampling import interpolate
from chainrule.functions.searching import (
    all,
    any,
    argmax,
    argmin,
    argsort,
    count_nonzero,
    diff,
    nonzero,
    scatter_add,
    searchsorted,
    sort,
    take,
    take_along_axis,
)
from chainrule.functions.statistics import cumulative_prod, cumulative_sum, max, mean, min, prod, std, sum, var
from chainrule.functions.trigonometry import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    sin,
    sinh,
    tan,
    tanh,
)

__all__ = [  # noqa: RUF022  (plain alphabetical order)
    "abs", "acos", "acosh", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool3d", "add", "alibi", "all", "alpha_dropout", "any", "arange", "argmax",
    "argmin", "argsort", "asarray", "asin", "asinh", "atan", "atan2", "atanh", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "batch_norm", "bilinear", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "broadcast_arrays", "broadcast_to", "ceil", "celu", "channel_shuffle",
    "checkpoint", "clip", "concat", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "copysign", "cos", "cosh", "count_nonzero", "cumulative_prod", "cumulative_sum", "custom_vjp",
    "diagonal", "diff", "divide", "dropout", "dropout1d", "dropout2d", "dropout3d", "einsum", "elu", "embedding",
    "empty", "empty_like", "equal", "exp", "expand_dims", "expm1", "eye", "feature_alpha_dropout", "flip", "floor",
    "floor_divide", "fold", "from_dlpack", "full", "full_like", "gelu", "greater", "greater_equal", "group_norm",
    "hardsigmoid", "hardswish", "hardtanh", "hessian", "hypot", "instance_norm", "interpolate", "isfinite", "isinf",
    "isnan", "jacobian", "layer_norm", "leaky_relu", "less", "less_equal", "linear", "linspace", "local_response_norm",
    "log", "log10", "log1p", "log2", "log_sigmoid", "log_softmax", "logaddexp", "logical_and", "logical_not",
    "logical_or", "logical_xor", "logsumexp", "matmul", "matrix_norm", "matrix_transpose", "max", "max_pool1d",
    "max_pool2d", "max_pool3d", "maximum", "mean", "meshgrid", "min", "minimum", "mish", "moveaxis", "multiply",
    "negative", "nextafter", "nonzero", "norm", "not_equal", "one_hot", "ones", "ones_like", "outer", "pad",
    "permute_dims", "pixel_shuffle", "pixel_unshuffle", "positive", "pow", "prod", "reciprocal", "relu", "relu6",
    "remainder", "repeat", "reshape", "rms_norm", "roll", "rotary_encoding", "round", "scaled_dot_product_attention",
    "scatter_add", "searchsorted", "selu", "sigmoid", "sign", "signbit", "silu", "sin", "sinh", "sinusoidal_encoding",
    "softmax", "softplus", "sort", "sqrt", "square", "squeeze", "stack", "std", "subtract", "sum", "take",
    "take_along_axis", "tan", "tanh", "tensordot", "tile", "trace", "tril", "triu", "trunc", "unfold", "unstack", "var",
    "vecdot", "vector_norm", "where", "zeros", "zeros_like",
]  # fmt: skip
