"""Count the last pass of a loop once more, on samples drawn after it was decided that the loop ends there.

The loop ends at the first pass whose count looks right, so that count was chosen for its outcome, and is a little too
favourable. This one was not chosen: its samples are of a stream of their own, and nothing is decided by it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "confirm")

import torch

from promptgen.files import write_json
from promptgen.tracking import Tracker
from steps.measuring.counting import count_target, counting_params, judged
from steps.measuring.reading import Reading, reading_inputs, reading_params
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder

CONFIRMATION_NAME = "confirmation.json"
STREAM = "confirm"


def run(this: Pass, tracker: Tracker) -> Result:
    """Write confirmation.json, as `promptgen.records.Confirmation`: the shares of fresh samples of a pass.

    Returns:
        As of every step; `confirmation` in its result is the content of the file.

    Raises:
        DataError: the flow of this pass is not trained yet.
        ModelFileError: a weight file is missing or damaged.
    """
    params, inputs = reading_params(this) | counting_params(this), reading_inputs(this)
    return this.step("confirm", params, inputs, lambda folder: _confirm(this, folder, tracker))


@torch.inference_mode()
def _confirm(this: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    reading = Reading(this, this.generator(sampling=True))
    reading.draw(STREAM, tracker)
    arrays, labels = reading.arrays(), reading.attributes
    confirmation = {
        "pass": this.number,
        "n": reading.n,
        **count_target(this, arrays, labels),
        "contains_target": judged(this, arrays, labels).contains_target,
    }
    write_json(folder.path / CONFIRMATION_NAME, confirmation)
    return {
        "confirmation": confirmation,
        "generator_evaluations": {"forward": reading.images, "backward": 0},
    }
