"""Human's published networks compute what they compute in TensorFlow.js."""

import torch
from published_faces import EXPECTED, assert_agrees, files_of, pictures

from promptgen.perception import human
from promptgen.perception.human import load_emotion, load_faceres


@torch.no_grad()
def test_faceres():
    model = load_faceres(*files_of("human_faceres"))
    outputs = model.outputs(pictures(224))
    expected = EXPECTED["faceres"]
    for name in (human.GENDER, human.AGE, human.EMBEDDING):
        assert_agrees(outputs[name], expected[name])
    logits = model(pictures(224))
    assert_agrees(logits["gender"].softmax(1)[:, 1:], expected["gender_pred/Sigmoid"])
    years = torch.tensor(expected["age_pred/Softmax"]).split([20, 20, 20, 40], dim=1)
    assert_agrees(logits["age"].softmax(1), torch.stack([part.sum(1) for part in years], dim=1).tolist())
    assert torch.equal(model.features(pictures(224)), outputs[human.EMBEDDING])


@torch.no_grad()
def test_emotion():
    model = load_emotion(*files_of("human_emotion"))
    logits = model(pictures(64))["expression"]
    assert_agrees(logits.softmax(1), EXPECTED["emotion"])
    assert logits.argmax(1).unique().numel() > 1


def test_gradients_of_published_weights():
    """Along the gradient of a logit, the logit grows as much as the gradient says."""
    for load, kind, attribute in (
        (load_faceres, "human_faceres", "gender"),
        (load_emotion, "human_emotion", "expression"),
    ):
        model = load(*files_of(kind)).double()
        image = pictures(64)[2:].double().requires_grad_()
        (gradient,) = torch.autograd.grad(model(image)[attribute][:, 1].sum(), image)
        norm = gradient.flatten(1).norm(dim=1)
        step = 1e-6 * gradient / norm[:, None, None, None]
        with torch.no_grad():
            grown = model(image + step)[attribute][:, 1] - model(image - step)[attribute][:, 1]
        torch.testing.assert_close(grown, 2e-6 * norm, rtol=0.01, atol=0)
