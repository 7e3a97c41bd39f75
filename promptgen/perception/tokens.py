"""Tokenisation of texts by open_clip's own tokeniser, optionally with a restricted vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from promptgen.errors import ConfigError
from promptgen.networks.torchvision_ops import import_open_clip


class Tokens:
    """Maps texts to token ids with open_clip's own tokeniser.

    Args:
        context_length: largest number of tokens of a text, start and end tokens included.
        words: restricted vocabulary, whose tokens get new, consecutive ids; empty means the full vocabulary.

    Attributes:
        size: number of different tokens.
    """

    def __init__(self, context_length: int, words: Sequence[str] = ()) -> None:
        tokeniser = import_open_clip().SimpleTokenizer(context_length=context_length)
        self.tokeniser = tokeniser
        self.words = tuple(words)
        kept = set(range(tokeniser.vocab_size))
        if words:
            kept = {0, tokeniser.sot_token_id, tokeniser.eot_token_id}.union(*map(tokeniser.encode, words))
        # Sorting keeps padding (0) first and the end token last: CLIP takes a text's feature at its highest token id.
        self.kept = torch.tensor(sorted(kept))
        self.size = len(kept)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token ids, (B, context_length) int64, padded with 0.

        Raises:
            ConfigError: a text has too many tokens, or a word that is not in the vocabulary.
        """
        for text in texts:
            self._check(text)
        ids: Tensor = self.tokeniser(list(texts))
        return torch.searchsorted(self.kept, ids)

    def _check(self, text: str) -> None:
        ids = self.tokeniser.encode(text)
        limit = self.tokeniser.context_length - 2
        if len(ids) > limit:
            raise ConfigError(f"the text {text!r} has {len(ids)} tokens, expected at most {limit}; shorten it")
        unknown = [self.tokeniser.decode([token]).strip() for token in ids if not (self.kept == token).any()]
        if unknown:
            raise ConfigError(
                f"the text {text!r} has {', '.join(unknown)}; this CLIP model only reads: {', '.join(self.words)}"
            )
