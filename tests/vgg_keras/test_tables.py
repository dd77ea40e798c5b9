from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from vgg_keras.errors import ArgumentError, PredictionsError
from vgg_keras.nets import NETS, TABLE_1
from vgg_keras.report.appendices import PAPER_TABLES
from vgg_keras.report.matching import matches
from vgg_keras.report.rendering import KINDS, matching_lines, render
from vgg_keras.report.results import read_results
from vgg_keras.report.seeds import OverSeeds
from vgg_keras.report.tables import build_table

TWO_NETS = "(D/[256;512]/256,384,512), (E/[256;512]/256,384,512)"
# The same in proportion for 64-pixel crops.
SMALL_SCALES = {(256, 256): (64, 73, 82), (384, 384): (101, 110, 119), (256, 512): (73, 109, 146)}
SMALL_TRAIN = {(256, 256): (73, 73), (384, 384): (110, 110), (256, 512): (73, 146)}


def member(net="D", train=(73, 146), scales=(73, 109, 146), crop=64, width=0.25, **more):
    return {
        "net": net,
        "train_scale": list(train),
        "crop_size": crop,
        "width": width,
        "protocol": "dense",
        "test_scales": list(scales),
    } | more


def errors(top1=30.07, top5=5.04, **more):
    scored = {"data": "folder:imagenette160", "split": "val", "images": 1982}
    return scored | {"top1_error": top1, "top5_error": top5} | more


def result(top1=30.07, top5=5.04, **more):
    return errors(top1, top5, run="runs/d", flip=True) | member(**more)


def fusion(members, protocol="dense", **more):
    parts = [part | {"protocol": protocol} for part in members]
    return errors(protocol=protocol, members=parts, **more)


def ours(number, *results):
    """Our columns of the rows that have results, by the index of the row in the table."""
    rows = build_table(number, results).rows
    return {i: row[-3:] for i, row in enumerate(rows) if row[-3] is not None}


# The paper's numbers.


@pytest.mark.parametrize(
    ("number", "rows"),
    [(2, 6), (3, 12), (4, 10), (5, 6), (6, 4), (7, 15), (8, 3), (9, 4), (10, 4), (11, 8), (12, 5)],
)
def test_tables_have_the_rows_and_columns_of_the_paper(number, rows):
    table = PAPER_TABLES[number]
    assert (table.number, len(table.rows)) == (number, rows)
    for row in table.rows:
        assert len(row.cells) == len(table.columns)
        assert len(row.values) == len(table.value_columns)


@pytest.mark.parametrize(
    ("number", "row", "cells", "printed"),
    [
        (2, 0, ("A",), (133,)),
        (3, 5, ("C", "[256;512]", "384"), (27.3, 8.8)),
        (3, 11, ("E", "[256;512]", "384"), (25.5, 8.0)),
        (4, 0, ("B", "256", "224,256,288"), (28.2, 9.6)),
        (4, 2, ("C", "384", "352,384,416"), (27.8, 9.2)),
        (4, 9, ("E", "[256;512]", "256,384,512"), (24.8, 7.5)),
        (5, 1, ("D", "multi-crop"), (24.6, 7.5)),
        (5, 5, ("E", "multi-crop & dense"), (24.4, 7.1)),
        (6, 1, ("post-submission", f"{TWO_NETS}, dense eval."), (24.0, 7.1, 7.0)),
        (7, 1, ("VGG (1 net, multi-crop & dense eval.)",), (24.4, 7.1, 7.0)),
        (7, 3, ("GoogLeNet (Szegedy et al., 2014) (1 net)",), (None, 7.9, None)),
        (7, 14, ("Krizhevsky et al. (Krizhevsky et al., 2012) (1 net)",), (40.7, 18.2, None)),
        (8, 2, ("all", "PCR"), (33.1,)),
        (9, 2, ("384", "352,384"), (27.5, None)),
        (9, 3, ("fusion", "256/256 and 384/352,384"), (26.9, 25.3)),
        (10, 3, ("Krizhevsky et al. (Krizhevsky et al., 2012)",), (None, 34.2)),
        (11, 0, ("Zeiler & Fergus (Zeiler & Fergus, 2013)",), (None, 79.0, 86.5, 0.5, 74.2, 0.3)),
        (11, 7, ("VGG Net-D & Net-E",), (89.7, 89.3, 92.7, 0.5, 86.2, 0.3)),
        (12, 4, ("VGG Net-D & Net-E, image and bounding box",), (84.0,)),
    ],
)
def test_rows_have_the_numbers_of_the_paper(number, row, cells, printed):
    found = PAPER_TABLES[number].rows[row]
    assert (found.cells, found.values) == (cells, printed)


