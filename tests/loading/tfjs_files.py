"""Small models in the format of TensorFlow.js."""

import itertools
import json

import numpy as np

STORED = {"float32": "<f4", "int32": "<i4", "uint8": "<u1", "uint16": "<u2", "float16": "<f2"}


def entry(name, array, quantization=None, dtype="float32"):
    """Return the entry of a weight in the manifest, and its bytes; `array` holds what is stored."""
    stored = np.ascontiguousarray(array, STORED[quantization["dtype"] if quantization else dtype])
    described = {"name": name, "shape": list(array.shape), "dtype": dtype}
    return described | ({"quantization": quantization} if quantization else {}), stored.tobytes()


def write(folder, entries, name="model", parts=1, topology=None):
    """Write the entries of `entry` as one group of shards; return the paths of the JSON file and of the shards."""
    content = b"".join(data for _, data in entries)
    cuts = [len(content) * part // parts for part in range(parts + 1)]
    shards = [folder / f"{name}-shard{part + 1}of{parts}.bin" for part in range(parts)]
    for shard, (start, end) in zip(shards, itertools.pairwise(cuts), strict=True):
        shard.write_bytes(content[start:end])
    groups = [{"paths": [shard.name for shard in shards], "weights": [described for described, _ in entries]}]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(groups if topology is None else {"modelTopology": topology, "weightsManifest": groups}))
    return path, shards
