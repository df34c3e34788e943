"""The market of networks: one-layer cases and small nets that every property test runs over.

A case is a constructor and an input shape. Adding a rule means adding a case here; then every
property is tested for it: completeness, replay with held gates, Jacobian, terms, batch splitting.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A network to linearize.

    `is_piecewise` says that the secant is the Jacobian; `is_paired` that exact differences exist.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (8,)
    is_piecewise: bool = False
    is_paired: bool = True

    def model(self, dtype=torch.float64):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().to(dtype).eval()
            for name, parameter in model.named_parameters():
                low = 0.5 if name.endswith("weight") and parameter.dim() == 1 else 0.0
                parameter.data = torch.randn_like(parameter) * 0.4 + low
            for name, buffer in model.named_buffers():
                if "running" in name:
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
        return model

    def x(self, n=3, dtype=torch.float64, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(n, *self.shape, generator=generator, dtype=torch.float64).to(dtype)


class Apply(nn.Module):
    """A function as a module, with parameters ``w`` (8,) and ``A`` (8, 8) at hand."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.w = nn.Parameter(torch.randn(8))
        self.A = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return self.function(self, x)


def apply(function, shape=(8,)):
    """The function as the network of a case."""
    return Case("", lambda: Apply(function), shape).model()


def _apply(function):
    return lambda: Apply(function)


def _elementwise(layer):
    return lambda: nn.Sequential(nn.Linear(8, 6), layer(), nn.Linear(6, 3))


def _function(function):
    return _apply(lambda m, x: function(x @ m.A + m.w) @ m.A[:, :3])


PIECEWISE_ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu_inplace": lambda: nn.ReLU(inplace=True),
    "relu6": nn.ReLU6,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "leaky_relu_inplace": lambda: nn.LeakyReLU(0.1, inplace=True),
    "prelu": nn.PReLU,
    "rrelu": nn.RReLU,
    "rrelu_inplace": lambda: nn.RReLU(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.7, 0.4),
    "hardtanh_inplace": lambda: nn.Hardtanh(-0.7, 0.4, inplace=True),
    "hardsigmoid": nn.Hardsigmoid,
    "hardsigmoid_inplace": lambda: nn.Hardsigmoid(inplace=True),
    "hardshrink": nn.Hardshrink,
    "softshrink": nn.Softshrink,
    "threshold": lambda: nn.Threshold(0.1, 0.3),
    "threshold_inplace": lambda: nn.Threshold(0.1, 0.3, inplace=True),
    "dropout": nn.Dropout,
    "alpha_dropout": nn.AlphaDropout,
    "identity": nn.Identity,
}

SMOOTH_ACTIVATIONS = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "silu_inplace": lambda: nn.SiLU(inplace=True),
    "mish": nn.Mish,
    "mish_inplace": lambda: nn.Mish(inplace=True),
    "hardswish": nn.Hardswish,
    "hardswish_inplace": lambda: nn.Hardswish(inplace=True),
    "elu": lambda: nn.ELU(0.7),
    "elu_inplace": lambda: nn.ELU(0.7, inplace=True),
    "selu": nn.SELU,
    "selu_inplace": lambda: nn.SELU(inplace=True),
    "celu": lambda: nn.CELU(0.6),
    "celu_inplace": lambda: nn.CELU(0.6, inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": lambda: nn.Softplus(1.5, 2.0),
    "logsigmoid": nn.LogSigmoid,
    "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}


def _in_place_tanh(m, x):
    h = x @ m.A
    t = torch.tanh(h)
    h += 1  # overwrites the input of tanh, which autograd did not keep
    return t + h


def _slices(m, x):
    h = x * m.w
    h[:, :3] = h[:, 3:6]
    h[:, 3] = 0.7
    h[:, 6:] += m.w[:2]
    h[:, 4:6].relu_()
    return h @ m.A


def _fresh_slices(m, x):
    h = torch.zeros(len(x), 4, dtype=x.dtype)
    h[:, 1] = x[:, 2]
    h[:, 2:] = m.w[:2]
    return h * 2


def _scaled_slices(m, x):
    h = x * m.w
    h[:, :3].mul_(m.w[:3])
    h[:, 2:5].neg_()
    return h @ m.A


def _written_constants(m, x):
    """Constants of which a part is written, added to and multiplied; what is left of them stays."""
    tokens = m.w.repeat(len(x), 3, 1)
    tokens[:, 1] = x
    scaled = m.A[:3].repeat(len(x), 1, 1)
    scaled[:, 1:] *= x[:, None]
    moved = m.A.T[:3].repeat(len(x), 1, 1).transpose(1, 2)
    moved[:, 2:6, :2] += x[:, :4, None]
    moved[:, 3:7].sub_(x[:, 4:, None], alpha=2)
    filled = torch.empty(len(x), 2, 8, dtype=x.dtype)
    filled[:, 0] = m.w
    filled[:, 1] = x * m.w
    return torch.cat([tokens, scaled, moved.mT, filled], 1)


def _scatters(m, x):
    h = torch.ones_like(x).scatter(1, torch.arange(4).repeat(len(x), 1), x[:, :4])
    h = h.index_add(1, torch.tensor([0, 0]), x[:, 4:6]).index_copy(
        1, torch.tensor([5]), x[:, 6:7].clone()
    )
    return h.index_fill(1, torch.tensor([7]), 0.3).scatter_add(
        1, torch.zeros(len(x), 1, dtype=torch.long), x[:, :1]
    )


def _ragged(m, x):
    """Active pairs in any order: gathered rows that no reshape can attribute to instances."""
    row, column = (x > 0).nonzero(as_tuple=True)
    order = torch.arange(len(row) - 1, -1, -1)
    row, column = row[order], column[order]
    value = x[row, column] * m.w[column] + m.A[0, column]
    return torch.zeros(len(x), 2, dtype=x.dtype).index_put(
        (row, column % 2), value, accumulate=True
    )


def _sparsemax(m, x):
    z = x @ m.A
    ordered = z.sort(1, descending=True).values
    total = ordered.cumsum(1)
    rank = torch.arange(1, 9, dtype=x.dtype)
    size = (1 + rank * ordered > total).sum(1, keepdim=True)
    tau = (total.gather(1, size - 1) - 1) / size
    return torch.clamp(z - tau, min=0) @ m.A


FUSED_RMS_NORMS = {  # what GPUs run
    "": lambda m, x: torch.ops.aten._fused_rms_norm(x @ m.A, [8], m.w, 0.1)[0],
    "_plain": lambda m, x: torch.ops.aten._fused_rms_norm(x @ m.A, [8], None, None)[0],
}


def _atlas(m, x):
    with torch.no_grad():
        index = (x @ m.A).topk(3, 1).indices
    K = m.A[index]  # (N, 3, 8)
    s = 2 * (x[:, None] * K).sum(-1) - K.square().sum(-1)
    with torch.no_grad():
        mask = (s > s.mean(1, keepdim=True)).to(x.dtype)
    p = (s - (s * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True) + 1) * mask
    E = (m.A.T[index] * (x[:, None] - K)).sum(-1)
    E = torch.minimum(torch.maximum(E, -0.5 * p), 0.5 * p)
    return (p[..., None] * m.A[index][..., :2]).sum(1) + E.sum(1, keepdim=True)


def _padded(layer, n_channels, mode):
    return layer(n_channels, 4, 3, padding=1, padding_mode=mode)


CORNERS = {"align_corners": False}


def samples_grids_twice():
    """Whether this torch has the second derivative of `grid_sample`; 2.9 has not."""
    x, grid, u = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1)
    y = F.grid_sample(x.requires_grad_(), grid, **CORNERS)
    (slope,) = torch.autograd.grad(y, x, u.requires_grad_(), create_graph=True)
    return "NotImplemented" not in slope.grad_fn.name()