SUMS = {  # the sums of the columns in the paper
    2: [815],
    3: [330.6, 109.6],
    4: [266.3, 85.7],
    5: [147.6, 44.2],
    6: [96.3, 28.6, 21.1],
    7: [322.7, 137.8, 123.4],
    8: [103.8],
    9: [112.1, 52.0],
    10: [56.9, 116.1],
    11: [599.8, 601.5, 545.1, 3.6, 408.1, 1.2],
    12: [383.3],
}


@pytest.mark.parametrize("number", SUMS)
def test_columns_have_the_sums_of_the_paper(number):
    columns = zip(*(row.values for row in PAPER_TABLES[number].rows), strict=True)
    assert [round(sum(filter(None, column)), 1) for column in columns] == SUMS[number]


def test_scales_follow_sections_4_1_and_4_2():
    for single in (row.tested[0] for row in PAPER_TABLES[3].rows):
        assert single.test_scales == (sum(single.train_scale) // 2,)
    for multi in (row.tested[0] for row in PAPER_TABLES[4].rows):
        low, high = multi.train_scale
        fixed = (low - 32, low, low + 32)
        assert multi.test_scales == (fixed if low == high else (low, (low + high) // 2, high))


def test_dense_rows_of_table_5_are_those_of_table_4():
    table_4 = {row.tested: row.values for row in PAPER_TABLES[4].rows}
    dense = [row for row in PAPER_TABLES[5].rows if row.protocol == "dense"]
    assert [row.cells[0] for row in dense] == ["D", "E"]
    assert [row.values for row in dense] == [table_4[row.tested] for row in dense]


def test_our_rows_of_table_7_are_those_of_tables_6_and_5():
    def measured(row):
        return row.values[:2], row.protocol, row.tested

    two, one, seven, *others = PAPER_TABLES[7].rows
    assert measured(two) == measured(PAPER_TABLES[6].rows[-1])
    assert measured(one) == measured(PAPER_TABLES[5].rows[-1])
    assert measured(seven) == measured(PAPER_TABLES[6].rows[0])
    assert (two.values, seven.values) == tuple(PAPER_TABLES[6].rows[i].values for i in (-1, 0))
    assert [len(row.tested) for row in (two, one, seven)] == [2, 1, 7]
    assert all(not row.tested for row in others)


def test_nets_of_tables_5_to_7_are_those_of_table_4():
    """Table 3 has the nets of Table 1. Table 4 has every single net that Tables 5 to 7 combine."""
    tested = {n: {t for row in PAPER_TABLES[n].rows for t in row.tested} for n in range(3, 8)}
    assert {one.net for one in tested[3]} == set(TABLE_1) <= set(NETS)
    assert tested[5] | tested[6] | tested[7] < tested[4]


# Our results beside the paper's.


def test_every_row_of_tables_3_to_5_is_matched_by_its_own_test():
    for number in (3, 4, 5):
        for i, row in enumerate(PAPER_TABLES[number].rows):
            (net,) = row.tested
            same = result(
                net=net.net,
                train=net.train_scale,
                scales=net.test_scales,
                crop=224,
                width=1.0,
                protocol=row.protocol,
            )
            assert list(ours(number, same)) == [i]


@pytest.mark.parametrize("index", [4, 5, 6])
def test_proportional_scales_match_at_crop_64(index):
    row = PAPER_TABLES[4].rows[index]
    train = row.tested[0].train_scale
    small = result(train=SMALL_TRAIN[train], scales=SMALL_SCALES[train])
    assert matches(small, PAPER_TABLES[4], row)
    backwards = small | {"test_scales": small["test_scales"][::-1]}
    assert matches(backwards, PAPER_TABLES[4], row)


def test_a_result_is_beside_its_row():
    what = "imagenette160, 1982 images, crop 64, width 1/4"
    assert ours(4, result()) == {6: (30.07, 5.04, what)}
    assert ours(3, result(scales=[109])) == {8: (30.07, 5.04, what)}


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "centre"},
        {"net": "B-shallow"},
        {"train": (73, 73)},
        {"train": (75, 146)},
        {"scales": (73, 109)},
        {"scales": (73, 109, 148)},
        {"scales": (73, 73, 109, 146)},
        {"crop": 96},
        {"crop": 224},
    ],
)
def test_other_results_match_no_row(other):
    assert ours(4, result(**other)) == {}


