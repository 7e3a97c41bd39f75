"""Target shares that an experiment takes from a folder of images; they are measured once and cached."""

from __future__ import annotations

from pathlib import Path

from promptgen.audit.images import find_files
from promptgen.audit.reference import reference_shares
from promptgen.config.build import build_classifier, identities
from promptgen.config.params import Params
from promptgen.errors import DataError
from promptgen.figures import ReferenceImages
from promptgen.files import fingerprint, read_json, write_json

TARGET_NAME = "target.json"
VERSION = 1


def reference_of(root: Path, params: Params) -> ReferenceImages | None:
    """Return the shares of the folder that `debias.target` names; None if `debias.target` holds the shares.

    They are cached in the experiment's folder of artifacts, and measured again if a file, the classifier or the
    attribute has changed.

    Args:
        root: folder of params.yaml, at which a relative folder starts.
        params: the experiment.

    Raises:
        ConfigError: the shares cannot be a target.
        DataError: the folder is missing or has no readable image.
        ModelFileError: the classifier's weight file is missing or damaged.
        StorageError: the cache cannot be written.
    """
    debias, models = params.debias, root / "models"
    if debias.target_images is None:
        return None
    folder, kept = root / debias.target_images, root / "artifacts" / params.experiment / TARGET_NAME
    states = {name: (folder / name).stat() for name in find_files(folder)}
    made_from = {
        "files": {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()},
        "classifier": debias.classifier.model_dump(mode="json"),
        "attribute": debias.attribute,
        "confidence": params.evaluation.confidence,
    }
    key = fingerprint(made_from, identities([debias.classifier], models), VERSION)
    if kept.is_file() and (content := read_json(kept)).get("fingerprint") == key:
        try:
            return ReferenceImages.parse(content["reference"], str(kept))
        except (DataError, KeyError):
            pass  # damaged, so the images are read again
    reference = reference_shares(
        folder,
        build_classifier(debias.classifier, models),
        debias.attribute,
        batch=params.evaluation.batch,
        confidence=params.evaluation.confidence,
        name=debias.classifier.describe(),
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, {"fingerprint": key, "reference": reference.as_dict()})
    return reference
