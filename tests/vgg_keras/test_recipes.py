from __future__ import annotations

import dataclasses
import json

import pytest

from vgg_keras.nets import FC_NAMES, NETS
from vgg_keras.pipelines.errors import ArgumentError, SourceError
from vgg_keras.recipe_differences import explain_epochs, explain_refusal, nearest
from vgg_keras.recipes import LOCALISATION_RECIPES, RECIPES, LocalisationRecipe, Recipe


def test_recipes_are_the_papers():
    """Section 3.1: batch 256, momentum 0.9, weight decay 5e-4, dropout 0.5, rate 1e-2 and three
    drops by 10; then S = 384 at rate 1e-3 from all layers; then [256;512] likewise."""
    first, second, third = (RECIPES[name] for name in ("paper", "paper-384", "paper-jitter"))
    assert (first.batch_size, first.momentum, first.weight_decay) == (256, 0.9, 5e-4)
    assert (first.dropout, first.learning_rate, first.epochs) == (0.5, 1e-2, 74)
    assert (first.plateau_drops, first.plateau_factor, first.crop_size) == (3, 10, 224)
    assert (first.train_scale, first.init_layers) == ((256, 256), "warm-start")
    assert (first.width, first.colour_shift, first.flip, first.seed) == (1, 0.1, True, 0)
    assert first.plateau_patience == 5
    assert (second.train_scale, second.learning_rate, second.init_layers) == (
        (384, 384),
        1e-3,
        "all",
    )
    assert (third.train_scale, third.learning_rate, third.init_layers) == ((256, 512), 1e-3, "all")


def test_localisation_recipes_are_those_of_section_a_1():
    """Net D with a box for each class; rate 1e-3; every layer is tuned; S = 256 or 384."""
    paper, other = (LOCALISATION_RECIPES[name] for name in ("paper", "paper-384"))
    assert (paper.net, paper.learning_rate) == ("D", 1e-3)
    assert (paper.regression, paper.trainable) == ("per-class", "all")
    assert (paper.train_scale, other.train_scale) == ((256, 256), (384, 384))
    assert paper.differences(other) == ["train_scale: (256, 256) -> (384, 384)"]


def test_small_recipes_have_the_scales_of_the_paper_in_proportion():
    """S is drawn from [256;512], times 64/224. Localisation differs in its own fields alone."""
    small, boxes = RECIPES["small"], LOCALISATION_RECIPES["small"]
    assert (small.crop_size, small.width) == (64, 0.25)
    assert small.train_scale == (round(256 * 64 / 224), round(512 * 64 / 224))
    assert (small.epochs, small.batch_size, small.plateau_patience) == (40, 64, 3)
    assert (boxes.net, boxes.learning_rate) == ("D", 1e-3)
    assert small.differences(boxes) == [
        "net: A -> D",
        "learning_rate: 0.01 -> 0.001",
        "regression: None -> per-class",
        "boxes: None -> ",
    ]


def test_fine_tuning_has_the_input_of_the_released_nets():
    """224 pixels, so that fc1 fits; the mean of ILSVRC; the matching layers of net D."""
    recipe = RECIPES["fine-tune"]
    assert (recipe.net, recipe.crop_size, recipe.width) == ("D", 224, 1)
    assert (recipe.train_scale, recipe.statistics) == ((256, 256), "ilsvrc")
    assert (recipe.init_layers, recipe.batch_size) == ("matching", 64)
    stages = [(s.recipe.trainable, s.recipe.learning_rate) for s in recipe.stages]
    assert stages == [("fc", 1e-3), ("all", pytest.approx(1e-4))]
    assert [(s.first_epoch, s.end) for s in recipe.stages] == [(0, 1), (1, 10)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("all", 0, 5)]),
        ({"trainable": "fc"}, [("fc", 0, 5)]),
        ({"fc_epochs": 2}, [("fc", 0, 2), ("all", 2, 5)]),
        ({"fc_epochs": 5}, [("fc", 0, 5)]),
        ({"fc_epochs": 9}, [("fc", 0, 5)]),
        ({"fc_epochs": 2, "trainable": "fc"}, [("fc", 0, 5)]),
        ({"fc_epochs": 2, "trainable": "fc2,fc1,predictions"}, [("fc", 0, 5)]),
        ({"fc_epochs": 2, "trainable": "fc2"}, [("fc2", 0, 5)]),
        (
            {"fc_epochs": 2, "trainable": "predictions, block5_conv1,fc1"},
            [("fc1,predictions", 0, 2), ("block5_conv1,fc1,predictions", 2, 5)],
        ),
    ],
)
def test_stages_train_the_fc_layers_first(fields, expected):
    stages = Recipe(epochs=5, **fields).stages
    assert [(s.recipe.trainable, s.first_epoch, s.end) for s in stages] == expected
    assert [s.recipe.learning_rate for s in stages] == pytest.approx([1e-2, 1e-3][: len(stages)])
    assert all(len(stage.recipe.stages) == 1 for stage in stages)


