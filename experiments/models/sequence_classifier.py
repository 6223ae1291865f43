"""Text classifiers of Hugging Face, with the weights that they come with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from experiments.console import say
from experiments.contract import Dataset, ModelUnderAudit
from experiments.networks.classifiers import head_of
from experiments.networks.pretrained import identity_of_network, load_pretrained, load_tokenizer
from experiments.networks.tokens import Tokens
from methods.contract import InvalidInput, Unsupported

GENERIC = re.compile(r"label_\d+", re.IGNORECASE)  # what transformers calls a class that nobody named


@dataclass(frozen=True)
class SequenceClassifier:
    """A fine-tuned transformer that classifies texts or pairs of texts, by name or from a folder.

    Parameters
    ----------
    name : str
        Of a Hugging Face model, or a folder with one in the `transformers` layout.
    max_length : int
        Tokens after which a text is cut; fewer where the model takes no more.
    label_order : list of int, optional
        For each class of the data set, in order, the number of the model's class. Left out, classes are matched by
        their names; where those say nothing, they are taken in the order in which they are.

    Notes
    -----
    The embedding is what the last linear map sees, of 768 numbers for models of the usual size. In DistilBERT that is
    the first token's hidden state after one more linear map and a ReLU: "the final 768-dimensional hidden layer" of the
    Spotlight paper, section 4.3, in our reading. The hidden state itself is `embedding=layer
    embedding.layer=pre_classifier.input`. In BERT it is the pooler's output; the influence embeddings of the InfEmbed
    paper, section 4.3, are `embedding.layers=[bert.pooler.dense,classifier]`.
    """

    version: ClassVar[int] = 1

    name: str = "distilbert-base-uncased-finetuned-sst-2-english"
    max_length: int = field(default=512, metadata={"min": 3})
    label_order: tuple[int, ...] | None = field(default=None, metadata={"min": 0})

    def identity(self) -> dict[str, str]:
        """Not where the model lies defines a run, but what it is."""
        return {"name": identity_of_network(self.name)}

    def build(self, dataset: Dataset) -> ModelUnderAudit:
        dataset.require("sequence_classifier", "text", "text_pair")
        network: Any = load_pretrained("AutoModelForSequenceClassification", self.name)
        names = [network.config.id2label[index] for index in range(network.config.num_labels)]
        order = order_of_classes(names, dataset.class_names, self.label_order)
        return classifier(network, self.name, self.max_length, order)


def classifier(network: nn.Module, name: str, max_length: int, order: Sequence[int]) -> ModelUnderAudit:
    """The network as a model under audit, its classes in this order."""
    layer = head_of(network)[0]
    if layer == "score":  # transformers' name for a head that is applied to every token
        raise Unsupported(f"model.name {name!r} only predicts next words: expected an encoder, such as BERT")
    tokens = Tokens(load_tokenizer(name), network, max_length)
    logits = partial(_logits, tokens, list(order))
    return ModelUnderAudit(network, tokens, embedding_layer=f"{layer}.input", to_logits=logits)


def _logits(tokens: Tokens, order: list[int], network: nn.Module, batch: Tensor) -> Tensor:
    return network(**tokens.arguments(batch)).logits[:, order]


def order_of_classes(theirs: Sequence[str], ours: Sequence[str], wanted: Sequence[int] | None) -> list[int]:
    """For each class of the data set, the number of the model's.

    Parameters
    ----------
    theirs, ours : sequence of str
        The names of the classes: the model's, the data set's.
    wanted : sequence of int, optional
        The order that the user gave.

    Raises
    ------
    InvalidInput
        Where there are more of one than of the other, or the order is not one of all classes.

    Examples
    --------
    >>> order_of_classes(["NEGATIVE", "POSITIVE"], ["positive", "negative"], None)
    [1, 0]
    """
    if len(theirs) != len(ours):
        raise InvalidInput(
            f"the model has {len(theirs)} classes ({_some(theirs)}), the data set has {len(ours)} ({_some(ours)}): "
            "choose another model, or train one (model=minilm)"
        )
    if wanted is not None:
        return _checked_order(wanted, len(ours))
    plain = [name.strip().casefold() for name in theirs]
    asked = [name.strip().casefold() for name in ours]
    if sorted(plain) == sorted(asked) and len(set(plain)) == len(plain):
        return [plain.index(name) for name in asked]
    if not all(GENERIC.fullmatch(name) for name in plain):
        say(f"model: its classes {_some(theirs)} are taken for {_some(ours)}; set model.label_order for another order")
    return list(range(len(ours)))


def _checked_order(wanted: Sequence[int], n_classes: int) -> list[int]:
    if sorted(wanted) != list(range(n_classes)):
        raise InvalidInput(f"model.label_order is {list(wanted)}, expected each of 0 to {n_classes - 1} once")
    return list(wanted)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