def test_scales_must_be_equal_at_full_size():
    full = {"train": (256, 256), "crop": 224, "width": 1.0}
    assert list(ours(4, result(scales=(224, 256, 288), **full))) == [4]
    assert ours(4, result(scales=(224, 257, 288), **full)) == {}


@pytest.mark.parametrize("key", ["net", "train_scale", "crop_size", "width", "test_scales"])
def test_an_incomplete_result_matches_no_row(key):
    partial = result()
    del partial[key]
    assert ours(4, partial) == {}


def test_protocols_match_the_rows_of_table_5():
    results = [result(protocol=p) for p in ("multi-crop", "multi-crop+dense", "dense")]
    assert list(ours(5, *results)) == [0, 1, 2]
    assert list(ours(7, result(net="E", protocol="multi-crop+dense"))) == [1]


def test_a_fusion_of_two_nets_matches_in_any_order():
    d, e = member("D"), member("E", width=0.5)
    for protocol, index in (("dense", 1), ("multi-crop", 2), ("multi-crop+dense", 3)):
        for members in ([d, e], [e, d]):
            assert list(ours(6, fusion(members, protocol))) == [index]
    (row,) = ours(7, fusion([d, e], "multi-crop+dense")).values()
    assert row[-1] == "imagenette160, 1982 images, crop 64, width 1/4 and 1/2"


def test_a_fusion_of_seven_nets_matches_its_row():
    members = [
        member(net, SMALL_TRAIN[train], SMALL_SCALES[train])
        for net in "CDE"
        for train in SMALL_TRAIN
        if net == "D" or train != (256, 512)
    ]
    assert list(ours(6, fusion(members))) == [0]
    assert list(ours(7, fusion(members))) == [2]
    assert ours(6, fusion(members[1:])) == {}
    assert ours(6, fusion([*members[1:], members[1]])) == {}  # a net twice is not two nets


def test_other_fusions_match_no_row():
    d, e = member("D"), member("E")
    assert ours(6, fusion([d, d])) == {}
    assert ours(6, fusion([d])) == {}
    assert ours(6, fusion([d, e], "centre")) == {}
    mixed = errors(protocol="dense", members=[d, e | {"protocol": "multi-crop"}])
    assert ours(6, mixed) == {}
    assert ours(6, fusion([d, e]) | {"protocol": "multi-crop"}) == {}
    assert ours(7, fusion([])) == {}
    assert ours(4, fusion([d, e])) == {}


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"data": "folder:/data/ilsvrc/"}, "ilsvrc, 1982 images"),
        ({"data": "tfds:imagenette/160px-v2"}, "imagenette/160px-v2, 1982 images"),
        ({"data": "shapes", "split": "test"}, "shapes test, 1982 images"),
        ({"flip": False}, "imagenette160, 1982 images, no flip"),
    ],
)
def test_a_result_has_its_data_and_size(more, what):
    full = member("E", (256, 512), (256, 384, 512), 224, 1.0)
    assert ours(4, errors() | full | more) == {9: (30.07, 5.04, what)}


