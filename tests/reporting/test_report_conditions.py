"""What the report says and shows of a condition: its figures in words, and a picture per coordinate."""

from dataclasses import replace

import numpy as np
from made_up_run import PARAMS, control, make, settings

from promptgen.reporting.page import render
from promptgen.reporting.sections.control import measure_words
from promptgen.reporting.sections.names import range_words
from promptgen.reporting.sections.panels import control_panels

POSE = PARAMS | {
    "control": control(
        {"yaw": [-0.24, 0.24], "light": [-1.0, 2.0]},
        pose={"type": "pose", "estimator": "world-pose"},
        face={"type": "identity", "embedder": "world-identity"},
    )
    | {"training": {"method": "on_policy", "steps": 300, "batch": 64}}
}
FIGURES = {
    "pose.error": {"value": 3.1, "low": 3.0, "high": 3.2},
    "pose.yaw.slope": {"value": 0.9, "low": 0.88, "high": 0.92},
    "identity.within": {"value": 0.3, "low": 0.29, "high": 0.31},
    "identity.between": {"value": 1.3, "low": 1.28, "high": 1.32},
}


def posed():
    """Return a run whose second pass hears a condition."""
    run = make()
    sweep = np.arange(2 * 6 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 6, 4, 4, 3)
    records = [record.model_dump(by_alias=True) for record in run.metrics.passes]
    for record in records:
        record["control"] |= FIGURES
    metrics = type(run.metrics).parse(run.metrics.as_dict() | {"passes": records}, "made up")
    material = [run.material[0], *(replace(each, sweep=sweep) for each in run.material[1:])]
    return replace(run, metrics=metrics, material=material, settings=settings(POSE))


def test_every_figure_has_a_title_and_a_meaning():
    panels = {panel.title: panel.meaning for panel in control_panels(posed().metrics)}
    for name in FIGURES:
        title, meaning = measure_words(name)
        assert panels[title] == meaning
        assert "further measure" not in meaning
    assert measure_words("pose.yaw.slope")[0] == "How far yaw is followed"
    assert measure_words("my.own") == ("My own", "A further measure of the control.")


def test_angles_are_told_in_degrees_and_other_coordinates_as_they_are():
    assert range_words("yaw", -0.24, 0.24) == "yaw, −14° to 14°"
    assert range_words("light", -1.0, 2.0).startswith("light, ")
    assert "°" not in range_words("light", -1.0, 2.0)


def test_the_page_shows_a_picture_per_coordinate_of_each_conditional_pass():
    page = render(posed())
    assert page.count("The same latents from left to right under yaw, −14° to 14°") == 2
    assert page.count("The same latents from left to right under light, ") == 2
    assert "a given pose and the same face whatever the condition" in page


def test_a_run_without_a_condition_has_no_such_section():
    assert "What the condition changes" not in render(make())


def test_columns_are_in_alphabetical_order_as_the_flow_s_are():
    assert list(settings(POSE).condition) == ["light", "yaw"]
