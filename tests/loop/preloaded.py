"""What the process has imported that runs are forks of: nearly everything that a run and its report import in the end.

Imports take ten times as long as a small run.
"""

from PIL import Image
from promptgen.torchvision_ops import import_fidelity

import tests.loop.runs  # noqa: F401

import_fidelity("metric_prc")
Image.init()