def test_table_1_is_the_papers():
    table = build_table(1)
    a_lrn, e = ([row[table.header.index(net)] for row in table.rows] for net in ("A-LRN", "E"))
    assert table.header == TABLE_1
    assert a_lrn[:4] == [
        "11 weight layers",
        "input (224 x 224 RGB image)",
        "conv3-64\nLRN",
        "maxpool",
    ]
    assert e[6] == "\n".join(["conv3-256"] * 4)
    assert e[-4:] == ["FC-4096", "FC-4096", "FC-1000", "soft-max"]
    c = [row[table.header.index("C")] for row in table.rows]
    assert c[6:11:2] == [f"conv3-{n}\nconv3-{n}\nconv1-{n}" for n in (256, 512, 512)]


def test_parameters_of_table_2_are_the_papers_to_the_million():
    table = build_table(2, [result()])
    assert table.header == ("Network", "Number of parameters", "ours")
    assert [row[-1] for row in table.rows] == [132.9, 132.9, 133.0, 133.6, 138.4, 143.7]
    assert all(round(ours) == printed for _, printed, ours in table.rows)


@pytest.mark.parametrize("number", [0, 13, "3"])
def test_unknown_table_lists_the_known_ones(number):
    with pytest.raises(ValueError, match=rf"1, 2, 3, .*10.*\. Received: {number!r}"):
        build_table(number)


# Results beside no row.


@pytest.mark.parametrize(
    ("number", "other", "reason"),
    [
        (4, {"net": "B-shallow"}, "net = B-shallow, but the rows of the table have net = B or C"),
        (
            4,
            {"train": (75, 146)},
            "S = [75;146], but the rows with net = D have S = 73 or 110 or [73;146]",
        ),
        (
            4,
            {"scales": (146, 73)},
            "Q = 73,146, but the rows with net = D, S = [73;146] have Q = 73,110,146",
        ),
        (
            3,
            {"scales": (73,), "crop": 32},
            "S = [73;146], but the rows with net = D have S = 37 or",
        ),
        (5, {"protocol": "centre"}, "have protocol = dense or multi-crop or multi-crop+dense"),
        (
            4,
            {"train": (256, 256), "crop": 224},
            "Q = 73,109,146, but the rows with net = D, S = 256",
        ),
        (9, {}, "no top5_localisation_error, which the table shows"),
        (11, {}, "no mean_ap or mean_class_recall, which the table shows"),
        (6, {}, "net = D, but the rows of the table have net = D + D + D + C + C + E + E or D + E"),
    ],
)
def test_the_first_fact_that_no_row_shares_is_named(number, other, reason):
    (found,) = build_table(number, [result(**other)]).unmatched
    assert reason in found.reason


@pytest.mark.parametrize("key", ["train_scale", "crop_size"])
def test_a_fact_that_a_result_lacks_is_named(key):
    for lacking in (result() | {key: None}, {k: v for k, v in result().items() if k != key}):
        (found,) = build_table(4, [lacking]).unmatched
        assert found.reason == f"{key} of a net is unknown"


def test_conditions_that_no_row_has_are_named():
    (boxes,) = build_table(
        8, [boxes_of_the_true_class(20.0, "single-class", "all"), boxes_of_the_true_class(30.0)]
    ).unmatched
    assert "regression = single-class have tuned = fc" in boxes.reason
    (regions,) = build_table(12, [transferred("voc2012-action", "DE", ("box",))]).unmatched
    assert "with nets = D+E have regions = image or image+box" in regions.reason
    (protocol,) = build_table(11, [transferred("voc2012-action")]).unmatched
    assert protocol.reason.startswith("protocol = voc2012-action, but the table has voc2007 or")


def test_results_with_the_same_reason_share_a_line():
    of_centre = [result(protocol="centre", file=f"{i}.json") for i in range(5)]
    table = build_table(4, [result(file="d.json"), *of_centre])
    count, line = matching_lines(table)
    assert count == "Results found: 6. Beside a row: 1. Beside none: 5:"
    assert line.startswith("- 0.json, 1.json, 2.json and 2 more: protocol = centre, but the rows")
    assert matching_lines(build_table(4, [result()])) == [
        "Results found: 1. Beside a row: 1. Beside none: 0."
    ]
    assert matching_lines(build_table(2, [result()])) == ["Table 2 has no results beside it."]


