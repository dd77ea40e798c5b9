"""Progress of evaluations off a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from vgg_keras.evaluation import meter


def test_a_pass_that_ends_when_a_line_is_due_prints_it_once(monkeypatch):
    monkeypatch.setattr(meter, "_SECONDS_BETWEEN_LINES", -1.0)
    out = io.StringIO()
    with meter.Meter(4.0, 1, Console(file=out)) as shown:
        shown.start("dense Q=256", 4, 1.0)
        shown.advance(3)
        shown.advance(1)
        shown.finish()
    counts = [line.split()[2] for line in out.getvalue().splitlines()]
    assert counts == ["3/4", "4/4"]
