"""Costs of steps: work, rates and times."""

from __future__ import annotations

import math

import pytest

from vgg_keras.reproduction.cost import (
    TESTING,
    TRAINING,
    DataFacts,
    Rate,
    Timed,
    as_text,
    fit_rate,
    passes_of,
    rates_of,
    work_of,
)
from vgg_keras.reproduction.options import Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.steps import Evaluate, ExtractFeatures, Localise

SHAPES = DataFacts(10, {"train": 1600, "val": 400})
CALTECH = DataFacts(102, {"all": 9000})
OTHER = {"custom": "folder:c"}


def work(facts=SHAPES, **options):
    plan = make_plan(Options("shapes", seeds=(0,), **options))
    return work_of(plan, {"shapes": facts, "folder:c": CALTECH})


def test_work_of_training_is_that_of_epochs_and_images():
    once, twice = work(overrides={"epochs": 1}), work(overrides={"epochs": 2})
    more = work(DataFacts(10, {"train": 3200, "val": 800}), overrides={"epochs": 1})
    for name, of_step in once.items():
        trains = of_step.kind == TRAINING
        assert twice[name].amount == of_step.amount * (2 if trains else 1)
        if trains or of_step.kind == TESTING:
            assert more[name].amount == pytest.approx(2 * of_step.amount)


def test_a_net_of_the_paper_costs_what_it_costs():
    """Net A has 7.6e9 multiply-adds on a crop, of which a training step does three times."""
    facts = DataFacts(1000, {"train": 1000, "val": 0})
    found = work(facts, size="paper", overrides={"epochs": 1})["train A-256-seed0"]
    assert found.amount == pytest.approx(1000 * 3 * 7.61e9, rel=0.01)
    assert found.disk == pytest.approx(3 * 4 * 132.9e6, rel=0.01)


def test_frozen_layers_cost_less():
    found = {name: one.amount for name, one in work().items()}
    frozen, tuned = (found[f"train D-384-per-class-{layers}-seed0"] for layers in ("fc", "all"))
    assert 1 / 3 < frozen / tuned < 0.5


def test_deeper_nets_and_larger_scales_cost_more():
    found = {name: one.amount for name, one in work().items()}
    trainings = [found[f"train {net}-256-seed0"] for net in ("A", "B", "C", "D", "E")]
    assert trainings == sorted(trainings)
    dense = [found[f"evaluate D-{scale}-dense-seed0"] for scale in ("256", "384")]
    assert dense == sorted(dense)
    assert found["evaluate B-256-centre-seed0"] < found["evaluate B-256-dense-seed0"]


def test_a_pass_counts_in_the_first_step_that_needs_it():
    """The evaluation at several scales has the pass at one scale; both together cost nothing."""
    found = {name: one.amount for name, one in work(transfer_data=OTHER).items()}
    assert found["evaluate D-jitter-multi-crop+dense-multi-scale-seed0"] == 0
    assert found["features D-jitter-custom-stack-seed0"] == 0
    single = found["evaluate D-384-dense-seed0"]
    assert single < found["evaluate D-384-dense-multi-scale-seed0"] < 2.2 * single


def test_number_of_passes():
    plan = make_plan(Options("shapes", seeds=(0,), tables=(3, 4, 5), nets=("A", "D")))
    data = {"shapes": SHAPES}
    passes = [
        (one.key, step.name)
        for step in plan.steps
        if isinstance(step, Evaluate)
        for one in passes_of(step, plan.trainings(), data)
    ]
    # A: 1. D: three scales for each S; with jittered S also multi-crop at three.
    assert len(dict(passes)) == 1 + 3 * 3 + 3
    assert len(passes) == 1 + 3 * (1 + 3) + 3 + 6


def test_every_step_that_runs_a_net_has_passes():
    plan = make_plan(Options("shapes", seeds=(0,), transfer_data=OTHER))
    data = {"shapes": SHAPES, "folder:c": CALTECH}
    tested = [s for s in plan.steps if isinstance(s, Evaluate | Localise | ExtractFeatures)]
    counts = {s.name: len(list(passes_of(s, plan.trainings(), data))) for s in tested}
    # Posteriors of two classifiers; boxes at three scales, which both classifiers rate.
    assert counts["localise dense-seed0"] == 2 + 3 + 3 * 2
    assert min(counts.values()) == 1


@pytest.mark.parametrize(("setup", "per_unit"), [(5.0, 1e-12), (0.0, 2e-11), (3.0, 0.0)])
def test_a_rate_is_found_from_exact_times(setup, per_unit):
    amounts = (1e10, 5e11, 2e12)
    timed = [Timed(TESTING, amount, setup + per_unit * amount) for amount in amounts]
    found = fit_rate(timed)
    for amount in (0.0, *amounts, 1e13):
        assert found.seconds(amount) == pytest.approx(setup + per_unit * amount, abs=0.02)


def test_one_time_gives_a_rate_in_proportion():
    assert fit_rate([Timed(TRAINING, 1e12, 10.0)]).seconds(2e12) == pytest.approx(20)


def test_tests_take_the_rate_of_training_until_one_is_timed():
    timed = [Timed(TRAINING, 1e12, 10.0)]
    assert rates_of(timed)[TESTING] == rates_of(timed)[TRAINING]
    both = rates_of([*timed, Timed(TESTING, 1e12, 3.0)])
    assert both[TESTING].seconds(1e12) == pytest.approx(3)
    assert TRAINING not in rates_of([])
    assert rates_of([Timed("Fuse", 1.0, 9.0)])["Fuse"].seconds(1) == pytest.approx(9)


def test_a_rate_is_never_negative():
    falling = [Timed(TESTING, 1e12, 10.0), Timed(TESTING, 2e12, 5.0)]
    assert min(fit_rate(falling)) >= 0 < fit_rate(falling).seconds(1e12)
    assert Rate(1.0, 2.0).seconds(3) == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (math.nan, "?"),
        (4, "4 s"),
        (120, "2 min"),
        (3600 * 5 + 600, "5 h 10 min"),
        (86400 * 12, "12 days"),
    ],
)
def test_durations_in_words(seconds, text):
    assert as_text(seconds) == text
