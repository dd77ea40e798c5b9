"""The plan as data: what is trained from which start, and which rows of the paper it covers."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from vgg_keras.errors import ArgumentError
from vgg_keras.nets import NETS
from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES, LocalisationRecipe, Recipe
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.matching import matches
from vgg_keras.reproduction.options import PLANNED_FIELDS, ROWS, SIZES, Options
from vgg_keras.reproduction.plan import make_plan
from vgg_keras.reproduction.steps import Evaluate, ExtractFeatures, Fuse, Localise, Train, Transfer


def plan_of(data="shapes", seeds=(0,), **options):
    return make_plan(Options(data, seeds=seeds, **options))


def results_of(step, plan):
    """What the results of the step say of its nets, or of the members of a fusion."""
    trainings = plan.trainings()
    if isinstance(step, Fuse):
        evaluations = {one.output: one for one in plan.steps}
        members = [one for file in step.files for one in results_of(evaluations[file], plan)]
        return [{"members": members, "protocol": members[0]["protocol"]}]

    def net_of(run, scales=None):
        recipe = trainings[run].recipe
        net = {key: getattr(recipe, key) for key in ("net", "train_scale", "crop_size", "width")}
        if scales is None:
            return net | {"test_scales": list(scales_of(recipe, step.multi_scale))}
        kind = {"regression": recipe.regression, "tuned": recipe.trainable}
        return net | kind | {"test_scales": list(scales)}

    if isinstance(step, Evaluate):
        tested = [[net_of(step.run)]]
    else:
        tested = [list(map(net_of, test.runs, test.test_scales)) for test in step.tests]
    return [
        (nets[0] if len(nets) == 1 else {"members": nets}) | {"protocol": step.protocol}
        for nets in tested
    ]


def scales_of(recipe: Recipe, multi_scale: bool):
    from vgg_keras.architecture import Architecture
    from vgg_keras.evaluation.procedure import paper_scales
    from vgg_keras.facts import NetFacts

    architecture = Architecture(recipe.net, 2, recipe.crop_size, recipe.width)
    net = NetFacts(architecture, (0, 0, 0), ("a", "b"), recipe.train_scale)
    return paper_scales(net, multi_scale)


@pytest.mark.parametrize("size", SIZES)
def test_every_row_has_one_step_whose_result_stands_beside_it(size):
    """The tables themselves judge: `matches` puts a result beside a row."""
    tables = (3, 4, 5, 6, 7, 8, 9, 10)
    plan = plan_of(size=size, tables=tables)
    beside = Counter(row for step in plan.steps for row in step.rows)
    measures = {key: 0.0 for number in tables for _, key in PAPER_TABLES[number].measures}
    rows = {
        (number, index): row
        for number in tables
        for index, row in enumerate(ROWS[number])
        if row.tested
    }
    assert beside == dict.fromkeys(rows, 1)
    for step in plan.steps:
        for number, index in step.rows:
            beside = [
                matches(result | measures, PAPER_TABLES[number], ROWS[number][index])
                for result in results_of(step, plan)
            ]
            assert beside.count(True) == 1, step.name


def test_numbers_of_steps():
    plan = plan_of(transfer_data={"caltech101": "folder:c"}, seeds=(3, 5))
    count = Counter(type(step) for step in plan.steps)
    classifiers = [s for s in plan.trainings().values() if not hasattr(s.recipe, "regression")]
    assert len(classifiers) == 2 * (4 + 3 * 3)  # A, A-LRN, B, B-shallow; C, D, E at three scales
    assert count[Train] - len(classifiers) == 2 * 4  # three settings at 384, the best at 256
    assert count[Evaluate] == 2 * (12 + 2 + 10 + 4)  # Tables 3, §4.1, 4, 5 without dense
    assert count[Fuse] == 2 * 4
    assert count[Localise] == 2 * (3 + 1)  # Table 8; all rows of Table 9 together
    assert count[ExtractFeatures] == 2 * 2 * 4
    assert count[Transfer] == 2 * 3 * 4
    names = [step.name for step in plan.steps]
    assert len(set(names)) == len(names)
    assert len({step.output for step in plan.steps}) == len(names)


def test_a_table_repeated_adds_no_step():
    """Tables 7 and 10 hold rows of Tables 5, 6 and 9."""
    few, all_tables = plan_of(), plan_of(tables=(3, 4, 5, 6, 7, 8, 9, 10))
    assert {step.name for step in few.steps} == {step.name for step in all_tables.steps}


def test_order_is_by_seed_and_every_need_comes_first():
    plan = plan_of(seeds=(1, 0), transfer_data={"custom": "folder:c"})
    seeds = [step.output.rpartition("-seed")[2].partition(".")[0] for step in plan.steps]
    assert seeds == sorted(seeds, reverse=True)
    seen = set()
    for step in plan.steps:
        assert seen.issuperset(step.needs), step.name
        seen.add(step.name)
    first_of_table = {
        n: next(i for i, step in enumerate(plan.steps) if n in step.tables) for n in (3, 4, 5, 6, 8)
    }
    assert sorted(first_of_table, key=first_of_table.get) == [3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("run", "start", "recipe"),
    [
        ("A-256", "", "paper"),
        ("B-256", "A-256", "paper"),
        ("B-shallow-256", "", "paper"),
        ("A-LRN-256", "", "paper"),
        ("E-384", "E-256", "paper-384"),
        ("E-jitter", "E-384", "paper-jitter"),
    ],
)
def test_the_size_paper_is_the_recipes_of_the_paper(run, start, recipe):
    found = plan_of(size="paper", seeds=(7,)).trainings()[f"runs/{run}-seed7"].recipe
    expected = dataclasses.replace(
        RECIPES[recipe],
        net=run.rpartition("-")[0],
        data="shapes",
        seed=7,
        init_from=start and f"runs/{start}-seed7",
    )
    assert not expected.differences(found)


def test_localisation_is_the_recipe_of_the_paper():
    runs = plan_of(size="paper").trainings()
    found = runs["runs/D-384-single-class-fc-seed0"].recipe
    expected = dataclasses.replace(
        LOCALISATION_RECIPES["paper-384"],
        data="shapes",
        init_from="runs/D-384-seed0",
        regression="single-class",
        trainable="fc1,fc2,predictions",
    )
    assert isinstance(found, LocalisationRecipe)
    assert not dataclasses.replace(expected, trainable=found.trainable).differences(found)


def test_fields_are_replaced_in_all_recipes_and_rates_stay_in_proportion():
    overrides = {"learning_rate": 0.04, "epochs": 3, "crop_size": 96, "width": 0.5}
    plan = plan_of(size="tiny", overrides=overrides)
    recipes = {run: step.recipe for run, step in plan.trainings().items()}
    assert {recipe.epochs for recipe in recipes.values()} == {3}
    assert recipes["runs/D-jitter-seed0"].train_scale == (110, 219)  # 256 and 512 times 96/224
    rates = {run: recipe.learning_rate for run, recipe in recipes.items()}
    assert rates["runs/D-256-seed0"] == 0.04
    assert rates["runs/D-384-seed0"] == rates["runs/D-jitter-seed0"] == pytest.approx(0.004)
    assert rates["runs/D-384-per-class-all-seed0"] == pytest.approx(0.004)


@pytest.mark.parametrize("left_out", NETS)
def test_a_net_that_is_left_out_takes_all_that_needs_it(left_out):
    nets = [net for net in NETS if net != left_out]
    if left_out == "A":
        plan = plan_of(nets=tuple(nets))
        assert {step.recipe.net for step in plan.trainings().values()} == {"A-LRN", "B-shallow"}
        assert set(plan.missing) == {4, 5, 6, 8, 9, 11}
        return
    whole, plan = plan_of(), plan_of(nets=tuple(nets))
    assert left_out not in {step.recipe.net for step in plan.trainings().values()}
    kept = {step.name for step in plan.steps}
    lost = [step for step in whole.steps if step.name not in kept]
    trainings = whole.trainings()
    gone = {run for run, step in trainings.items() if step.recipe.net == left_out}
    assert gone
    for step in lost:
        sources = set(getattr(step, "files", ())) | {getattr(step, "run", "")}
        sources |= set(getattr(step, "runs", ())) | {step.output}
        assert any(f"{left_out}-" in source for source in sources), step.name


def test_what_a_table_needs_is_named():
    plan = plan_of("folder:no-boxes", nets=("A", "B", "D"))
    assert set(plan.missing) == {6, 8, 9, 11}
    assert "localisation_data" in plan.missing[8]
    assert "transfer_data" in plan.missing[11]
    assert "A, C, D, E" in plan.missing[6]
    with pytest.raises(ArgumentError, match="first row A, D"):
        plan_of(nets=("D",), tables=(5,))


def test_boxes_of_a_folder_are_found(tmp_path):
    assert 8 in plan_of(f"folder:{tmp_path}?val=0.1").missing
    (tmp_path / "boxes.csv").touch()
    assert 8 not in plan_of(f"folder:{tmp_path}?val=0.1").missing


def test_other_data_with_boxes_have_classifiers_of_their_own():
    plan = plan_of("folder:images", localisation_data="shapes", nets=("A", "D"))
    data = {run: step.recipe.data for run, step in plan.trainings().items()}
    boxed = {run for run, spec in data.items() if spec == "shapes"}
    assert {run for run in boxed if "class" not in run} == {
        f"runs/boxed-{label}-seed0" for label in ("A-256", "D-256", "D-384")
    }
    localised = [step for step in plan.steps if isinstance(step, Localise)]
    assert all(boxed.issuperset(step.runs + step.classifiers) for step in localised)
    evaluated = [step.run for step in plan.steps if isinstance(step, Evaluate)]
    assert boxed.isdisjoint(evaluated)


@pytest.mark.parametrize(
    "options",
    [
        {"size": "huge"},
        {"tables": (2,)},
        {"nets": ("F",)},
        {"seeds": ()},
        {"seeds": (1, 1)},
        {"transfer_data": {"mnist": "folder:x"}},
        {"overrides": {"net": "D"}},
        {"overrides": {"width": -1}},
        {"overrides": {"momentum": 2}},
    ],
)
def test_options_are_refused(options):
    with pytest.raises(ArgumentError):
        plan_of(**options)


def test_planned_fields_are_fields():
    assert {field.name for field in dataclasses.fields(Recipe)} > set(PLANNED_FIELDS)
