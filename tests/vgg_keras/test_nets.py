from __future__ import annotations

import dataclasses

import pytest

from vgg_keras.nets import (
    INITIALISATIONS,
    LRN_PRESETS,
    NETS,
    TABLE_1,
    WARM_START_LAYERS,
    configuration_rows,
    get_net,
    num_outputs,
    weight_layers,
)
from vgg_keras.pipelines.errors import ArgumentError

# The exact numbers of Table 2, for 1000 classes.
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}


@pytest.mark.parametrize(
    ("regression", "expected"), [(None, 7), ("per-class", 28), ("single-class", 4)]
)
def test_boxes_have_four_outputs_each(regression, expected):
    assert num_outputs(7, regression) == expected
    assert num_outputs(7) == 7


@pytest.mark.parametrize("name", TABLE_1)
def test_nets_have_the_parameters_of_table_2(name):
    assert sum(layer.parameters for layer in weight_layers(NETS[name])) == PARAMETERS[name]


def test_nets_have_the_weight_layers_of_table_1():
    assert [NETS[name].weight_layers for name in TABLE_1] == [11, 11, 13, 16, 16, 19]


def test_receptive_fields_are_those_of_section_2_3():
    """Two 3x3 layers see 5x5 pixels, three see 7x7; one 5x5 layer sees as much as two 3x3."""
    fields = {l.name: l.receptive_field for l in weight_layers(NETS["B"])}
    shallow = {l.name: l.receptive_field for l in weight_layers(NETS["B-shallow"])}
    assert fields["block1_conv2"] == 5
    for block in range(1, 6):
        assert fields[f"block{block}_conv2"] == shallow[f"block{block}_conv1"]
    c, d = ({l.name: l.receptive_field for l in weight_layers(NETS[n])} for n in "CD")
    assert c["block3_conv3"] == c["block3_conv2"]  # a 1x1 layer adds none
    assert d["block3_conv3"] == d["block3_conv2"] + 8
    assert d["fc1"] == 196 + 16 + 6 * 32  # five poolings and a 7x7 window on stride 32


def test_multiply_adds_equal_a_worked_example():
    conv = next(l for l in weight_layers(NETS["A"]) if l.name == "block1_conv1")
    assert conv.multiply_adds == 224 * 224 * 3 * 3 * 3 * 64
    assert sum(l.multiply_adds for l in weight_layers(NETS["D"])) == 15_470_264_320


def test_warm_start_layers_have_the_shapes_of_net_a():
    """The first four conv. layers of A and its FC layers have the same shapes in B to E (§3.1)."""
    shapes = {l.name: (l.kernel, l.inputs, l.outputs) for l in weight_layers(NETS["A"])}
    assert set(WARM_START_LAYERS[:4]) == set(NETS["A"].conv_names[:4])
    for name in "BCDE":
        other = {l.name: (l.kernel, l.inputs, l.outputs) for l in weight_layers(NETS[name])}
        assert all(shapes[layer] == other[layer] for layer in WARM_START_LAYERS)


def test_width_and_crop_scale_the_layers():
    layers = {l.name: l for l in weight_layers(NETS["A"], 10, crop_size=64, width=0.25)}
    assert [layers[n].outputs for n in ("block1_conv1", "block5_conv2", "fc1")] == [16, 128, 1024]
    assert layers["fc1"].kernel == 2
    assert layers["predictions"].outputs == 10


def test_an_unknown_net_lists_names_and_aliases():
    message = r"A, A-LRN, B, C, D, E, B-shallow, vgg11, vgg13, vgg16, vgg19\. Received: 'F'"
    with pytest.raises(ArgumentError, match=message) as error:
        get_net("F")
    assert error.value.argument == "net"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("vgg11", "A"),
        ("vgg13", "B"),
        ("vgg16", "D"),
        ("VGG19", "E"),
        ("d", "D"),
        ("a-lrn", "A-LRN"),
        ("b-SHALLOW", "B-shallow"),
    ],
)
def test_aliases_and_lower_case_are_accepted(given, name):
    assert get_net(given).name == name


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_its_own_name(name):
    assert get_net(name).name == name


def test_configuration_rows_are_those_of_table_1():
    """A row has one cell per net, or one cell that all nets share."""
    rows = configuration_rows([get_net("A-LRN"), get_net("C")], 10, crop_size=64, width=0.25)
    assert rows[:3] == [
        ("11 weight layers", "16 weight layers"),
        ("input (64 x 64 RGB image)",),
        ("conv3-16\nLRN", "conv3-16\nconv3-16"),
    ]
    assert rows[6] == ("conv3-64\nconv3-64", "conv3-64\nconv3-64\nconv1-64")
    assert [row for row in rows if len(row) == 1].count(("maxpool",)) == 5
    assert rows[-4:] == [("FC-1024",), ("FC-1024",), ("FC-10",), ("soft-max",)]


def test_configuration_rows_are_those_of_the_paper_by_default():
    rows = configuration_rows([get_net("B"), get_net("E")])
    assert rows[1:3] == [("input (224 x 224 RGB image)",), ("conv3-64\nconv3-64",) * 2]
    assert rows[-4:] == [("FC-4096",), ("FC-4096",), ("FC-1000",), ("soft-max",)]


def test_the_smallest_net_has_one_channel_and_one_class():
    layers = weight_layers(NETS["A"], 1, crop_size=32, width=1e-6)
    assert {layer.outputs for layer in layers} == {1}


def test_initial_weights_have_the_standard_deviations_of_section_3_1():
    """The variance of 1e-2 is the paper's word; published code has a standard deviation of 1e-2."""
    assert INITIALISATIONS["gaussian-0.1"] ** 2 == pytest.approx(1e-2)
    assert INITIALISATIONS["gaussian"] == 1e-2


@pytest.mark.parametrize("preset", LRN_PRESETS)
def test_lrn_constants_are_those_of_krizhevsky_and_caffe(preset):
    """Krizhevsky et al.: k = 2, n = 5, alpha = 1e-4, beta = 0.75. Caffe's CaffeNet has the same
    values, but k was always 1, and alpha multiplies the mean of squares, not their sum."""
    k, over = {"krizhevsky": (2, 1), "caffe": (1, 5)}[preset]
    found = LRN_PRESETS[preset]
    assert (found.k, found.size, found.beta) == (k, 5, 0.75)
    assert found.alpha * over == pytest.approx(1e-4)


def test_nets_and_their_parts_cannot_be_changed():
    for value in (NETS["A"], LRN_PRESETS["caffe"], weight_layers(NETS["A"])[0]):
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)


@pytest.mark.parametrize(
    "bad",
    [
        {"crop_size": 50},
        {"crop_size": 0},
        {"crop_size": -32},
        {"width": 0},
        {"width": float("inf")},
        {"num_classes": 0},
    ],
)
def test_bad_geometry_is_refused(bad):
    with pytest.raises(ValueError, match=f"Received: {next(iter(bad))}="):
        weight_layers(NETS["A"], **bad)