def test_names_of_trainable_layers_have_one_order():
    """So that the same command with another order continues the run."""
    one, other = (Recipe(trainable=t) for t in ("fc1,block1_conv1", "block1_conv1, fc1,fc1"))
    assert one == other
    assert Recipe(trainable=",".join((*NETS["A"].conv_names, *FC_NAMES))) == Recipe()


@pytest.mark.parametrize(
    "fields", [{"trainable": ""}, {"trainable": "fc9"}, {"trainable": "block1_conv2,fc1"}]
)
def test_trainable_layers_that_the_net_does_not_have_are_refused(fields):
    with pytest.raises(ArgumentError, match=r"names of layers of net A: block1_conv1, .*Received"):
        Recipe(**fields)
    with pytest.raises(ArgumentError, match="fc_epochs must be 0 if trainable names no FC"):
        Recipe(trainable="block1_conv1", fc_epochs=1)


def test_recipes_of_earlier_versions_are_read():
    """They have no stages, and those of localisation call the trained layers `tuned`."""
    for recipe in (Recipe(seed=3), LocalisationRecipe(trainable="fc")):
        fields = json.loads(recipe.to_json())
        trainable = fields.pop("trainable")
        for name in ("fc_epochs", "unfreeze_factor"):
            del fields[name]
        if isinstance(recipe, LocalisationRecipe):
            fields["tuned"] = trainable
        assert Recipe.from_json(json.dumps(fields)) == recipe


def test_a_recipe_cannot_be_changed():
    for recipe in (Recipe(), LocalisationRecipe()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.seed = 1


def test_json_text_has_a_field_a_line():
    text = Recipe(seed=3).to_json()
    assert text.endswith("\n}\n")
    assert '\n  "seed": 3\n' in text


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("epochs", [1, 1e9], [0, -1]),
        ("fc_epochs", [0, 9], [-1]),
        ("batch_size", [1, 4096], [0]),
        ("learning_rate", [0, 1e-9, 10], [-1e-9, float("nan")]),
        ("unfreeze_factor", [1, 2.5], [0.5]),
        ("momentum", [0, 0.5, 1], [-0.1, 1.1]),
        ("weight_decay", [0, 2], [-1e-9]),
        ("dropout", [0, 0.5, 1], [-0.1, 1.1]),
        ("plateau_patience", [1, 99], [0]),
        ("plateau_factor", [1.001, 1.5, 100], [1, 0.5]),
        ("plateau_drops", [0, 1], [-1]),
        ("colour_shift", [0, 0.5, 2], [-0.1]),
        ("seed", [0, 2**31 - 1], [-1, 2**31]),
    ],
)
def test_ranges_include_their_ends(field, allowed, refused):
    for value in allowed:
        assert getattr(Recipe(**{field: value}), field) == value
    for value in refused:
        with pytest.raises(ArgumentError, match=f"{field} must be from .* Received: ") as error:
            Recipe(**{field: value})
        assert error.value.argument == field


