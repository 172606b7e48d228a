"""The list of weights that come with the package."""

from a2f_jax import cli
from a2f_jax.models.weights import load, shipped


def test_every_shipped_weights_are_listed_with_their_scores(capsys):
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(shipped())
    for line in lines[1:-1]:
        assert line.count(" / 0.") >= 2  # sets


def test_names_say_what_the_weights_are():
    for name in shipped():
        model = load(name)
        assert f"{model.variant}-x{model.scale}" == name
        assert {"data", "step", "licence", "commit", "scores"} <= set(model.metadata)