def _grid(m, x):
    corner = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.8, 0.1]]], dtype=x.dtype)
    return F.affine_grid(corner.expand(len(x), 2, 3), list(x.shape), **CORNERS)


def _halves(x):
    return torch.tensor([[0, 1] * 4]).expand(len(x), 8)


def _overwrite_masked(h):
    h = h * 1
    h[h > 0.5] = h[h > 0.5] * 2
    h[h < -1] = -1
    return h


def _highway(gate, new, old):
    return gate * new + (1 - gate) * old


def _experts(m, x):
    share = torch.softmax(x @ m.A[:, :3], 1)
    return (share[:, :, None] * torch.stack([x @ m.A, F.relu(x), x + m.w], 1)).sum(1)


def _global_response(m, x):
    size = x.norm(p=2, dim=(2, 3), keepdim=True)
    return m.w[0] * x * (size / (size.mean(1, keepdim=True) + 1e-6)) + m.w[1] + x


def _channel_attention(m, x):
    scores = F.conv1d(x.mean((2, 3))[:, None], m.A[:1, None, :3], padding=1)
    return x * torch.sigmoid(scores)[:, 0, :, None, None]


def _kernel_of_x(m, x):
    """Each row has its own kernels: both factors of the convolution depend on x."""
    kernels = x.mean((2, 3))[:, :, None, None] * m.w[:4].reshape(2, 2)
    h = F.conv2d(x.reshape(1, -1, 4, 4), kernels.reshape(-1, 1, 2, 2), groups=3 * len(x))
    return h.reshape(len(x), 3, 3, 3)


def _masked_attention(m, x):
    is_later = torch.ones(3, 3, dtype=torch.bool).triu(1)
    return torch.softmax((x @ m.A @ x.mT).masked_fill(is_later, -torch.inf), -1) @ x


def _linear_attention(m, x):
    q, k = F.elu(x @ m.A) + 1, F.elu(x) + 1
    return (q @ (k.mT @ x)) / (q @ k.sum(1)[:, :, None])


def _sdpa(q, x, **options):
    return F.scaled_dot_product_attention(q[:, None], x[:, None], x[:, None] + 1, **options)[:, 0]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x):
        return self.layer(x, x * 2)


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(8, 3), nn.GRUCell(3, 3), nn.RNNCell(3, 3)

    def forward(self, x):
        return self.rnn(self.gru(self.lstm(x)[0]))


def _attention(m, x):
    q, k, v = x @ m.A, x @ m.A.T, x @ (m.A * m.w)
    return torch.softmax(q @ k.transpose(1, 2) / 8**0.5, -1) @ v


