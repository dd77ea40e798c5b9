"""The claims section of the report: its contents and its figure, without TensorFlow."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import pytest

from vgg_keras.report.claims import MARKS, claims_figure, claims_section
from vgg_keras.report.figures import figure_uri
from vgg_keras.reproduction import claims, verdicts
from vgg_keras.reproduction.paired import Difference


def made_up_claims(measured_on="data <1>, crop 32"):
    """Claims with each verdict, the last without results."""
    gains = {"lrn": (-0.1, -0.3, 0.2), "depth-a-b": (-2.0, -3.0, -1.0), "training-jitter": None}
    found = []
    for claim in claims.CLAIMS:
        gain = gains.get(claim.id, (0.5, -0.5, 1.5))
        difference = Difference(*gain, seeds=3, images=18) if gain else None
        verdict = verdicts.verdict(claim, difference) if difference else verdicts.MISSING
        where = measured_on if difference else ""
        paper = claim.papers_gain()
        note = f"{claim.id}: missing <row>."
        found.append(verdicts.TestedClaim(claim, where, difference, paper, 1, verdict, (note,)))
    return found


def test_each_data_set_has_its_table_and_figure(monkeypatch):
    found = made_up_claims("a")[:2] + made_up_claims("b")[:3]
    monkeypatch.setattr(verdicts, "test_claims", lambda read: found)
    settings = claims_section([])["settings"]
    assert [(s["measured_on"], len(s["rows"])) for s in settings] == [
        ("a", 2),
        ("b", 3),
    ]
    assert settings[0]["wide"] != settings[1]["wide"]


def test_results_that_answer_no_claim_have_no_section(monkeypatch):
    missing = [one for one in made_up_claims() if one.difference is None]
    monkeypatch.setattr(verdicts, "test_claims", lambda read: missing)
    assert claims_section([]) is None


@pytest.mark.parametrize("narrow", [False, True])
def test_the_figure_has_an_interval_and_a_word_for_each_claim(narrow):
    found = made_up_claims()
    answered = [one for one in found if one.difference]
    figure = claims_figure(found, narrow=narrow)
    (panel,) = figure.axes
    lines = {line.get_gid(): line for line in panel.lines if line.get_gid()}
    assert [f"interval-{one.claim.id}" for one in answered] == list(lines)
    for one, line in zip(answered, lines.values(), strict=True):
        assert list(line.get_xdata()) == [one.difference.low, one.difference.high]
    words = [text.get_text() for text in panel.texts if text.get_text() in MARKS]
    assert words == [one.verdict for one in answered]
    papers = [line.get_xdata()[0] for line in panel.lines if line.get_markersize() == 15]
    assert {one.papers_gain for one in answered if one.papers_gain is not None} <= set(papers)


def test_verdicts_have_different_shapes_and_colours():
    for kind in ("marker", "sign", "colour"):
        assert len({getattr(mark, kind) for mark in MARKS.values()}) == len(MARKS)


def test_figures_have_stable_bytes_and_no_ground():
    first, second = (figure_uri(claims_figure(made_up_claims()[:3])) for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(base64.b64decode(first.partition(",")[2]))
    ground = root.find(".//{*}g[@id='patch_1']/{*}path").get("style")
    assert "fill: none" in ground or "opacity: 0" in ground
