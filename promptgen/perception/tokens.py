"""The tokens of a text, by open_clip's own tokeniser, with a vocabulary that can be kept small."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from promptgen.errors import ConfigError
from promptgen.torchvision_ops import import_open_clip


class Tokens:
    """Turns texts into token numbers with open_clip's own tokeniser.

    Args:
        context_length: tokens of a text at the most.
        words: words to restrict the vocabulary to; their tokens are then numbered anew. Empty means no restriction.

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
        # Sorted: padding (0) stays the first and the end of a text the last; CLIP reads a text off its highest token.
        self.kept = torch.tensor(sorted(kept))
        self.size = len(kept)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return token numbers, (B, context_length) int64, padded with 0.

        Raises:
            ConfigError: a text has too many tokens, or a word that is not in the vocabulary.
        """
        for text in texts:
            self._check(text)
        ids: Tensor = self.tokeniser(list(texts))
        return torch.searchsorted(self.kept, ids)

    def _check(self, text: str) -> None:
        ids = self.tokeniser.encode(text)
        most = self.tokeniser.context_length - 2
        if len(ids) > most:
            raise ConfigError(f"the text {text!r} has {len(ids)} tokens, this CLIP model reads {most}; shorten it")
        unread = [self.tokeniser.decode([token]).strip() for token in ids if not (self.kept == token).any()]
        if unread:
            words = ", ".join(self.words)
            raise ConfigError(f"the text {text!r} has {', '.join(unread)}, this CLIP model only knows: {words}")
