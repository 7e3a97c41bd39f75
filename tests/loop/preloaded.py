"""What the process has imported that runs are forks of: nearly everything that a run and its report import in the end.

Imports take ten times as long as a small run.
"""

from PIL import Image

import tests.loop.runs  # noqa: F401
from promptgen.networks.torchvision_ops import import_fidelity

import_fidelity("metric_prc")
Image.init()
