"""How a classifier gives labels to a set of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from promptgen.audit.labels import Labels, small_indices
from promptgen.errors import DataError, TooFewSamplesError
from promptgen.networks.devices import find_device, placed
from promptgen.networks.finite import unclear
from promptgen.perception.base import Classifier, logits_of_files
from promptgen.perception.reading import promised


class Labeller:
    """Collects a classifier's labels and probabilities over batches of images from files, without keeping the images.

    A network that prepares files in another way than generated images does so, see
    `promptgen.perception.base.ReadsFiles`.

    Args:
        classifier: the classifier; a network is moved to `device`.
        device: device on which the classifier runs.
        name: what errors call the classifier.
        wanted: names of the attributes to keep, as far as the classifier knows them; None means all.

    Raises:
        ConfigError: the device is not available.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        device: str = "cpu",
        name: str = "the classifier",
        wanted: Collection[str] | None = None,
    ) -> None:
        self.device = find_device(device)
        self.classifier: Classifier = placed(classifier, self.device)
        self.name, self.wanted = name, wanted
        self._read: defaultdict[str, list[Tensor]] = defaultdict(list)

    @torch.no_grad()
    def logits(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits, (B, K) float64 on the CPU, of each attribute; they may be NaN or infinite.

        Raises:
            DataError: the classifier does not accept images of this size, the batch does not fit into memory, or an
                attribute lacks logits.
        """
        height, width = image.shape[2:]
        try:
            logits = logits_of_files(self.classifier, image.to(self.device))
        except torch.OutOfMemoryError as error:
            raise DataError(f"{len(image)} images do not fit into memory; choose a smaller batch") from error
        except RuntimeError as error:
            raise DataError(f"the classifier rejects images of {width} x {height} ({error}); resize them") from error
        parts = promised(self.classifier, logits, len(image), self.name)
        kept = {name: part for name, part in parts.items() if self.wanted is None or name in self.wanted}
        return {name: part.double().cpu() for name, part in (kept or parts).items()}

    def keep(self, logits: Mapping[str, Tensor], chosen: Tensor) -> None:
        """Collect the labels and probabilities of those images of a batch that a mask, (B,), chooses."""
        for name, part in logits.items():
            self._read[name].append(part[chosen].softmax(dim=1))

    def compute(self) -> Labels:
        """Return the labels of all images so far.

        Raises:
            TooFewSamplesError: no image has been classified.
        """
        if not self._read:
            raise TooFewSamplesError("no image has been classified; give at least one")
        rows = {name: torch.cat(parts) for name, parts in self._read.items()}
        return Labels(
            attributes={name: tuple(self.classifier.attributes[name]) for name in rows},
            indices={name: small_indices(p.argmax(dim=1).numpy(), p.shape[1]) for name, p in rows.items()},
            probabilities={name: p.numpy() for name, p in rows.items()},
        )


def label(labellers: Sequence[Labeller], image: Tensor) -> dict[int, str]:
    """Label a batch of images, (B, 3, H, W), with each labeller, except those that one of them cannot read.

    An image with a NaN or an infinite logit is left out by all, so that their labels are of the same images.

    Returns:
        Why an image is left out, by its position in the batch.

    Raises:
        DataError: as of `Labeller.logits`.
    """
    logits = [labeller.logits(image) for labeller in labellers]
    left_out: dict[int, str] = {}
    for labeller, parts in zip(labellers, logits, strict=True):
        for index, reason in unclear(parts).items():
            left_out.setdefault(index, f"{labeller.name}'s {reason}")
    chosen = torch.tensor([index not in left_out for index in range(len(image))])
    for labeller, parts in zip(labellers, logits, strict=True):
        labeller.keep(parts, chosen)
    return dict(sorted(left_out.items()))