def _talking_heads(m, x):
    """Attention whose maps are mixed over the heads, blended with a fixed one, and normalised."""
    q, k = (h.unflatten(2, (4, 2)).transpose(1, 2) for h in (x @ m.A, x @ m.A.T))
    maps = torch.softmax(q @ k.mT, -1).permute(0, 2, 3, 1) @ m.A[:4, :4].abs() + m.w[0].abs()
    maps = F.conv2d(maps.permute(0, 3, 1, 2), m.A[:4, :4, None, None].abs())
    maps = maps / maps.sum(-1, keepdim=True)
    return (maps @ x.unflatten(2, (4, 2)).transpose(1, 2)).transpose(1, 2).flatten(2)


class Tied(nn.Module):
    """A decoder that shares its weight with the encoder, and a layer under two names."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8), nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight
        self.again = self.encoder

    def forward(self, x):
        return self.again(F.relu(self.decoder(F.relu(self.encoder(x)))))


class Attention(nn.Module):
    def __init__(self, *, batch_first=True, need_weights=False, is_causal=False):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        mask = torch.ones(3, 3, dtype=torch.bool).triu(1) if is_causal else None
        self.options = {"need_weights": need_weights, "attn_mask": mask, "is_causal": is_causal}

    def forward(self, x):
        if self.attention.batch_first:
            return self.attention(x, x, x, **self.options)[0]
        x = x.transpose(0, 1)
        return self.attention(x, x, x, **self.options)[0].transpose(0, 1)


class Residual(nn.Module):
    """conv - norm - relu - conv - norm + x - relu, with in-place sums."""

    def __init__(self, channels=4, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.short = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x):
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        h += self.short(x)
        return self.relu(h)


class Dense(nn.Module):
    """Two dense layers: norm - relu - conv, each joined to what it saw."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 2, 3, padding=1))
            for c in (3, 5)
        )

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class SqueezeExcite(nn.Module):
    def __init__(self, gate=torch.sigmoid):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc1 = nn.Linear(4, 2)
        self.fc2 = nn.Linear(2, 4)
        self.gate = gate

    def forward(self, x):
        h = self.conv(x)
        s = self.gate(self.fc2(F.relu(self.fc1(h.mean((2, 3))))))
        return (h * s[..., None, None]).flatten(1)


