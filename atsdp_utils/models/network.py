"""The network: denoising autoencoder, multi-head attention over tokens, predictor (section 2.4, equations 1-11).

Symbols are the paper's: E_g and E_t are the encoders of the source (bulk) and target (single-cell) domains, D the
decoder, P the predictor with attention inside.
"""

import copy
import math

import torch
from torch import Tensor, nn

from atsdp_utils.foundation.config import Architecture
from atsdp_utils.foundation.runtime import bf16
from atsdp_utils.models.products import Linear

#: Readings of the attention (ambiguity 9).
READINGS = ("tokens", "single", "batch", "linear")


def keep_mask(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Random booleans of the shape of `x`, each true with probability 1 - p, to within 1/65536.

    A value takes 16 random bits: on a processor a third of the time of torch's own draw from a Bernoulli distribution.
    """
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[: x.numel()].view(x.shape) >= min(round(p * 2**16), 2**16 - 1) - 2**15


class Dropout(nn.Dropout):
    """torch's dropout with the mask of :func:`keep_mask`; kept values are divided by 1 - p."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (keep_mask(x, self.p) / (1 - self.p)) if self.training and self.p else x


def corrupt(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Noise injection G of equation 1: a value is set to zero with probability p (F_g in [0, 1)), else kept.

    Parameters
    ----------
    x : Tensor
        Values of any shape. Those that are kept are not rescaled.
    p : float
        Probability with which each value, by itself, is set to zero.
    generator : Generator, optional
        What draws; by default torch's global generator.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1).
    """
    if not 0 <= p < 1:
        raise ValueError(f"p: got {p}, expected a masking probability in [0, 1)")
    return x * keep_mask(x, p, generator) if p else x


def _hidden(sizes: tuple[int, ...], dropout: float, *, norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers.append(Linear(n_in, n_out))
        if norm:
            layers.append(nn.BatchNorm1d(n_out))
        layers += [nn.ReLU(), Dropout(dropout)]
    return layers


class _Products(nn.Sequential):
    """Layers whose matrix products may run in bfloat16 (``ATSDP_BF16=1``); values in and out are float32."""

    def forward(self, x: Tensor) -> Tensor:
        if not bf16():
            return super().forward(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().forward(x).float()


class Encoder(_Products):
    """E: Linear-BatchNorm-ReLU-Dropout per hidden size, then a linear bottleneck; (n, genes) to (n, bottleneck)."""

    def __init__(self, n_genes: int, arch: Architecture) -> None:
        hidden = _hidden((n_genes, *arch.encoder), arch.dropout, norm=True)
        super().__init__(*hidden, Linear(arch.encoder[-1], arch.bottleneck))
        self.n_genes = n_genes


class Decoder(_Products):
    """D: mirror image of the encoder; (n, bottleneck) to (n, genes)."""

    def __init__(self, n_genes: int, arch: Architecture) -> None:
        mirrored = arch.encoder[::-1]
        hidden = _hidden((arch.bottleneck, *mirrored), arch.dropout, norm=True)
        super().__init__(*hidden, Linear(mirrored[-1], n_genes))


class DenoisingAutoencoder(nn.Module):
    """Equations 1-3 (and 12-14 for single cells): X'' = D(E(X')), trained against the clean X."""

    def __init__(self, n_genes: int, arch: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(n_genes, arch)
        self.decoder = Decoder(n_genes, arch)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class MultiHeadAttention(nn.Module):
    """Equations 4-9: h scaled dot-product heads of width d_k = dim / h, within each sequence of tokens (n, T, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads: got {heads}, expected a divisor of the token width {dim}")
        self.heads = heads
        self.w_q, self.w_k, self.w_v, self.w_o = (Linear(dim, dim) for _ in range(4))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def weights(self, x: Tensor) -> Tensor:
        """Softmax(Q K^T / sqrt(d_k)) of equation 7, (n, heads, tokens, tokens); each row sums to 1."""
        q, k = self._by_head(self.w_q(x)), self._by_head(self.w_k(x))
        return torch.softmax(torch.einsum("nthd,nshd->nhts", q, k) / math.sqrt(q.shape[-1]), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Equation 8, (n, tokens, dim): the outputs of all heads (equation 9), side by side, through W^O.

        Parameters
        ----------
        x : (n, tokens, dim)
            n sequences; a token attends to the tokens of its own sequence only.
        """
        heads = torch.einsum("nhts,nshd->nthd", self.weights(x), self._by_head(self.w_v(x)))
        return self.w_o(heads.reshape(x.shape))


class AttentionBlock(nn.Module):
    """Attention on the embedding, with residual and layer norm, under one of the readings of ambiguity 9.

    ``tokens`` splits the embedding into T tokens with learned token embeddings. ``single`` (one token, weights
    identically 1) and ``batch`` (the cells of a batch as one sequence) exist to demonstrate what those readings do;
    ``linear`` is the width-matched control without attention.
    """

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        if arch.attention not in READINGS:
            raise ValueError(f"attention: got {arch.attention!r}, expected one of {', '.join(READINGS)}")
        self.reading, width, tokens = arch.attention, arch.tokens * arch.token_dim, arch.attention == "tokens"
        self.shape = (arch.tokens, arch.token_dim) if tokens else (1, width)
        narrow, dim = arch.bottleneck != width, self.shape[1]
        self.project = Linear(arch.bottleneck, width) if narrow else nn.Identity()
        self.position = nn.Parameter(0.02 * torch.randn(self.shape)) if tokens else None
        self.mix = Linear(dim, dim) if self.reading == "linear" else MultiHeadAttention(dim, arch.heads)
        self.norm = nn.LayerNorm(dim)

    def tokens(self, z: Tensor) -> Tensor:
        """Arrange (n, bottleneck) embeddings as the sequence that is attended: (n, T, d), or (1, n, width)."""
        x = self.project(z)
        if self.reading == "batch":
            return x.unsqueeze(0)
        x = x.unflatten(1, self.shape)
        return x if self.position is None else x + self.position

    def forward(self, z: Tensor) -> Tensor:
        x = self.tokens(z)
        return self.norm(x + self.mix(x)).reshape(len(z), -1)

    def weights(self, z: Tensor) -> Tensor:
        """Attention weights (n, heads, T, T) of embeddings; (1, heads, n, n) under the ``batch`` reading."""
        return self.mix.weights(self.tokens(z))


class Predictor(nn.Module):
    """P: attention (none if ``heads=0``), and a perceptron with logits (n, 2), resistant first (equations 10-11)."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.attention = AttentionBlock(arch) if arch.heads else None
        width = arch.tokens * arch.token_dim if arch.heads else arch.bottleneck
        self.mlp = nn.Sequential(
            *_hidden((width, *arch.predictor), arch.dropout, norm=False), Linear(arch.predictor[-1], 2)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.mlp(z if self.attention is None else self.attention(z))


class ATSDPNet(nn.Module):
    """E_g, E_t and P of equation 16, and the decoder D of the bulk autoencoder, with which stage 2 goes on.

    E_t starts as a copy of E_g, or is assigned where it has a start of its own.
    """

    def __init__(self, n_genes: int, arch: Architecture, autoencoder: DenoisingAutoencoder | None = None) -> None:
        super().__init__()
        self.arch = arch
        autoencoder = autoencoder or DenoisingAutoencoder(n_genes, arch)
        self.source, self.decoder = autoencoder.encoder, autoencoder.decoder
        self.target = copy.deepcopy(self.source)
        self.predictor = Predictor(arch)

    def embed(self, x: Tensor, domain: str = "target") -> Tensor:
        """Embeddings (n, bottleneck) of rows by the encoder of their domain.

        Parameters
        ----------
        x : (n, genes)
            Standardised expression on the genes of that encoder.
        domain : str
            ``target`` for E_t (cells) or ``source`` for E_g (lines).

        Raises
        ------
        ValueError
            If `domain` is neither of the two.
        """
        encoders = {"source": self.source, "target": self.target}
        if domain not in encoders:
            raise ValueError(f"domain: got {domain!r}, expected 'source' or 'target'")
        return encoders[domain](x)

    def forward(self, x: Tensor, domain: str = "target") -> Tensor:
        """Logits (n, 2), resistant first, of rows that are given as to :meth:`embed`."""
        return self.predictor(self.embed(x, domain))


def n_parameters(*modules: nn.Module) -> int:
    """Trainable parameters of some parts of a network."""
    return sum(p.numel() for module in modules for p in module.parameters())
