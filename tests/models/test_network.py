"""The network against hand-computed values, torch's own module and Table 2's sizes."""

import math

import pytest
import torch
from torch import nn

from atsdp_utils.foundation.config import TABLE2, Architecture
from atsdp_utils.models.network import (
    ATSDPNet,
    AttentionBlock,
    Decoder,
    DenoisingAutoencoder,
    Dropout,
    Encoder,
    MultiHeadAttention,
    Predictor,
    corrupt,
    keep_mask,
)

SMALL = Architecture(bottleneck=8, encoder=(12, 10), predictor=(6,), dropout=0.0, heads=2, tokens=4, token_dim=2)


def test_corrupt_masks_at_the_given_rate_and_keeps_the_rest():
    x = torch.full((400, 500), 3.0)
    masked = corrupt(x, 0.2, torch.Generator().manual_seed(1))
    assert set(masked.unique().tolist()) == {0.0, 3.0}
    # 200,000 Bernoulli draws: five standard errors are 0.0045
    assert (masked == 0).float().mean().item() == pytest.approx(0.2, abs=0.0045)
    assert torch.equal(corrupt(x, 0.0), x)


def test_dropout_keeps_the_mean_and_does_nothing_in_evaluation():
    torch.manual_seed(0)
    layer, x = Dropout(0.3), torch.ones(501, 333)
    dropped = layer(x)
    assert (dropped == 0).double().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped.max().item() == pytest.approx(1 / 0.7) and dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("p", [0.0, 1 / 65536, 0.5, 65535 / 65536])
def test_masks_are_right_at_the_ends(p):
    kept = keep_mask(torch.empty(2**21), p, torch.Generator().manual_seed(1)).double().mean().item()
    assert kept == 1 if p == 0 else kept == pytest.approx(1 - p, abs=2e-3) and 0 < kept < 1


def test_a_probability_just_below_one_keeps_hardly_anything():
    x = torch.ones(2**16)
    assert corrupt(x, 1 - 1e-9, torch.Generator().manual_seed(1)).sum() < 20


def test_corrupt_refuses_a_probability_of_one():
    with pytest.raises(ValueError, match=r"p: got 1, expected a masking probability in \[0, 1\)"):
        corrupt(torch.ones(2, 2), 1)


def test_attention_against_hand_computed_values():
    """Two tokens, one head of width 1, identity projections: weights are softmaxes of products."""
    attention = MultiHeadAttention(1, 1)
    for layer in (attention.w_q, attention.w_k, attention.w_v, attention.w_o):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    a, b = 1.0, 2.0
    x = torch.tensor([[[a], [b]]])
    first = math.exp(a * b) / (math.exp(a * a) + math.exp(a * b))  # weight of token 2 for query 1
    second = math.exp(b * b) / (math.exp(b * a) + math.exp(b * b))
    weights = attention.weights(x)[0, 0]
    assert weights[0, 1].item() == pytest.approx(first, abs=1e-6)
    assert weights[1, 1].item() == pytest.approx(second, abs=1e-6)
    expected = [a * (1 - first) + b * first, a * (1 - second) + b * second]
    assert attention(x).flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_attention_agrees_with_torch(heads):
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(16, heads), nn.MultiheadAttention(16, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.w_q.weight, ours.w_k.weight, ours.w_v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.w_q.bias, ours.w_k.bias, ours.w_v.bias]))
        theirs.out_proj.weight.copy_(ours.w_o.weight)
        theirs.out_proj.bias.copy_(ours.w_o.bias)
    x = torch.randn(3, 5, 16)
    out, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), out)
    torch.testing.assert_close(ours.weights(x), weights)


def test_heads_must_divide_the_token_width():
    with pytest.raises(ValueError, match="heads: got 3, expected a divisor of the token width 8"):
        MultiHeadAttention(8, 3)


def test_one_token_attends_to_itself_and_queries_and_keys_learn_nothing():
    """Ambiguity 9: with one token softmax over one key is 1, so Q and K have no gradient."""
    torch.manual_seed(0)
    block = AttentionBlock(Architecture(bottleneck=8, heads=2, attention="single", tokens=4, token_dim=2))
    z = torch.randn(5, 8)
    assert torch.equal(block.weights(z), torch.ones(5, 2, 1, 1))
    block(z).square().sum().backward()
    for layer in (block.mix.w_q, block.mix.w_k):
        assert layer.weight.grad.abs().max() < 1e-12
    assert block.mix.w_v.weight.grad.abs().max() > 1e-4


def test_batch_reading_makes_a_prediction_depend_on_its_batch_mates():
    torch.manual_seed(0)
    z = torch.randn(6, 8)

    def first_cell(reading):
        torch.manual_seed(1)
        block = AttentionBlock(Architecture(bottleneck=8, heads=2, attention=reading, tokens=4, token_dim=2)).eval()
        return block(z)[0], block(z[:1])[0]

    together, alone = first_cell("batch")
    assert (together - alone).abs().max() > 1e-3
    together, alone = first_cell("tokens")
    torch.testing.assert_close(together, alone)


def test_token_reading_uses_its_queries():
    torch.manual_seed(0)
    block = AttentionBlock(SMALL)
    block(torch.randn(5, 8)).square().sum().backward()
    assert block.mix.w_q.weight.grad.abs().max() > 1e-8


def test_unknown_reading_is_named():
    with pytest.raises(ValueError, match="attention: got 'rows', expected one of tokens, single, batch, linear"):
        AttentionBlock(Architecture(attention="rows"))


@pytest.mark.parametrize("paper", TABLE2)
def test_parameter_counts_of_table_2(paper):
    """Weights, biases and batch norm counted by hand from the sizes of Table 2, at 1,000 genes."""
    arch, genes = TABLE2[paper], 1000
    h1, h2 = arch.encoder
    encoder = genes * h1 + h1 + 2 * h1 + h1 * h2 + h2 + 2 * h2 + h2 * arch.bottleneck + arch.bottleneck
    decoder = arch.bottleneck * h2 + h2 + 2 * h2 + h2 * h1 + h1 + 2 * h1 + h1 * genes + genes
    width, d = arch.tokens * arch.token_dim, arch.token_dim
    attention = 4 * (d * d + d) + arch.tokens * d + 2 * d
    if arch.bottleneck != width:
        attention += arch.bottleneck * width + width
    p1, p2 = arch.predictor
    predictor = attention + width * p1 + p1 + p1 * p2 + p2 + p2 * 2 + 2

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(Encoder(genes, arch)) == encoder
    assert count(Decoder(genes, arch)) == decoder
    assert count(DenoisingAutoencoder(genes, arch)) == encoder + decoder
    assert count(Predictor(arch)) == predictor


def test_no_heads_means_no_attention():
    predictor = Predictor(Architecture(bottleneck=8, predictor=(6,), heads=0))
    assert predictor.attention is None
    assert predictor(torch.randn(3, 8)).shape == (3, 2)


def test_target_encoder_starts_as_a_copy_and_is_its_own():
    torch.manual_seed(0)
    net = ATSDPNet(20, SMALL).eval()
    x = torch.randn(7, 20)
    torch.testing.assert_close(net(x, "source"), net(x, "target"))
    with torch.no_grad():
        net.target[0].weight.add_(1.0)
    assert not torch.allclose(net(x, "source"), net(x, "target"))
    with pytest.raises(ValueError, match="domain: got 'bulk', expected 'source' or 'target'"):
        net(x, "bulk")
