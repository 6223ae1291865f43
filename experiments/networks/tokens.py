"""From a text, or two, to the numbers that a transformer takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from methods.contract import InvalidInput, Unsupported

# a network's argument -> what an encoding calls it: the rows of an example
ROWS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
MASK = 1
MANY = 2**31


class Tokens:
    """Texts as tensors of one shape, and a batch of them as a network's arguments.

    Threads may share it: the tokenizer's settings are made once, here, and never changed. Texts are tokenised one by
    one, for which the tokenizer starts no threads of its own.

    Parameters
    ----------
    tokenizer : a fast tokenizer of transformers
        Nobody else may use it.
    network : nn.Module
    max_length : int
        Tokens of an example, those at its ends included; fewer where the network cannot take as many.
    cut : bool
        Whether a longer text is cut off; else it is left to the caller.

    Attributes
    ----------
    names : tuple of str
        The arguments that the network takes.
    max_length : int
    """

    def __init__(self, tokenizer: Any, network: nn.Module, max_length: int, cut: bool = True) -> None:
        _check(tokenizer, network)
        taken = inspect.signature(network.forward).parameters
        self.names = tuple(name for name in ROWS if name in taken)
        self.max_length = min(max_length, tokenizer.model_max_length, _longest_input(network))
        self._backend = tokenizer.backend_tokenizer
        if cut:
            self._backend.enable_truncation(self.max_length)
        else:
            self._backend.no_truncation()
        self._backend.enable_padding(
            length=self.max_length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, direction="right"
        )

    def __call__(self, example: str | tuple[str, str]) -> Tensor:
        """Tensor, shape (3, max_length), int64: ids, attention mask, token types."""
        return self.rows(self.encode(example))

    def encode(self, example: str | tuple[str, str]) -> Any:
        """The tokens with their places in the text, padded to max_length: an `Encoding` of tokenizers."""
        return self._backend.encode(*example) if isinstance(example, tuple) else self._backend.encode(example)

    def rows(self, encoding: Any) -> Tensor:
        """Tensor, shape (3, length of the encoding), int64."""
        return torch.tensor([getattr(encoding, row) for row in ROWS.values()])

    def arguments(self, batch: Tensor) -> dict[str, Tensor]:
        """Tensors of shape (b, longest): what all examples of the batch are padded with is left out.

        Parameters
        ----------
        batch : Tensor, shape (b, 3 or more, max_length)
        """
        longest = max(1, int(batch[:, MASK].sum(dim=1).max()))
        return {name: batch[:, row, :longest] for row, name in enumerate(ROWS) if name in self.names}


def _check(tokenizer: Any, network: Any) -> None:
    name, n_known = type(tokenizer).__name__, network.get_input_embeddings().num_embeddings
    if not tokenizer.is_fast:
        raise Unsupported(f"{name} has no fast version, expected a tokenizer that tokenizer.json describes")
    if tokenizer.pad_token_id is None:
        raise InvalidInput(f"{name} has no padding token, which batches need: set pad_token in tokenizer_config.json")
    n_words = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    # without a vocabulary, transformers makes a tokenizer to which each word is unknown
    if n_words <= len(tokenizer.all_special_ids) or n_words > n_known:
        raise InvalidInput(
            f"{name} knows {n_words:,} tokens, the network {n_known:,}: the model's vocabulary is missing, or another's"
        )


def _longest_input(network: nn.Module) -> int:
    """The number of positions that the network knows; some count them from the padding token's number on."""
    tables = [module for name, module in network.named_modules() if name.endswith("position_embeddings")]
    return min((_n_positions(table) for table in tables if isinstance(table, nn.Embedding)), default=MANY)


def _n_positions(table: nn.Embedding) -> int:
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