def test_json_has_the_results_beside_no_row():
    content = json.loads(render(build_table(4, [result(net="A", file="a.json"), result()]), "json"))
    ((left,), compared) = content["unmatched"], content["results"]
    assert (left["file"], compared) == ("a.json", 2)
    assert left["reason"].startswith("net = A, but")


# Localisation.


def localised(regression="per-class", tuned="all", **more):
    net = member(**more) | {"regression": regression, "tuned": tuned}
    return net | {"data": "folder:tiny", "images": 600}


def boxes_of_the_true_class(error, *settings):
    s384 = {"train": (110, 110), "scales": (110,), "protocol": "centre-gt"}
    return localised(*settings, **s384) | {"gt_class_localisation_error": error}


def test_table_8_distinguishes_its_settings():
    found = ours_of_one_number(
        8,
        boxes_of_the_true_class(40.0, "single-class", "fc"),
        boxes_of_the_true_class(30.0),
        boxes_of_the_true_class(20.0, "single-class", "all"),  # not in the paper
    )
    assert found == {0: 40.0, 2: 30.0}


def test_the_fusion_of_table_9_has_different_scales_for_each_net():
    nets = [
        localised(train=(73, 73), scales=(73,)),
        localised(train=(110, 110), scales=(101, 110)),
    ]
    fused = {"members": nets, "protocol": "dense", "images": 600, "data": "folder:tiny"}
    fused |= {"top1_localisation_error": 50.0, "top5_localisation_error": 41.0}
    single = nets[1] | {"top5_localisation_error": 43.0}
    assert ours_of_one_number(9, fused, single) == {2: 43.0, 3: 41.0}
    assert ours_of_one_number(10, fused, single) == {0: 41.0}
    assert ours(4, fused, single) == {}  # a table of classification


def test_a_classification_result_is_not_in_a_localisation_table():
    assert ours_of_one_number(9, result(train=(73, 73), scales=(73,))) == {}


def ours_of_one_number(number, *results):
    rows = build_table(number, results).rows
    return {i: row[-2] for i, row in enumerate(rows) if row[-2] is not None}


# Seeds.


def of_seed(seed, top1, **more):
    own = {"run": f"runs/d-{seed}", "file": f"{seed}.json", "predictions": f"{seed}.parquet"}
    return result(top1=top1, top5=top1 / 10, seed=seed, **own, **more)


def of_seeds(*top1, **more):
    return [of_seed(seed, error, **more) for seed, error in enumerate(top1)]


WHERE = "imagenette160, 1982 images, crop 64, width 1/4"


def test_results_of_several_seeds_are_one_row_of_means():
    """Expected: mean and sample standard deviation, by hand. 30, 31, 35: 32 and sqrt(7)."""
    (row,) = ours(4, *of_seeds(30.0, 31.0, 35.0)).values()
    assert row[0] == OverSeeds(32.0, pytest.approx(7**0.5), 3)
    assert row[1] == OverSeeds(pytest.approx(3.2), pytest.approx(7**0.5 / 10), 3)
    assert row[2] == f"{WHERE}, 3 seeds"
    # The order of the results and copies of one of them do not matter.
    assert ours(4, *of_seeds(30.0, 31.0, 35.0)[::-1]) == {6: row}
    assert ours(4, *of_seeds(30.0, 31.0, 35.0), of_seed(1, 31.0)) == {6: row}


def test_one_seed_is_shown_as_it_is():
    assert ours(4, of_seed(0, 30.0)) == {6: (30.0, 3.0, WHERE)}


@pytest.mark.parametrize(
    "second",
    [
        {"flip": False},
        {"images": 100},
        {"width": 0.5},
        {"data": "folder:other"},
        {"precision": "mixed_bfloat16"},
        {"of_the_future": 1},
    ],
)
def test_results_that_differ_in_more_than_the_seed_are_rows_of_their_own(second):
    results = [of_seed(0, 30.0), of_seed(1, 40.0) | second]
    assert single_errors(4, *results) == [30.0, 40.0]


