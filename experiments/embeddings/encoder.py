"""An encoder beside the model under audit: any Hugging Face text or image encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from experiments.cache import Entry
from experiments.compute import device_of
from experiments.contract import Dataset, ModelUnderAudit, Split
from experiments.embedding import Embedded
from experiments.inference import Predictions, evaluated_splits
from experiments.layers import Layer
from experiments.networks.checkpoints import identity_of
from experiments.networks.pretrained import located
from experiments.settings import Settings
from methods.contract import InvalidInput, Unsupported
from methods.progress import progress

Encode = Callable[[Sequence[Any]], Tensor]  # examples -> (b, d)


@dataclass(frozen=True)
class Encoder:
    """The embeddings of a network trained elsewhere: MiniLM or BERT for texts, ViT or CLIP's image tower for images.

    Parameters
    ----------
    name : str
        Of a Hugging Face model, or a folder with one in the `transformers` layout.
    pool : {"mean", "first", "pooler"}
        What becomes of the last hidden states: their mean over the tokens that are no padding, the first token's, or
        the encoder's own pooled output. CLIP gives its image embedding, whatever this says.
    max_length : int
        Tokens after which a text is cut.
    """

    version: ClassVar[int] = 1

    name: str
    pool: Literal["mean", "first", "pooler"] = "mean"
    max_length: int = field(default=128, metadata={"min": 1})

    def identity(self) -> dict[str, str]:
        """Not where the encoder lies defines a run, but what it is."""
        return {"name": identity_of(located(self.name), "embedding.name", "an encoder")}

    def hidden_layers(self, model: ModelUnderAudit) -> tuple[Layer, ...]:
        return ()

    def splits(self) -> tuple[str, ...]:
        return ()

    def embed(
        self, settings: Settings, dataset: Dataset, model: ModelUnderAudit, predictions: Mapping[str, Predictions]
    ) -> dict[str, Embedded]:
        return {name: Embedded(self._split(settings, dataset, name)) for name in evaluated_splits(settings)}

    def _split(self, settings: Settings, dataset: Dataset, name: str) -> Tensor:
        depends = {
            "encoder": identity_of(located(self.name), "embedding.name", "an encoder"),
            "pool": self.pool,
            "max_length": self.max_length,
            "data": dataset.fingerprint,
            "split": name,
            "version": self.version,
        }

        def fill(folder: Path) -> None:
            np.save(folder / "values.npy", self._encoded(settings, dataset, dataset.split(name)), allow_pickle=False)

        return torch.from_numpy(Entry(settings.paths.cache, "encoder", depends).get(fill)["values"])

    @torch.inference_mode()
    def _encoded(self, settings: Settings, dataset: Dataset, split: Split) -> np.ndarray:
        encode = self._loaded(dataset, device_of(settings.compute))
        size = settings.compute.batch_size
        starts = range(0, split.n_examples, size)
        batches = (
            encode([split.examples[row] for row in range(start, min(start + size, split.n_examples))])
            for start in progress(starts, "encode", len(starts))
        )
        return torch.cat([batch.float().cpu() for batch in batches]).numpy()

    def _loaded(self, dataset: Dataset, device: torch.device) -> Encode:
        from transformers import AutoModel

        try:
            network = AutoModel.from_pretrained(located(self.name), dtype=torch.float32).to(device).eval()
            if dataset.modality in ("text", "text_pair"):
                return self._text(network, device)
            if dataset.modality == "image":
                return self._image(network, device)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInput(
                f"embedding.name {self.name!r} cannot be loaded, expected a Hugging Face encoder that is in the local "
                f"cache, or a folder with one: {reason}"
            ) from None
        raise Unsupported(f"encoders take images and texts; {dataset.name} has modality {dataset.modality}")

    def _text(self, network: Any, device: torch.device) -> Encode:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(located(self.name))
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}

        def encode(texts: Sequence[Any]) -> Tensor:
            pairs = zip(*texts, strict=True) if isinstance(texts[0], tuple) else [texts]
            tokens = tokenizer(*(list(part) for part in pairs), **options).to(device)
            return self._pooled(network(**tokens), tokens["attention_mask"])

        return encode

    def _image(self, network: Any, device: torch.device) -> Encode:
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(located(self.name))

        def encode(images: Sequence[Any]) -> Tensor:
            pixels = processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"].to(
                device
            )
            if hasattr(network, "get_image_features"):
                found = network.get_image_features(pixel_values=pixels)
                return found if isinstance(found, Tensor) else found.pooler_output
            return self._pooled(network(pixel_values=pixels), None)

        return encode

    def _pooled(self, output: Any, mask: Tensor | None) -> Tensor:
        if self.pool == "pooler":
            if getattr(output, "pooler_output", None) is None:
                raise InvalidInput(f"embedding.pool is 'pooler', but {self.name} has no pooled output: mean or first")
            return output.pooler_output
        states = output.last_hidden_state  # (b, tokens, width)
        if self.pool == "first":
            return states[:, 0]
        weights = torch.ones_like(states[..., 0]) if mask is None else mask.to(states.dtype)  # (b, tokens)
        return (states * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True)