class Patches(nn.Module):
    """A small vision transformer: patch embedding, class token, positions, one block, head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.block = nn.TransformerEncoderLayer(
            8, 2, 16, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.embed(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.position
        return self.head(self.norm(self.block(h))[:, 0])


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        for _ in range(3):
            x = F.relu(self.layer(x)) + x
        return x


class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 5), a(), nn.Linear(5, 3)) for a in (nn.ReLU, nn.GELU)
        )

    def forward(self, x):
        return torch.stack([m(x) for m in self.members]).mean(0)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.layer = kind(8, 4, batch_first=True, **options)

    def forward(self, x):
        return self.layer(x)[0][:, -1]


def _conv(layer):
    return lambda: nn.Sequential(layer(), nn.ReLU())


def _image(layer, channels=4):
    return lambda: nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), layer())


IMAGE = (3, 4, 4)

PIECEWISE = [
    Case("linear", lambda: nn.Linear(8, 3)),
    Case("linear_rows", lambda: nn.Linear(8, 3), (5, 8)),
    *(Case(n, _elementwise(a)) for n, a in PIECEWISE_ACTIVATIONS.items()),
    Case("conv1d", _conv(lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1)), (3, 7)),
    Case(
        "conv1d_circular",
        _conv(lambda: nn.Conv1d(3, 4, 3, padding=2, padding_mode="circular")),
        (3, 7),
    ),
    Case(
        "conv2d", _conv(lambda: nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2)), (4, 5, 5)
    ),
    Case(
        "conv2d_reflect",
        _conv(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")),
        IMAGE,
    ),
    Case(
        "conv2d_replicate",
        _conv(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")),
        IMAGE,
    ),
    Case(
        "conv2d_circular",
        _conv(lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
        IMAGE,
    ),
    Case("conv3d", _conv(lambda: nn.Conv3d(2, 3, 2)), (2, 3, 3, 3)),
    Case("conv_transpose1d", _conv(lambda: nn.ConvTranspose1d(3, 4, 3, stride=2)), (3, 4)),
    Case(
        "conv_transpose2d",
        _conv(lambda: nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1)),
        IMAGE,
    ),
    Case("conv_transpose3d", _conv(lambda: nn.ConvTranspose3d(2, 3, 2)), (2, 2, 2, 2)),
    Case("batch_norm1d", lambda: nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))),
    Case("batch_norm2d", _image(lambda: nn.BatchNorm2d(4)), IMAGE),
    Case("batch_norm2d_plain", _image(lambda: nn.BatchNorm2d(4, affine=False)), IMAGE),
    Case("batch_norm3d", lambda: nn.BatchNorm3d(2), (2, 2, 2, 2)),
    Case("max_pool1d", lambda: nn.MaxPool1d(3, 2, padding=1), (3, 7)),
    Case("max_pool2d", _image(lambda: nn.MaxPool2d(2)), IMAGE),
    Case(
        "max_pool_same",
        _image(
            lambda: nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -torch.inf), nn.MaxPool2d(3, 2))
        ),
        IMAGE,
    ),
    Case("max_pool3d", lambda: nn.MaxPool3d(2), (2, 4, 4, 4)),
    Case("adaptive_max_pool1d", lambda: nn.AdaptiveMaxPool1d(2), (3, 5)),
    Case("adaptive_max_pool2d", _image(lambda: nn.AdaptiveMaxPool2d(3)), IMAGE),
    Case("adaptive_max_pool3d", lambda: nn.AdaptiveMaxPool3d(2), (2, 3, 3, 3)),
    Case(
        "fractional_max_pool2d",
        _image(lambda: nn.FractionalMaxPool2d(2, output_size=2)),
        IMAGE,
        is_paired=False,
    ),
    Case(
        "fractional_max_pool3d",
        lambda: nn.FractionalMaxPool3d(2, output_size=2),
        (2, 4, 4, 4),
        is_paired=False,
    ),
    Case(
        "max_unpool2d",
        _apply(lambda m, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        IMAGE,
        is_paired=False,
    ),
    Case("avg_pool1d", lambda: nn.AvgPool1d(2), (3, 6)),
    Case("avg_pool2d", _image(lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False)), IMAGE),
    Case("avg_pool3d", lambda: nn.AvgPool3d(2), (2, 4, 4, 4)),
    Case("adaptive_avg_pool", _image(lambda: nn.AdaptiveAvgPool2d(3)), IMAGE),
    *(
        Case(
            f"upsample_{mode}",
            _image(lambda mode=mode: nn.Upsample(scale_factor=2, mode=mode)),
            IMAGE,
        )
        for mode in ("nearest", "bilinear", "bicubic", "nearest-exact")
    ),
    Case("interpolate_area", _apply(lambda m, x: F.interpolate(x, size=3, mode="area")), IMAGE),
    Case(
        "interpolate_antialias",
        _apply(lambda m, x: F.interpolate(x, size=3, mode="bilinear", antialias=True)),
        IMAGE,
    ),
    Case("upsample_linear", lambda: nn.Upsample(scale_factor=2, mode="linear"), (3, 4)),
    Case("upsample_trilinear", lambda: nn.Upsample(scale_factor=2, mode="trilinear"), (2, 2, 2, 2)),
    Case("pad_constant", _image(lambda: nn.ConstantPad2d(1, 0.7)), IMAGE),
    Case("pad_zero", _image(lambda: nn.ZeroPad2d(1)), IMAGE),
    Case("pixel_shuffle", _image(lambda: nn.PixelShuffle(2)), IMAGE),
    Case("pixel_unshuffle", _image(lambda: nn.PixelUnshuffle(2)), IMAGE),
    Case("channel_shuffle", _image(lambda: nn.ChannelShuffle(2)), IMAGE),
    Case("fold", _apply(lambda m, x: F.fold(F.unfold(x, 2), (4, 4), 2)), IMAGE),
    Case("constants", _apply(lambda m, x: (3 - (m.w - x)) * 2 - m.w + x / 3 + 1 - 0.5 * x)),
    Case(
        "in_place_constants",
        _apply(lambda m, x: (x * 1).add_(m.w).sub_(1).mul_(m.w).div_(3).neg_()),
    ),
    Case("alpha", _apply(lambda m, x: torch.add(torch.sub(x, m.w, alpha=2), 3, alpha=0.5))),
    Case("addmm", _apply(lambda m, x: torch.addmm(m.w, x, m.A, alpha=2, beta=3))),
    Case("addmm_of_x", _apply(lambda m, x: torch.addmm(x, m.A[:1].expand(len(x), 8), m.A))),
    Case("addmv", _apply(lambda m, x: torch.addmv(x @ m.w, x, m.w)), is_piecewise=True),
    Case("addcmul", _apply(lambda m, x: torch.addcmul(m.w, x, m.w, value=2))),
    Case("lerp", _apply(lambda m, x: torch.lerp(x, m.w, 0.3))),
    Case("lerp_by_x", _apply(lambda m, x: torch.lerp(m.w, m.A[0], x @ m.A))),
    Case("einsum", _apply(lambda m, x: torch.einsum("nd,dk,k->nk", x, m.A, m.w))),
    Case("bmm", _apply(lambda m, x: torch.bmm(x, m.A.expand(len(x), 8, 8))), (3, 8)),
    Case("clamp", _apply(lambda m, x: x.clamp(-0.5, 0.6).clamp(min=-m.w.abs()) @ m.A)),
    Case("clamp_in_place", _apply(lambda m, x: (x @ m.A).clamp_(-0.5, 0.6).clamp_min_(0.1))),
    Case("clamp_tensor", _apply(lambda m, x: x.clamp(-m.w.abs(), m.w.abs()) @ m.A)),
    Case("abs", _apply(lambda m, x: (x - m.w).abs() @ m.A)),
    Case("maximum", _apply(lambda m, x: torch.maximum(x @ m.A, torch.minimum(x, m.w)))),
    Case(
        "clip_by_x",
        _apply(
            lambda m, x: torch.minimum(torch.maximum(x[:, :4], -x[:, 4:].abs()), x[:, 4:].abs())
        ),
    ),
    Case(
        "where",
        _apply(lambda m, x: torch.where(x > 0, x * 2, m.w).masked_fill(x > 1, 2.5)),
        is_paired=False,
    ),
    Case("gate_by_mask", _apply(lambda m, x: x * (x > 0) + (x < -1)), is_paired=False),
    Case(
        "max_min",
        _apply(
            lambda m, x: torch.stack(
                [x.max(1).values, x.amin(1), x.max(1, keepdim=True)[0].sum(1)], 1
            )
        ),
    ),
    Case(
        "sort",
        _apply(lambda m, x: x.sort(1, descending=True).values.cumsum(1) @ m.A),
        is_paired=False,
    ),
    Case("topk", _apply(lambda m, x: x.topk(3, 1).values), is_paired=False),
    Case(
        "median",
        _apply(
            lambda m, x: x.median(1, keepdim=True).values + x.kthvalue(2, 1, keepdim=True).values
        ),
        is_paired=False,
    ),
    Case("cummax", _apply(lambda m, x: x.cummax(1).values)),
    Case("cummin", _apply(lambda m, x: x.cummin(1).values @ m.A)),
    Case(
        "gather",
        _apply(
            lambda m, x: (
                x.gather(1, x.argsort(1)[:, :3])
                + x.index_select(1, torch.tensor([1, 1, 2]))
                + x[:, [0, 1, 0]]
            )
        ),
        is_paired=False,
    ),
    Case("scatter", _apply(_scatters)),
    Case("ragged", _apply(_ragged), is_paired=False),
    Case(
        "cat",
        _apply(
            lambda m, x: torch.cat(
                [x, m.w.expand(len(x), 8), x @ m.A, torch.ones(len(x), 1, dtype=x.dtype)], 1
            )
        ),
    ),
    Case("stack", _apply(lambda m, x: torch.stack([x, m.w.expand_as(x)], 1).flatten(1))),
    Case(
        "views",
        _apply(
            lambda m, x: (
                x
                .flip(1)
                .roll(1, 1)
                .view(-1, 2, 4)
                .transpose(1, 2)
                .repeat(1, 2, 1)
                .unbind(1)[0]
                .unsqueeze(1)
                .expand(-1, 3, 2)
                .diff(dim=2)
                .squeeze(2)
                + x.chunk(4, 1)[0].sum(1, keepdim=True)
                + x.unfold(1, 2, 3).mean((1, 2))[:, None]
            )
        ),
    ),
    Case("triangle", _apply(lambda m, x: x.tril().diagonal(dim1=1, dim2=2)), (3, 3)),
    Case("fourier", _apply(lambda m, x: torch.fft.irfft(torch.fft.rfft(x + 1) * (1 + 2j) + 1j))),
    Case("cast", _apply(lambda m, x: (x.to(torch.float64) + 1).to(x.dtype))),
    Case(
        "round",
        _apply(lambda m, x: x.floor() + x.sign() + x.frac() + x.remainder(0.4)),
        is_paired=False,
    ),
    Case("rounded", _apply(lambda m, x: x.round() + (x @ m.A).round(decimals=1) + x)),
    Case("slices", _apply(_slices), is_paired=False),
    Case("fresh_slices", _apply(_fresh_slices)),
    Case("scaled_slices", _apply(_scaled_slices)),
    Case("written_constants", _apply(_written_constants)),
    Case("sparsemax", _apply(_sparsemax), is_paired=False),
    Case("atlas", _apply(_atlas), is_paired=False),
    Case("conv1d_reflect", _conv(lambda: _padded(nn.Conv1d, 3, "reflect")), (3, 7)),
    Case("conv1d_replicate", _conv(lambda: _padded(nn.Conv1d, 3, "replicate")), (3, 7)),
    *(
        Case(f"conv3d_{mode}", _conv(lambda mode=mode: _padded(nn.Conv3d, 2, mode)), (2, 3, 3, 3))
        for mode in ("circular", "reflect", "replicate")
    ),
    Case("conv2d_one_row", _conv(lambda: nn.Conv2d(3, 4, (1, 3), (2, 1), (0, 1))), IMAGE),
    Case(
        "conv_transpose_groups",
        _conv(lambda: nn.ConvTranspose2d(4, 4, 3, 2, dilation=2, groups=2)),
        (4, 3, 3),
    ),
    Case("reflection_pad1d", lambda: nn.ReflectionPad1d(2), (2, 5)),
    Case("reflection_pad3d", lambda: nn.ReflectionPad3d(1), (2, 3, 3, 3)),
    Case("circular_pad2d", lambda: nn.CircularPad2d(1), IMAGE),
    Case("pad_negative", _apply(lambda m, x: F.pad(x, (-1, 2), value=0.3))),
    Case(
        "instance_norm_running",
        _image(lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        IMAGE,
    ),
    Case("sync_batch_norm", _image(lambda: nn.SyncBatchNorm(4)), IMAGE),
    Case("spectral_norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3))),
    Case("crelu", _apply(lambda m, x: torch.cat([F.relu(x @ m.A), F.relu(-x @ m.A)], 1))),
    Case("prelu_channels", _image(lambda: nn.PReLU(4)), IMAGE),
    Case("relu_methods", _apply(lambda m, x: torch.relu_(x @ m.A) - (x @ m.A.T).relu())),
    Case("fmax", _apply(lambda m, x: torch.fmax(x @ m.A, m.w) + torch.fmin(x, -x))),
    Case("clamp_max_tensor", _apply(lambda m, x: x.clamp_max(m.w) + (x @ m.A).clamp_min(m.w))),
    Case(
        "clamp_by_x",
        _apply(lambda m, x: torch.clamp(x @ m.A, -x.abs(), x.abs() + 1)),
        is_paired=False,
    ),
    Case("maxout", _apply(lambda m, x: (x @ m.A).unflatten(1, (4, 2)).amax(2))),
    *(  # torch 2.9 has no derivative of it
        Case(name, _apply(lambda m, x: torch.stack(torch.aminmax(x, dim=1), 1)), is_paired=False)
        for name in ["aminmax"]
        if torch.aminmax(torch.ones(1, requires_grad=True)).min.grad_fn.name() == "AminmaxBackward0"
    ),
    Case("sign_times_x", _apply(lambda m, x: x.copysign(m.w) @ m.A)),
    Case("sign_of_x", _apply(lambda m, x: torch.copysign(m.w, x @ m.A) + x.copysign(-0.3))),
    Case("nan_to_num", _apply(lambda m, x: x.nan_to_num() @ m.A)),
    Case(
        "max_pool_dilated",
        _apply(lambda m, x: F.max_pool2d(x, 2, 1, dilation=2, ceil_mode=True)),
        (2, 5, 5),
    ),
    Case(
        "avg_pool_ceil",
        _apply(lambda m, x: F.avg_pool2d(x, 2, 2, ceil_mode=True, divisor_override=3)),
        (2, 5, 5),
    ),
    Case("adaptive_avg_pool1d", lambda: nn.AdaptiveAvgPool1d(2), (3, 5)),
    Case("adaptive_avg_pool3d", lambda: nn.AdaptiveAvgPool3d(2), (2, 3, 3, 3)),
    Case(
        "max_unpool1d",
        _apply(lambda m, x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2)),
        (2, 6),
        is_paired=False,
    ),
    Case("upsample_nearest1d", lambda: nn.Upsample(scale_factor=2), (3, 4)),
    Case("upsample_nearest3d", lambda: nn.Upsample(scale_factor=2), (2, 2, 2, 2)),
    Case(
        "upsample_corners",
        _apply(lambda m, x: F.interpolate(x, size=(7, 5), mode="bicubic", align_corners=True)),
        IMAGE,
    ),
    Case("grid_sample", _apply(lambda m, x: F.grid_sample(x, _grid(m, x), **CORNERS)), IMAGE),
    Case(
        "dropouts",
        lambda: nn.Sequential(
            *(nn.Dropout2d(), nn.Flatten(2), nn.Dropout1d(), nn.Unflatten(2, (1, 4, 4))),
            *(nn.Dropout3d(), nn.FeatureAlphaDropout()),
        ),
        IMAGE,
    ),
    Case("hstack", _apply(lambda m, x: torch.hstack([x, x @ m.A, m.w.expand_as(x)]))),
    Case("kron", _apply(lambda m, x: torch.kron(x, m.A[:1]))),
    Case(
        "block_diag",
        _apply(lambda m, x: torch.stack([torch.block_diag(r[:2, None], m.A[:2]) for r in x])),
    ),
    Case(
        "block_diag_of_x",
        _apply(lambda m, x: torch.stack([torch.block_diag(r[:2, None], r[2:]) for r in x])),
    ),
    Case("cross", _apply(lambda m, x: torch.linalg.cross(x, m.A[:1, :3].expand_as(x))), (3,)),
    Case("tensordot", _apply(lambda m, x: torch.tensordot(x, m.A, ([2], [0]))), (3, 8)),
    Case("baddbmm", _apply(lambda m, x: torch.baddbmm(m.w, x, m.A.expand(len(x), 8, 8))), (3, 8)),
    Case("addcdiv", _apply(lambda m, x: torch.addcdiv(m.w, x, m.w.abs() + 1)), is_paired=False),
    Case(
        "scatter_reduce",
        _apply(
            lambda m, x: torch.cat(
                [
                    torch.ones(len(x), 2, dtype=x.dtype).scatter_reduce(1, _halves(x), x, how)
                    for how in ("sum", "mean", "amax")
                ],
                1,
            )
        ),
        is_paired=False,
    ),
    Case(
        "scatter_mean",
        _apply(lambda m, x: x.scatter_reduce(1, _halves(x), x @ m.A, "mean", include_self=False)),
        is_paired=False,
    ),
    Case(
        "take_along", _apply(lambda m, x: x.take_along_dim(x.argsort(1), 1).diff()), is_paired=False
    ),
    Case(
        "embedding_of_bins",
        _apply(lambda m, x: F.embedding((x > 0).long(), m.A) * x[:, :, None]),
        is_paired=False,
    ),
    Case(
        "masked_assignment",
        _apply(lambda m, x: _overwrite_masked(x * m.w)),
    ),
    Case(
        "split", _apply(lambda m, x: torch.cat([x.split([3, 5], 1)[1], x.tensor_split(3, 1)[0]], 1))
    ),
    Case("residual", Residual, (4, 4, 4)),
    Case("residual_stride", lambda: Residual(stride=2), (4, 4, 4)),
    Case("dense", Dense, IMAGE),
    Case(
        "depthwise",
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.BatchNorm2d(6),
            nn.ReLU6(),
            nn.Conv2d(6, 3, 1),
        ),
        IMAGE,
    ),
    Case(
        "lenet",
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(4, 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        ),
        (1, 8, 8),
    ),
    Case("reused", Reused),
    Case("tied", Tied),
    Case("weight_norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))),
    Case(
        "time_major",
        _apply(lambda m, x: F.relu(x.transpose(0, 1) @ m.A + m.w).transpose(0, 1).mean(1)),
        (5, 8),
    ),
]

SMOOTH = [
    *(Case(n, _elementwise(a)) for n, a in SMOOTH_ACTIVATIONS.items()),
    *(
        Case(n, _function(getattr(torch, n)))
        for n in (
            "exp",
            "expm1",
            "sin",
            "cos",
            "sinh",
            "cosh",
            "asinh",
            "atan",
            "erf",
            "sinc",
            "square",
        )
    ),
    Case("exp2", _function(torch.exp2)),
    Case("log1p", _function(lambda z: torch.log1p(z.abs()))),
    Case("sqrt", _function(lambda z: z.abs().sqrt())),
    Case("pow", _function(lambda z: z**3 + (z * z + 1) ** 1.5 + 2**z)),
    Case("tanh_in_place", _function(lambda z: (z * 1).tanh_())),
    Case("sigmoid_in_place", _function(lambda z: (z * 1).sigmoid_())),
    Case("overwritten_input", _apply(_in_place_tanh)),
    Case("manual_silu", _function(lambda z: z * torch.sigmoid(z))),
    Case("manual_gelu", _function(lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)))),
    Case(
        "manual_gelu_tanh",
        _function(
            lambda z: 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))
        ),
    ),
    Case("manual_mish", _function(lambda z: z * torch.tanh(F.softplus(z)))),
    Case("manual_hardswish", _function(lambda z: z * F.relu6(z + 3) / 6)),
    Case("manual_swish_quotient", _function(lambda z: z / (1 + torch.exp(-z)))),
    Case("product", _apply(lambda m, x: (x @ m.A) * (x + m.w))),
    Case("square_by_product", _apply(lambda m, x: x * x)),
    Case("quotient_gate", _apply(lambda m, x: (x @ m.A) * (m.w / (x.square() + 1)))),
    Case("logsumexp_gate", _apply(lambda m, x: x * x.logsumexp((1, 2), keepdim=True)), (3, 8)),
    Case("logsumexp_factor", _apply(lambda m, x: x * x.logsumexp(1)[:, None])),
    Case("quotient", _apply(lambda m, x: (x + m.w) / (x.square().sum(1, keepdim=True) + 1))),
    Case("gram", _apply(lambda m, x: x @ x.transpose(1, 2)), (3, 8)),
    Case("bilinear", _apply(lambda m, x: F.bilinear(x, x, m.A[None].expand(2, 8, 8), m.w[:2]))),
    Case("addcmul_of_x", _apply(lambda m, x: torch.addcmul(m.w, x, x @ m.A))),
    Case("normalize", _apply(lambda m, x: F.normalize(x @ m.A))),
    Case("norm", _apply(lambda m, x: (x @ m.A).norm(dim=1, keepdim=True))),
    Case("cosine", _apply(lambda m, x: F.cosine_similarity(x, m.w[None])[:, None])),
    Case("layer_norm", lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3))),
    Case("layer_norm_plain", lambda: nn.LayerNorm((3, 8), elementwise_affine=False), (3, 8)),
    Case("group_norm", _image(lambda: nn.GroupNorm(2, 4)), IMAGE),
    Case("instance_norm", _image(lambda: nn.InstanceNorm2d(4, affine=True)), IMAGE),
    Case("instance_norm1d", lambda: nn.InstanceNorm1d(3), (3, 5)),
    Case("rms_norm", lambda: nn.Sequential(nn.Linear(8, 8), nn.RMSNorm(8))),
    Case("local_response_norm", _image(lambda: nn.LocalResponseNorm(2)), IMAGE),
    Case(
        "manual_layer_norm",
        _apply(
            lambda m, x: (
                (x - x.mean(1, keepdim=True))
                / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
                * m.w
                + m.w
            )
        ),
    ),
    Case("lp_pool", _image(lambda: nn.LPPool2d(2, 2)), IMAGE),
    Case("glu", lambda: nn.Sequential(nn.Linear(8, 8), nn.GLU(), nn.Linear(4, 3))),
    Case(
        "manual_glu",
        _apply(lambda m, x: (lambda a, b: a * torch.sigmoid(b))(*(x @ m.A).chunk(2, 1))),
    ),
    Case(
        "two_gates",
        _apply(lambda m, x: torch.sigmoid(x @ m.A) * torch.softmax(x, 1) * torch.tanh(x)),
    ),
    Case("attention", _apply(_attention), (3, 8)),
    Case("talking_heads", _apply(_talking_heads), (3, 8)),
    Case(
        "sdpa",
        _apply(
            lambda m, x: F.scaled_dot_product_attention(*(
                (x @ m.A)[:, None],
                x[:, None],
                (x + m.w)[:, None],
            ))[:, 0]
        ),
        (3, 8),
    ),
    Case("multihead", Attention, (3, 8)),
    Case("multihead_time_major", lambda: Attention(batch_first=False), (3, 8)),
    Case("multihead_weights", lambda: Attention(need_weights=True), (3, 8)),
    Case("transformer", lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (3, 8)),
    Case("vision_transformer", Patches, IMAGE),
    Case("squeeze_excite", SqueezeExcite, IMAGE),
    Case("squeeze_excite_hard", lambda: SqueezeExcite(F.hardsigmoid), IMAGE),
    Case(
        "inverted_residual",
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1),
            nn.BatchNorm2d(6),
            nn.Hardswish(),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.BatchNorm2d(6),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        ),
        IMAGE,
    ),
    Case(
        "convnext",
        lambda: nn.Sequential(
            nn.Conv2d(3, 3, 3, padding=1, groups=3),
            nn.GroupNorm(1, 3),
            nn.Conv2d(3, 6, 1),
            nn.GELU(),
            nn.Conv2d(6, 3, 1),
        ),
        IMAGE,
    ),
    Case("quick_gelu", _function(lambda z: z * torch.sigmoid(1.702 * z))),
    Case("squared_relu", _function(lambda z: 0.9 * F.relu(z) ** 2 - 0.4)),
    Case("snake", _function(lambda z: z + torch.sin(z) ** 2 / 2)),
    Case("gaussian", _function(lambda z: torch.exp(-z.square()))),
    Case("erfc", _function(torch.erfc)),
    Case("log_of_exp", _function(lambda z: torch.log1p(torch.exp(z)))),
    Case(
        "arcs", _function(lambda z: torch.atanh(torch.tanh(z) / 2) + torch.asin(torch.tanh(z) / 2))
    ),
    Case("cross_of_x", _apply(lambda m, x: torch.linalg.cross(x[:, :3], x[:, 3:6]))),
    Case("lerp_of_x", _apply(lambda m, x: torch.lerp(x, m.w.expand_as(x), torch.sigmoid(x @ m.A)))),
    Case(
        "addcdiv_of_x",
        _apply(lambda m, x: torch.addcdiv(m.w, x, x.square() + 1)),
        is_paired=False,
    ),
    Case("factor_without_rule", _apply(lambda m, x: x * (x.square() + 1).log())),
    Case("power_below_zero", _apply(lambda m, x: x * (x.square() + 1) ** -0.5)),
    Case("log_softmax_gate", _apply(lambda m, x: x * torch.log_softmax(x, 1).exp())),
    Case("std_gate", _apply(lambda m, x: x * x.std(1, keepdim=True))),
    Case("geglu", _apply(lambda m, x: (x @ m.A) * F.gelu(x @ m.A.T))),
    Case("swiglu", _apply(lambda m, x: (F.silu(x @ m.A) * (x @ m.A.T)) @ m.A)),
    Case("highway", _apply(lambda m, x: _highway(torch.sigmoid(x @ m.A.T), F.relu(x @ m.A), x))),
    Case("film", _apply(lambda m, x: F.relu(x @ m.A) * (1 + torch.tanh(x @ m.A.T)) + m.w)),
    Case("experts", _apply(_experts)),
    Case("global_response_norm", _apply(_global_response), IMAGE),
    Case("channel_attention", _apply(_channel_attention), IMAGE),
    Case("kernel_of_x", _apply(_kernel_of_x), IMAGE),
    Case(
        "einsum_of_x", _apply(lambda m, x: torch.einsum("nik,njk,nil->njl", x, x @ m.A, x)), (3, 8)
    ),
    Case("baddbmm_of_x", _apply(lambda m, x: torch.baddbmm(x, x @ x.mT, x, beta=0.5)), (3, 8)),
    Case("squared_distance", _apply(lambda m, x: (x[:, None] - m.A).square().sum(-1))),
    Case("pairwise_distance", _apply(lambda m, x: F.pairwise_distance(x, m.w[None])[:, None])),
    Case("cosine_of_x", _apply(lambda m, x: F.cosine_similarity(x[:, :4], x[:, 4:])[:, None])),
    Case(
        "other_norms",
        _apply(lambda m, x: x.norm(p=1, dim=1, keepdim=True) + x.norm(p=3, dim=1, keepdim=True)),
        is_paired=False,
    ),
    Case("lp_pool1d", lambda: nn.LPPool1d(2, 2), (3, 6)),
    Case("lp_pool3d", lambda: nn.LPPool3d(2, 2), (2, 4, 4, 4)),
    Case("instance_norm3d", lambda: nn.InstanceNorm3d(2), (2, 3, 3, 3)),
    Case("group_norm_rows", lambda: nn.GroupNorm(2, 8)),
    Case("layer_norm_no_bias", lambda: nn.LayerNorm(8, bias=False)),
    *(
        Case(f"fused_rms_norm{name}", _apply(function))
        for name, function in FUSED_RMS_NORMS.items()
        if hasattr(torch.ops.aten, "_fused_rms_norm")
    ),
    Case("rms_norm_rows", lambda: nn.RMSNorm((3, 8), eps=0.1), (3, 8)),
    Case("masked_attention", _apply(_masked_attention), (3, 8)),
    Case("linear_attention", _apply(_linear_attention), (3, 8)),
    Case("sdpa_causal", _apply(lambda m, x: _sdpa(x @ m.A, x, is_causal=True)), (3, 8)),
    Case("sdpa_mask", _apply(lambda m, x: _sdpa(x @ m.A, x, attn_mask=m.A[:3, :3])), (3, 8)),
    Case("sdpa_mask_of_x", _apply(lambda m, x: _sdpa(x, x, attn_mask=(x @ x.mT)[:, None])), (3, 8)),
    Case("multihead_causal", lambda: Attention(is_causal=True), (3, 8)),
    Case("transformer_decoder", Decoder, (3, 8)),
    Case("lstm_deep", lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), (3, 8)),
    Case("recurrent_cells", Cells),
    Case("ensemble", Ensemble),
    Case("rnn", lambda: Recurrent(nn.RNN), (3, 8)),
    Case("lstm", lambda: Recurrent(nn.LSTM), (3, 8)),
    Case("gru", lambda: Recurrent(nn.GRU), (3, 8)),
]

PIECEWISE = [Case(c.name, c.build, c.shape, True, c.is_paired) for c in PIECEWISE]
CASES = PIECEWISE + SMOOTH


def ids(case):
    return case.name