def test_results_without_a_seed_are_rows_of_their_own():
    assert single_errors(4, result(top1=30.0), result(top1=40.0)) == [30.0, 40.0]


def test_a_seed_with_two_errors_is_not_averaged():
    """Runs of one seed differ in what results do not record, for example the number of epochs."""
    results = [*of_seeds(30.0, 31.0), of_seed(1, 20.0) | {"run": "runs/longer"}]
    assert single_errors(4, *results) == [30.0, 31.0, 20.0]


def single_errors(number, *results):
    return [row[-3] for row in build_table(number, results).rows if row[-3] is not None]


def test_fusions_of_nets_of_one_seed_are_averaged():
    def fused(first, second, top1):
        nets = [member("D", seed=first, run=f"d{first}"), member("E", seed=second)]
        same = {"seed": first} if first == second else {}
        return fusion(nets, top1=top1) | same

    (row,) = ours(6, fused(0, 0, 20.0), fused(1, 1, 22.0)).values()
    assert (row[0].mean, row[0].seeds) == (21.0, 2)
    assert single_errors(6, fused(0, 0, 20.0), fused(0, 1, 22.0)) == [20.0, 22.0]


def test_localisation_errors_are_averaged_over_seeds():
    results = [boxes_of_the_true_class(error) | {"seed": s} for s, error in enumerate((30, 32))]
    assert ours_of_one_number(8, *results) == {2: OverSeeds(31.0, pytest.approx(2**0.5), 2)}
    other_setting = boxes_of_the_true_class(40.0, "single-class", "fc") | {"seed": 1}
    assert ours_of_one_number(8, results[0], other_setting) == {0: 40.0, 2: 30}


def test_transfer_is_averaged_over_seeds_of_the_net_and_of_the_splits():
    for results in (
        [transferred(seed=s, mean_class_recall=90.0 + 2 * s) for s in (0, 1)],
        [of_net_seed(s, mean_class_recall=90.0 + 2 * s) for s in (0, 1)],
    ):
        (row,) = (r[-4:] for r in build_table(11, results).rows if r[-1])
        assert row[0] == "caltech101"
        assert row[1] == OverSeeds(91.0, pytest.approx(2**0.5), 2)
        assert row[3] == "caltech101, 30 a class, fc2 Q = 256,384,512 stack, 2 seeds"


def of_net_seed(seed, **more):
    made = transferred(seed=0, of_splits=[seed], C=[seed], per_class={"a": seed}, **more)
    made["features"] |= {"seed": seed, "digest": f"{seed}"}
    return made


def test_means_are_text_for_readers_and_numbers_for_programs():
    table = build_table(4, [*of_seeds(30.0, 31.0, 35.0), result(net="B", **S256)])
    assert "32.0 ± 2.6 | 3.2 ± 0.3 |" in render(table, "markdown")
    assert "32.0 ± 2.6" in render(table, "text")
    rows = json.loads(render(table, "json"))["rows"]
    assert {key: rows[6][key] for key in list(rows[6])[5:]} == {
        "our top-1 error": 32.0,
        "our top-1 error (sd)": pytest.approx(7**0.5),
        "our top-5 error": pytest.approx(3.2),
        "our top-5 error (sd)": pytest.approx(7**0.5 / 10),
        "measured on": f"{WHERE}, 3 seeds",
        "seeds": 3,
    }
    single = rows[0]
    assert (single["our top-1 error"], single["our top-1 error (sd)"]) == (30.07, None)
    assert single["seeds"] is None
    header, *cells = csv.reader(io.StringIO(render(table, "csv")))
    assert header == list(rows[0])
    assert cells[6][-1] == "3"


S256 = {"train": (73, 73), "scales": (64, 73, 82)}


# Rendering.


def two_results():
    return build_table(4, [result(top1=30.07), result(top1=25.0, width=1 / 3)])


