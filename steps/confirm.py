"""Count the last pass of a loop again, on samples drawn after the decision to stop: the confirming count.

The loop stops at the first pass whose intervals contain the target, so the count that stopped it was selected for its
outcome and is slightly too favourable. The confirming count is not selected: its samples come from a separate stream,
and it decides nothing.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "confirm")

from promptgen.records import Confirmation
from promptgen.tracking import Tracker
from steps.measuring.counting import counting_params, debias_count
from steps.measuring.reading import ReadingRecipe, blocks, read, reading_inputs, reading_params
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder

STREAM = "confirm"


def run(run_pass: Pass, tracker: Tracker) -> Result:
    """Count the classes of fresh samples of a pass.

    Returns:
        As of every step; `confirmation` in its result is that of `promptgen.records.Confirmation`.

    Raises:
        DataError: the flow of this pass is not trained yet.
        ModelFileError: a weight file is missing or damaged.
    """
    params, inputs = reading_params(run_pass) | counting_params(run_pass), reading_inputs(run_pass)
    return run_pass.step("confirm", params, inputs, lambda folder: _confirm(run_pass, folder, tracker))


def _confirm(run_pass: Pass, folder: StepFolder, tracker: Tracker) -> Result:
    samples, images = read(ReadingRecipe(run_pass), blocks(run_pass, STREAM), folder.path, tracker)
    count = debias_count(run_pass, samples)
    return {
        "confirmation": Confirmation(**dict(count)).as_dict(),
        "generator_evaluations": {"forward": images, "backward": 0},
    }
