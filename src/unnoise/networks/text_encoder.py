"""The transformer over tokens that Latent Diffusion trains with its U-Net: BERT's blocks, no mask of its own.

Rombach et al. 2022 (arXiv 2112.10752), appendix E.2.1. Parameter names and shapes are those of the published
files without their `cond_stage_model.`: those of the package x-transformers.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unnoise.networks.attention import attend
from unnoise.networks.conditioner_settings import TextEncoderSettings
from unnoise.networks.layers import LayerNorm, Linear


class SelfAttention(nn.Module):
    """project(softmax(q k^T / sqrt(c)) v) over the tokens, c channels a head."""

    def __init__(self, settings: TextEncoderSettings) -> None:
        super().__init__()
        inner = settings.heads * settings.head_channels
        self.heads = settings.heads
        self.to_q = Linear(settings.width, inner, bias=False)
        self.to_k = Linear(settings.width, inner, bias=False)
        self.to_v = Linear(settings.width, inner, bias=False)
        self.to_out = Linear(inner, settings.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, L, width), mask: (B, L) bool, True where a token counts -> the shape of x."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Token by token: four times as wide through a GELU, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The identity stands where the published files have a dropout, which was never on.
        wide = nn.Sequential(Linear(width, 4 * width), nn.GELU())
        self.net = nn.Sequential(wide, nn.Identity(), Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, width) -> the same shape; every token alone, whatever the mask says."""
        return self.net(x)


class Transformer(nn.Module):
    """Embeddings of tokens and places, then x + attention and x + feed-forward in turn, then a norm."""

    def __init__(self, settings: TextEncoderSettings) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "settings.check() has seen to it"
        width = settings.width
        self.checkpoint = settings.checkpoint
        self.token_emb = nn.Embedding(settings.vocabulary, width)
        self.pos_emb = nn.ModuleDict({"emb": nn.Embedding(settings.length, width)})
        layers = nn.ModuleList()
        for _ in range(settings.depth):
            layers.append(nn.ModuleList([LayerNorm(width), SelfAttention(settings)]))
            layers.append(nn.ModuleList([LayerNorm(width), FeedForward(width)]))
        self.attn_layers = nn.ModuleDict({"layers": layers})
        self.norm = LayerNorm(width)
        # In the published files, but no diffusion model reads it, so that it is never trained. It is drawn
        # without `logits` too: the weights after it are then the same.
        unread = Linear(width, settings.vocabulary).requires_grad_(False)
        self.to_logits = unread if settings.logits else None
        for embedding in (self.token_emb, self.pos_emb["emb"]):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
        """tokens: (B, L) int64 -> (B, L, width) of this type."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = (self.token_emb(tokens) + self.pos_emb["emb"](places)).to(dtype)
        for norm, layer in self.attn_layers["layers"]:
            if self.checkpoint and torch.is_grad_enabled():
                x = x + checkpoint(_added, norm, layer, x, mask, use_reentrant=False)
            else:
                x = x + _added(norm, layer, x, mask)
        return self.norm(x)


def _added(norm: nn.Module, layer: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """What a layer adds to x."""
    added: Tensor = layer(norm(x), mask)
    return added


class TextEncoder(nn.Module):
    """context = TextEncoder(tokens)."""

    def __init__(self, settings: TextEncoderSettings) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        self.compute_dtype: torch.dtype | None = None
        """Type of the activations; None takes that of the weights."""
        self.transformer = Transformer(settings)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens: (B, L) int64, L at most `length` -> (B, L, width) of the type of the weights.

        mask: (B, L) bool, True where a token counts. The published models have none: padding is read as well.
        """
        self._check(tokens)
        dtype = self.transformer.token_emb.weight.dtype
        return self.transformer(tokens, mask, self.compute_dtype or dtype).to(dtype)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, L, vocabulary): of the layer that the published files carry and nothing of theirs reads."""
        if self.transformer.to_logits is None:
            raise ValueError("this encoder was built without its layer of logits; build it with logits=True")
        return self.transformer.to_logits(self(tokens))

    def _check(self, tokens: Tensor) -> None:
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= self.settings.length:
            raise ValueError(
                f"tokens of {tuple(tokens.shape)} given to a text encoder of length={self.settings.length}; "
                f"give (B, 1..{self.settings.length}), cut off where they are longer"
            )