def markdown_rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_markdown_shows_the_papers_cells_once():
    text = render(two_results(), "markdown")
    assert text.startswith("**Table 4: ConvNet performance at multiple test scales (§4.2)**\n\n|")
    header, rule, *rows = markdown_rows(text)
    assert len(rows) == 11
    assert {len(row) for row in (header, rule, *rows)} == {8}
    assert rule == ["---"] * 3 + ["---:"] * 4 + ["---"]
    of = "imagenette160, 1982 images, crop 64, width"
    assert rows[6] == ["D", "[256;512]", "256,384,512", "24.8", "7.5", "30.1", "5.0", f"{of} 1/4"]
    assert rows[7] == [""] * 5 + ["25.0", "5.0", f"{of} 1/3"]
    assert rows[8] == ["E", "256", "224,256,288", "26.9", "8.7", "", "", ""]


def test_markdown_escapes_pipes_and_breaks_lines():
    assert r"| a\|b, 1982 images" in render(build_table(4, [result(data="a|b")]), "markdown")
    assert "| conv3-64<br>LRN |" in render(build_table(1), "markdown")


def test_csv_has_every_cell():
    table = two_results()
    header, *rows = csv.reader(io.StringIO(render(table, "csv")))
    assert header == list(table.header)
    assert rows == [["" if cell is None else str(cell) for cell in row] for row in table.rows]
    assert rows[6][:3] == rows[7][:3] == ["D", "[256;512]", "256,384,512"]
    _, first, *_, last = csv.reader(io.StringIO(render(build_table(1), "csv")))
    assert (first[0], last) == ("11 weight layers", ["soft-max"] * 6)


def test_json_keeps_numbers_and_has_null_for_none():
    content = json.loads(render(two_results(), "json"))
    assert (content["number"], len(content["rows"])) == (4, 11)
    assert content["title"] == "ConvNet performance at multiple test scales (§4.2)"
    first, second, third = content["rows"][6:9]
    assert (first["our top-1 error"], second["our top-1 error"], third["our top-1 error"]) == (
        30.07,
        25.0,
        None,
    )
    assert second["top-1 val. error (%)"] == 24.8
    assert "conv3-64 LRN" in render(build_table(1), "json")


def test_text_is_plain_and_shows_brackets(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = render(build_table(4, [result(data="folder:x[red]y")]), "text", width=150)
    assert "\x1b" not in text
    assert "[256;512]" in text
    assert "x[red]y" in text
    assert max(map(len, text.splitlines())) <= 150


@pytest.mark.parametrize("width", [80, 132])
def test_narrow_text_is_complete(width):
    text = render(build_table(6, [fusion([member("D"), member("E")])]), "text", width)
    assert "…" not in text
    assert all(number in text for number in ("24.7", "30.1"))


def test_text_separates_the_nets_by_lines():
    assert render(build_table(5), "text").count("├") == 1


def test_text_of_table_1_shows_shared_cells_once():
    text = render(build_table(1), "text")
    assert (text.count("maxpool"), text.count("soft-max"), text.count("FC-4096")) == (5, 1, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(1, 8))
def test_every_table_is_rendered_in_every_kind(number, kind):
    text = render(build_table(number), kind)
    assert text.endswith("\n")
    assert "None" not in text


def test_unknown_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"text, markdown, csv, json\. Received: 'html'"):
        render(build_table(2), "html")


