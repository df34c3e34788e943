"""Operations that are linear, choose a branch, or add a constant: no gain is replaced."""

from torch import Tensor

from .calls import Keep, operation_name
from .operation import Held, Operation
from .rule import Rule, RuleBook, constant_part

RULES = RuleBook()

IN_PLACE_ADVICE = "Write the result into a new tensor: torch.cat, torch.where or index_put"


# ---- linear, or a choice of branch: autograd's derivative is right, no constant ----


def as_autograd(_operation: Operation) -> Held:
    """Rule of operations whose derivative is right and which add no constant."""
    return Held()


RULES.enter(
    """view unsafeview reshapealias reshape t transpose permute expand squeeze unsqueeze slice
    select asstrided alias clone tocopy narrow split splitwithsizes unsafesplit
    unsafesplitwithsizes unbind diagonal
    diagonalcopy repeat roll flip rot90 tril triu diag diagembed trace movedim contiguous copy
    sum mean nansum cumsum neg deg2rad rad2deg
    index indexselect gather take maskedselect unfold im2col col2im
    pixelshuffle pixelunshuffle channelshuffle
    avgpool2d avgpool3d adaptiveavgpool2d adaptiveavgpool3d
    reflectionpad1d reflectionpad2d reflectionpad3d
    replicationpad1d replicationpad2d replicationpad3d
    upsamplenearest1d upsamplenearest2d upsamplenearest3d upsamplenearestexact1d
    upsamplenearestexact2d upsamplenearestexact3d upsamplelinear1d upsamplebilinear2d
    upsamplebicubic2d upsampletrilinear3d upsamplebilinear2daa upsamplebicubic2daa
    fftr2c fftc2r fftc2c real imag complex viewasreal viewascomplex conj zero""",
    Rule(as_autograd),
)
RULES.enter(
    """relu leakyrelu prelukernel rreluwithnoise abs hardshrink
    max min amax amin aminmax sort topk kthvalue median nanmedian mode cummax cummin
    maxpool2dwithindices maxpool3dwithindices maxpool2d mpsmaxpool2d adaptivemaxpool2d
    adaptivemaxpool3d fractionalmaxpool2d fractionalmaxpool3d maxunpool2d maxunpool3d
    linalgvectornorm norm""",  # |z| is z.z / |z|, the direction held
    Rule(as_autograd),
)


# ---- linear with a constant ----


@RULES.rule(
    """stack constantpadnd maskedfill maskedscatter indexput indexputimpl indexcopy
    indexadd indexfill scatter scatteradd selectscatter slicescatter diagonalscatter
    asstridedscatter blockdiag fill""",
    keep=Keep.CONSTANTS,
    keep_tangent=Keep.CONSTANTS,
)
def affine(operation: Operation) -> Held:
    """Rule of affine operations: the constant is their value at zero."""
    return constant_part(operation.label, operation.at_zero())


@RULES.rule("cat where", keep=Keep.CONSTANTS, keep_tangent=Keep.CONSTANTS)
def _joined(operation: Operation) -> Held:
    constant = any(
        leaf.value is not None and leaf.value.is_floating_point()
        for leaf in operation.recorded.leaves()
    )
    return affine(operation) if constant else Held()


@RULES.rule("add sub rsub", keep=Keep.CONSTANTS, keep_tangent=Keep.CONSTANTS)
def _add(operation: Operation) -> Held:
    first, second = operation.constant("self"), operation.constant("other")
    signs = {"add": (1, 1), "sub": (1, -1), "rsub": (-1, 1)}[operation.name]
    constants: dict[str, Tensor | float] = {}
    alpha = operation.argument("alpha")
    factors = (signs[0], signs[1] * alpha) if operation.name != "rsub" else (-alpha, 1)
    for name, value, factor in zip(("self", "other"), (first, second), factors, strict=True):
        if value is not None and not (isinstance(value, (int, float)) and value == 0):
            constants[operation.named(name, operation.label)] = value * factor
    return Held(constants=constants)


# ---- plateaus: the branch is held, and what it does not send back is a constant ----


@RULES.rule(
    """hardtanh clamp clampmin clampmax softshrink threshold maximum minimum fmax fmin
    sign sgn floor ceil round trunc frac fmod remainder heaviside nantonum""",
    keep=Keep.INPUTS,
    keep_tangent=Keep.INPUTS,
)
def _plateau(operation: Operation) -> Held:
    floating = [leaf for leaf in operation.recorded.leaves() if leaf.dtype.is_floating_point]
    is_homogeneous = len(floating) == len(operation.edges) > 1
    return Held() if is_homogeneous else Held(remainder=True)


@RULES.rule("copysign", keep=Keep.INPUTS, keep_tangent=Keep.INPUTS)
def _with_sign(operation: Operation) -> Held:
    # of a constant only the sign depends on x: a plateau; else the sign is held, and is linear
    return Held(remainder=operation.edges == (1,))


@RULES.rule("scatterreduce indexreduce", keep=Keep.INPUTS, keep_tangent=Keep.INPUTS)
def _reduced_groups(operation: Operation) -> Held:
    if operation.argument("reduce") == "prod" and not operation.tangent:
        raise operation.unsupported("a product of functions of x")
    return Held(remainder=True)


# ---- assignment to part of a tensor ----


@RULES.rule("copyslices", keep=Keep.CONSTANTS, keep_tangent=Keep.CONSTANTS)
def _assign(operation: Operation) -> Held:
    inner = operation_name(operation.recorded.function._schema.name)
    rule = RULES.get(inner)
    is_scaled = inner == "mul" and len(operation.edges) == 1
    is_linear = is_scaled or (inner != "copy" and rule is not None and rule.apply is as_autograd)
    if is_linear and 0 in operation.edges:
        return Held()
    if not is_linear and inner not in ("copy", "fill", "add", "sub", "maskedfill"):
        raise operation.unsupported(f"{inner}_ on part of a tensor", IN_PLACE_ADVICE)
    return constant_part(operation.label, operation.recorded.embed(operation.at_zero()))