def test_the_validation_scale_is_that_of_section_4_1():
    assert Recipe(train_scale=256).validation_scale == 256
    assert Recipe(train_scale=(224, 224)).validation_scale == 224
    assert Recipe(train_scale=(256, 257)).validation_scale == 256
    assert Recipe(train_scale=32768).validation_scale == 32768  # the largest
    assert Recipe(train_scale=(256, 512)).validation_scale == 384


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"net": "Z"}, "A, A-LRN, B"),
        ({"crop_size": 100}, "multiple of 32"),
        ({"train_scale": (512, 256)}, "S_MIN <= S_MAX"),
        ({"train_scale": (256, 384, 512)}, "S_MIN <= S_MAX"),
        ({"train_scale": (256,)}, "S_MIN <= S_MAX"),
        ({"train_scale": 200}, "at least the crop size, 224, .* Received: 200"),
        ({"train_scale": (256, 32769)}, "at most 32768. Received: 256:32769"),
        ({"dropout": 1.5}, "dropout must be from 0 to 1"),
        ({"epochs": 0}, "epochs must be from 1"),
        ({"initialisation": "he"}, "gaussian, gaussian-0.1, glorot"),
        ({"precision": "float8"}, "float32, mixed_bfloat16, mixed_float16"),
        ({"on_bad_image": "cry"}, "stop, skip"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_unknown_fields_in_a_file_are_refused():
    with pytest.raises(ValueError, match="must be a recipe"):
        Recipe.from_json('{"nett": "A"}')


def test_recipe_round_trip():
    recipe = Recipe(net="E", train_scale=(256, 512), seed=3)
    for one in (recipe, LocalisationRecipe(trainable="fc")):
        assert Recipe.from_json(one.to_json()) == one
    assert recipe.differences(Recipe(net="E", train_scale=(256, 512))) == ["seed: 3 -> 0"]


@pytest.mark.parametrize(("given", "name"), [("vgg16", "D"), ("a-lrn", "A-LRN")])
def test_an_alias_becomes_the_name_of_the_net(given, name):
    assert Recipe(net=given).net == name
    assert LocalisationRecipe(net=given) == LocalisationRecipe(net=name)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"net": "A"'])
def test_a_text_that_is_not_a_recipe_is_refused(text):
    with pytest.raises(ArgumentError, match="must be a recipe"):
        Recipe.from_json(text)


def test_a_localisation_net_has_4_outputs_per_box():
    """It has 4 outputs for one box, and 4000 for one box per class of ILSVRC (§A.1)."""
    assert Recipe().outputs(1000) == 1000
    assert LocalisationRecipe().outputs(1000) == 4000
    assert LocalisationRecipe(regression="single-class").outputs(1000) == 4


def test_a_recipe_has_data_only_if_they_were_given():
    """Runs of before have "shapes" in their recipe, which was the default."""
    assert {recipe.data for recipe in (*RECIPES.values(), *LOCALISATION_RECIPES.values())} == {""}
    old = json.dumps(json.loads(Recipe().to_json()) | {"data": "shapes"})
    assert Recipe.from_json(old) == Recipe(data="shapes")


def test_training_without_data_writes_nothing(tmp_path):
    from vgg_keras import train
    from vgg_keras.localisation.task import train_localisation
    from vgg_keras.sweeps.space import Sweep
    from vgg_keras.sweeps.tuner import run_sweep

    for run in (train, train_localisation):
        recipe = (RECIPES if run is train else LOCALISATION_RECIPES)["small"]
        with pytest.raises(SourceError, match=r"Data must be given as .*Received: ''"):
            run(recipe, tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"data must be given .*Received: ''"):
        run_sweep(Sweep(RECIPES["paper"], nets=("A",)), tmp_path / "sweep")
    assert not list(tmp_path.iterdir())


class TestDifferences:
    @pytest.mark.parametrize("named", [RECIPES, LOCALISATION_RECIPES], ids=["train", "localise"])
    def test_a_recipe_is_known_by_most_of_its_values(self, named):
        for name, recipe in named.items():
            changed = dataclasses.replace(recipe, net="B", data="shapes", seed=3, epochs=99)
            expression, found = nearest(changed)
            assert found == recipe
            assert eval(expression) is recipe, name

    def test_one_of_another_kind_has_its_own_values_listed(self):
        text = explain_refusal(LocalisationRecipe(), Recipe(net="D"))
        assert "RECIPES" not in text
        assert "regression: per-class -> None" in text

    def test_a_name_that_explains_two_values_is_not_used(self):
        """They were given by themselves."""
        own = dataclasses.replace(RECIPES["paper"], data="a")
        given = dataclasses.replace(own, learning_rate=1e-3, init_layers="all")
        assert nearest(given)[1] != RECIPES["paper"]
        assert "RECIPES" not in explain_refusal(own, given)
        other = dataclasses.replace(RECIPES["paper-384"], data="a")
        expected = '(RECIPES["paper"] -> RECIPES["paper-384"]). Give RECIPES["paper"]'
        assert explain_refusal(own, other) == expected

    @pytest.mark.parametrize(
        ("before", "now", "named"),
        [(12, 40, True), (12, 41, False), (50, 40, False), (40, 40, False)],
    )
    def test_epochs_that_nobody_chose_are_explained(self, before, now, named):
        former, recipe = (dataclasses.replace(RECIPES["small"], epochs=n) for n in (before, now))
        text = ' (40 is the default of RECIPES["small"]; epochs=12 keeps the number that the run '
        expected = f"{text}was begun with)" if named else ""
        assert explain_epochs(former, recipe) == expected