def test_rendering_does_not_import_tensorflow_or_rich():
    code = (
        "import sys, vgg_keras.report.rendering; print({'tensorflow', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Reading.


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_objects_and_lists_are_read_in_the_order_of_paths(tmp_path):
    write(tmp_path / "b.json", [result(top1=2.0), result(top1=3.0), {"epoch": 1}])
    write(tmp_path / "a" / "z.json", result(top1=1.0))
    write(tmp_path / "c.json", fusion([member("D"), member("E")]))
    found = read_results(tmp_path)
    assert [one["top1_error"] for one in found] == [1.0, 2.0, 3.0, 30.07]
    assert found[0]["file"] == str(tmp_path / "a" / "z.json")
    assert found[0] == result(top1=1.0) | {"file": found[0]["file"]}


def test_other_content_is_ignored(tmp_path):
    others = ({"net": "D"}, [1, 2], "text", None, 3.5, [], {}, [["a"]], {"protocol": "dense"})
    for i, content in enumerate(others):
        write(tmp_path / f"{i}.json", json.dumps(content))
    write(tmp_path / "journal.jsonl", "{}\n{}\n")
    (tmp_path / "folder.json").mkdir()
    assert read_results(tmp_path) == []


def test_the_same_result_is_read_once(tmp_path):
    write(tmp_path / "a.json", result())
    write(tmp_path / "b.json", [dict(reversed(result().items())), result(top1=1.0)])
    write(tmp_path / "c.json", read_results(tmp_path))  # these have the key `file`
    write(tmp_path / "d.json", result() | {"predictions": "d.parquet", "class_names": ["a"]})
    write(tmp_path / ".tmp-killed/.e.json", "{")  # what a kill leaves behind
    found = read_results(tmp_path)
    assert [(one["top1_error"], one["file"][-6:]) for one in found] == [
        (30.07, "d.json"),  # the one that has predictions
        (1.0, "b.json"),
    ]


@pytest.mark.parametrize("content", [b"{", b"", b'"\xff"'])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(PredictionsError, match=r"broken\.json must hold JSON: "):
        read_results(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"a folder that exists\. Received: .*nowhere"):
        read_results(tmp_path / "nowhere")


# Generalisation.


def transferred(protocol="caltech101", nets="D", regions=("image",), **more):
    members = [
        {
            "net": net,
            "region": region,
            "layer": "fc2",
            "crop_size": 224,
            "width": 1,
            "test_scales": [256, 384, 512],
            "aggregate": "stack",
        }
        for net in nets
        for region in regions
    ]
    key = "mean_class_recall" if protocol.startswith("caltech") else "mean_ap"
    features = members[0] if len(members) == 1 else {"members": members}
    return {
        "protocol": protocol,
        key: 90.0,
        "spread": 0.4,
        "images": 100,
        "train_per_class": 30,
        "data": "tfds:caltech101",
        "split": "random",
        "features": features,
    } | more


@pytest.mark.parametrize(
    ("number", "made", "index"),
    [
        (11, {"nets": "D"}, 5),
        (11, {"nets": "E", "protocol": "voc2012"}, 6),
        (11, {"nets": "ED"}, 7),
        (11, {"nets": "A"}, None),
        (11, {"nets": "D", "regions": ("image", "box")}, None),
        (11, {"nets": "D", "protocol": "custom"}, None),
        (11, {"nets": "DE", "protocol": "voc2012-action"}, None),
        (12, {"nets": "DE", "protocol": "voc2012-action"}, 3),
        (12, {"nets": "DE", "protocol": "voc2012-action", "regions": ("image", "box")}, 4),
        (12, {"nets": "D", "protocol": "voc2012-action"}, None),
    ],
)
def test_features_are_beside_the_row_of_their_nets(number, made, index):
    rows = build_table(number, [transferred(**made), result(), localised()]).rows
    found = {i: row[-4:] for i, row in enumerate(rows) if row[-4] is not None}
    assert set(found) == ({index} if index is not None else set())
    for protocol, ours, spread, of in found.values():
        assert (protocol, ours, spread) == (made.get("protocol", "caltech101"), 90.0, 0.4)
        assert of == "caltech101, 30 a class, fc2 Q = 256,384,512 stack"


def test_features_have_their_data_layer_and_size():
    other = transferred(data="folder:/data/caltech20/", train_per_class=None, split="val")
    other["features"] |= {
        "layer": "block3_pool",
        "test_scales": [96],
        "width": 0.25,
        "crop_size": 64,
    }
    (row,) = (r for r in build_table(11, [other]).rows if r[-1])
    assert row[-1] == "caltech20, split val, block3_pool crop 64 width 0.25 Q = 96"


def test_transfer_results_are_read(tmp_path):
    write(tmp_path / "f.json", transferred())
    assert [r["protocol"] for r in read_results(tmp_path)] == ["caltech101"]
