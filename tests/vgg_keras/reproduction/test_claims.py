"""The claims of the paper: the data, and their verdicts on made-up results of known differences."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vgg_keras import Predictions, fuse
from vgg_keras.cli import main
from vgg_keras.features.svm import transfer
from vgg_keras.features.table import Features, normalised
from vgg_keras.localisation.results import Localised
from vgg_keras.pipelines.boxes import Boxes
from vgg_keras.report.matching import matches
from vgg_keras.report.results import read_results
from vgg_keras.reproduction import verdicts
from vgg_keras.reproduction.claims import CLAIMS
from vgg_keras.reproduction.paired import Difference
from vgg_keras.reproduction.verdicts import CONTRADICTED, HOLDS, MISSING, UNDECIDED

IMAGES = 400
JITTERED = ((256, 512), (256, 384, 512))


def right_on(count, images=IMAGES):
    """The first images are right."""
    return np.arange(images) < count


def predictions(net, right, seed=0, train=(256, 256), test=(256,), protocol="dense", **more):
    """Predictions of a net that is right on some images."""
    right = np.asarray(right)
    posteriors = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]).astype(np.float32)
    metadata = {
        "run": f"runs/{net}-{seed}",
        "net": net,
        "train_scale": list(train),
        "crop_size": 224,
        "width": 1,
        "seed": seed,
        "protocol": protocol,
        "test_scales": list(test),
        "data": "folder:made-up",
        "split": "val",
    }
    if seed is None:
        del metadata["seed"]
    names = [f"{i}.jpg" for i in range(len(right))]
    labels = np.zeros(len(right), int)
    return Predictions(names, labels, posteriors, ("x", "y"), metadata | more)


def save(folder, *found):
    for one in found:
        file = f"{len(list(folder.iterdir()))}.parquet"
        one.save(folder / file)


def all_of(folder, claim):
    """The tests of one claim."""
    return [one for one in verdicts.test_claims(read_results(folder)) if one.claim.id == claim]


def only(folder, claim):
    (one,) = all_of(folder, claim)
    return one


class TestData:
    def test_ids_are_unique_and_statements_are_told_apart(self):
        assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
        assert len({claim.statement for claim in CLAIMS}) == len(CLAIMS)

    def test_the_paper_agrees_with_itself(self):
        """Its own numbers, which have no intervals, have the sign of each claim."""
        for claim in CLAIMS:
            gain = claim.papers_gain()
            if gain is None:
                assert claim.id.startswith("stack-over-")
            elif claim.helps:
                assert gain > 0, claim.id
            else:
                assert gain < verdicts.MARGIN, claim.id

    @pytest.mark.parametrize(
        ("name", "gain"),
        [
            ("lrn", 29.6 - 29.7),
            ("depth-b-d", 28.7 - 27.0),
            ("small-filters", 7),
            ("both-over-dense", 0.4),
            ("per-class-boxes", 36.4 - 34.3),
            ("dense-boxes", 33.1 - 28.2),
            ("features-over-d", (92.7 - 91.8 + 86.2 - 85.0) / 2),
        ],
    )
    def test_gains_are_those_of_the_tables(self, name, gain):
        (claim,) = (claim for claim in CLAIMS if claim.id == name)
        assert claim.papers_gain() == pytest.approx(gain)

    def test_both_sides_of_a_pair_differ_and_one_measure_is_of_one_direction(self):
        for claim in CLAIMS:
            for pair in claim.pairs:
                assert pair.baseline.description != pair.variant.description
                assert pair.baseline.is_error == pair.variant.is_error


def difference(low, high):
    return Difference((low + high) / 2, low, high, 3, 1000)


HELPS, DOES_NOT = (
    next(claim for claim in CLAIMS if claim.id == name) for name in ("depth-a-b", "lrn")
)
BOUNDS = st.floats(-100, 100)


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "helps", "does_not_help"),
        [
            (0.1, 2, HOLDS, CONTRADICTED),
            (-2, -0.1, CONTRADICTED, HOLDS),
            (-0.4, 0.4, UNDECIDED, HOLDS),
            (-0.4, 0.6, UNDECIDED, UNDECIDED),
            (0.1, 0.3, HOLDS, CONTRADICTED),
            (0, 0.3, UNDECIDED, HOLDS),
        ],
    )
    def test_it_follows_from_the_interval(self, low, high, helps, does_not_help):
        found = difference(low, high)
        assert verdicts.verdict(HELPS, found) == helps
        assert verdicts.verdict(DOES_NOT, found) == does_not_help

    @given(BOUNDS, BOUNDS)
    def test_swapped_sides_flip_it(self, one, other):
        low, high = sorted((one, other))
        flipped = {HOLDS: CONTRADICTED, CONTRADICTED: HOLDS, UNDECIDED: UNDECIDED}
        found = verdicts.verdict(HELPS, difference(low, high))
        assert verdicts.verdict(HELPS, difference(-high, -low)) == flipped[found]


class TestPredictions:
    @pytest.mark.parametrize(
        ("of_b", "expected"), [(260, HOLDS), (200, UNDECIDED), (140, CONTRADICTED)]
    )
    def test_known_differences_get_the_right_verdict(self, tmp_path, of_b, expected):
        for seed in range(3):
            save(tmp_path, predictions("A", right_on(200), seed))
            save(tmp_path, predictions("B", right_on(of_b + seed), seed))
        found = only(tmp_path, "depth-a-b")
        assert found.verdict == expected
        assert found.difference.points == pytest.approx(100 * (of_b + 1 - 200) / IMAGES)
        assert (found.difference.seeds, found.difference.images) == (3, IMAGES)
        assert found.papers_gain == pytest.approx(0.9)
        assert (found.pairs, found.notes) == (1, ())
        assert found.measured_on == "made-up"

    def test_what_does_not_help_holds_near_zero(self, tmp_path):
        many = right_on(3000, 6000)
        save(tmp_path, predictions("A", many), predictions("A-LRN", many))
        assert only(tmp_path, "lrn").verdict == HOLDS

    def test_images_are_paired_by_name(self, tmp_path):
        """Read in another order they would differ on most images."""
        right = right_on(200)
        first, second = predictions("A", right), predictions("B", right)
        order = np.random.default_rng(0).permutation(IMAGES)
        second = Predictions(
            [second.names[i] for i in order],
            second.labels,
            second.posteriors[order],
            second.class_names,
            second.metadata,
        )
        save(tmp_path, first, second)
        found = only(tmp_path, "depth-a-b").difference
        assert found.points == 0
        assert found.high < 1

    def test_a_claim_is_the_mean_over_its_pairs(self, tmp_path):
        for net, gain in (("D", 40), ("E", 20)):
            for protocol, right in (("dense", 200), ("multi-crop", 200 + gain)):
                save(tmp_path, predictions(net, right_on(right), 0, *JITTERED, protocol))
        found = only(tmp_path, "multi-crop")
        assert found.difference.points == pytest.approx(100 * 30 / IMAGES)
        assert found.pairs == 2

    def test_pairs_without_results_are_named_and_the_papers_gain_is_of_the_others(self, tmp_path):
        save(tmp_path, predictions("D", right_on(200), train=(384, 384), test=(384,)))
        save(tmp_path, predictions("D", right_on(260), train=(256, 512), test=(384,)))
        found = only(tmp_path, "training-jitter")
        assert (found.verdict, found.pairs) == (HOLDS, 1)
        assert found.papers_gain == pytest.approx(26.8 - 25.6)
        assert "There is no result of C/256/256, dense; C/[256;512]/384, dense;" in found.notes[0]

    def test_fusions_and_groups(self, tmp_path):
        """A fusion has the seed of its nets; results of other data are a group of their own."""
        for seed in range(2):
            d, e = (predictions(net, right_on(200), seed, *JITTERED) for net in "DE")
            both = fuse([d, e])
            assert both.metadata["seed"] == seed
            better = predictions("D", right_on(300), seed).posteriors
            both = Predictions(both.names, both.labels, better, both.class_names, both.metadata)
            save(tmp_path, d, e, both)
        assert "seed" not in fuse([predictions("D", right_on(1), seed) for seed in (0, 1)]).metadata
        for seed in range(2):
            d = predictions("D", right_on(200), seed, *JITTERED, data="folder:other", width=0.25)
            save(tmp_path, d)
        first, second = all_of(tmp_path, "fusion-over-d")
        assert (first.measured_on, first.verdict) == ("made-up", HOLDS)
        assert (second.measured_on, second.verdict) == ("other, width 1/4", MISSING)
        assert first.difference.seeds == 2

    def test_the_shallow_net_is_compared_on_the_central_crop(self, tmp_path):
        for net, right in (("B-shallow", 200), ("B", 260)):
            save(tmp_path, predictions(net, right_on(right), protocol="centre"))
        found = only(tmp_path, "small-filters")
        assert (found.verdict, found.papers_gain) == (HOLDS, 7.0)


class TestMissing:
    def test_without_results_every_claim_names_both_sides(self):
        found = verdicts.test_claims([])
        assert [one.claim for one in found] == list(CLAIMS)
        assert {one.verdict for one in found} == {MISSING}
        for one in found:
            assert all(side.description in one.notes[0] for side in one.claim.sides)

    def test_a_side_and_a_seed_are_named(self, tmp_path):
        save(tmp_path, predictions("A", right_on(200), 0), predictions("A", right_on(200), 1))
        found = only(tmp_path, "depth-a-b")
        assert (found.verdict, found.difference) == (MISSING, None)
        assert found.notes == ("There is no result of B/256/256, dense.",)
        save(tmp_path, predictions("B", right_on(300), 1))
        found = only(tmp_path, "depth-a-b")
        assert (found.verdict, found.difference.seeds) == (HOLDS, 1)
        assert found.notes == ("B/256/256, dense: seed 0 is missing.",)

    def test_several_results_of_one_seed_are_not_used(self, tmp_path):
        save(tmp_path, predictions("A", right_on(200), 0), predictions("B", right_on(300), 0))
        save(tmp_path, predictions("B", right_on(310), 0, run="runs/other"))
        found = only(tmp_path, "depth-a-b")
        assert found.verdict == MISSING
        assert "B/256/256, dense: seed 0 has 2 results, and none is used" in found.notes[0]
        assert "2.parquet.json" in found.notes[0]

    def test_other_images_are_not_paired(self, tmp_path):
        save(tmp_path, predictions("A", right_on(200)), predictions("B", right_on(200, 399)))
        found = only(tmp_path, "depth-a-b")
        assert found.verdict == MISSING
        assert "were tested on different images with seed 0" in found.notes[0]

    def test_a_seed_that_not_all_pairs_have_is_ignored(self, tmp_path):
        for seed, nets in ((0, "DE"), (1, "D")):
            for net in nets:
                for protocol in ("dense", "multi-crop"):
                    save(tmp_path, predictions(net, right_on(9), seed, *JITTERED, protocol))
        found = only(tmp_path, "multi-crop")
        assert (found.pairs, found.difference.seeds) == (2, 1)
        assert "Not all comparisons have seed 1, which is ignored." in found.notes

    def test_results_without_predictions_and_damaged_files_are_named(self, tmp_path):
        first, second = predictions("A", right_on(200)), predictions("B", right_on(200))
        (tmp_path / "a.json").write_text(json.dumps(first.result()))
        second.save(tmp_path / "b.parquet")
        (tmp_path / "b.parquet").write_bytes(b"PAR1")
        found = only(tmp_path, "depth-a-b")
        assert found.verdict == MISSING
        assert "a.json does not say which images are right" in found.notes[0]
        assert "b.parquet" in found.notes[1]

    def test_renamed_files_are_found(self, tmp_path):
        save(tmp_path, predictions("A", right_on(200)), predictions("B", right_on(300)))
        for file in sorted(tmp_path.iterdir()):
            file.rename(file.with_name(f"seed0-{file.name}"))
        assert only(tmp_path, "depth-a-b").verdict == HOLDS

    def test_nets_of_unknown_seed_are_paired(self, tmp_path):
        save(tmp_path, predictions("A", right_on(9), None), predictions("B", right_on(99), None))
        assert only(tmp_path, "depth-a-b").verdict == HOLDS


def localised(right, protocol, regression="per-class", tuned="all"):
    """Boxes of a net D at S = Q = 384 that are right on some images."""
    answers = 1 if protocol == "centre-gt" else 2
    count = len(right)
    boxes = np.zeros((count, answers, 4), np.float32)
    boxes[:, -1] = np.where(right[:, None], [0, 0, 1, 1], [0.9, 0.9, 1, 1])
    classes = np.tile([0] if answers == 1 else [1, 0], (count, 1))
    metadata = predictions("D", right, 0, (384, 384), (384,), protocol).metadata
    return Localised(
        tuple(f"{i}.jpg" for i in range(count)),
        np.zeros(count, int),
        Boxes.of_images([[[0, 0, 1, 1]]] * count),
        classes,
        boxes,
        ("x", "y"),
        metadata | {"regression": regression, "tuned": tuned},
    )


def test_localisation_results_are_compared_by_the_measures_of_their_tables(tmp_path):
    localised(right_on(10, 60), "centre-gt", tuned="fc").save(tmp_path / "fc.json")
    localised(right_on(40, 60), "centre-gt").save(tmp_path / "centre.json")
    localised(right_on(50, 60), "dense").save(tmp_path / "dense.json")
    found = only(tmp_path, "all-layers")
    assert (found.verdict, found.difference.images) == (HOLDS, 60)
    assert found.difference.points == pytest.approx(50)
    assert only(tmp_path, "dense-boxes").difference.points == pytest.approx(100 / 6)


def descriptors(aggregate, noise, seed=None):
    """Descriptors of 66 images of three classes; the noise of `aggregate` is its own."""
    rng = np.random.default_rng(len(aggregate))
    labels = np.repeat(np.arange(3), (20, 22, 24))
    values = np.eye(3, 8)[labels] + rng.normal(0, noise, (66, 8))
    metadata = {
        "net": "D",
        "region": "image",
        "test_scales": [96, 128],
        "aggregate": aggregate,
        "crop_size": 96,
        "width": 1,
        "layer": "fc2",
        "data": "folder:calt",
    }
    if seed is not None:
        metadata["seed"] = seed
    targets = np.where(np.arange(3) == labels[:, None], 1, -1).astype(np.int8)
    names = [f"{i}.jpg" for i in range(66)]
    return Features(names, ["all"] * 66, targets, normalised(values), ("a", "b", "c"), metadata)


def test_splits_of_transfer_results_are_paired_and_weighted_by_class(tmp_path):
    results = {}
    for aggregate, noise in (("mean", 0.9), ("stack", 0.2)):
        found = transfer(
            descriptors(aggregate, noise), "caltech101", train_per_class=10, grid=[1.0]
        )
        results[aggregate] = found["mean_class_recall"]
        (tmp_path / f"{aggregate}.json").write_text(json.dumps(found))
    found = only(tmp_path, "stack-over-mean")
    assert found.difference.points == pytest.approx(results["stack"] - results["mean"])
    assert (found.difference.seeds, found.difference.splits) == (1, 3)
    assert (found.pairs, found.papers_gain) == (1, None)
    assert found.notes[1:] == (
        "All splits are of one seed: the interval is over images and splits, and holds for these "
        "nets.",
    )
    assert 36 <= found.difference.images <= 66
    assert found.measured_on == "calt, 10 a class, fc2 crop 96 Q = 96,128"
    assert only(tmp_path, "stack-over-max").verdict == MISSING


def test_splits_are_averaged_before_the_seeds_of_the_nets(tmp_path):
    """Three nets differ, and the splits of each do not: they say nothing of other nets."""
    gains = []
    for seed, noise in enumerate((0.2, 0.5, 0.9)):
        of_sides = {}
        for aggregate, of_side in (("mean", 0.9), ("stack", noise)):
            features = descriptors(aggregate, of_side, seed)
            found = transfer(features, "caltech101", train_per_class=10, grid=[1.0])
            of_sides[aggregate] = found["mean_class_recall"]
            (tmp_path / f"{aggregate}{seed}.json").write_text(json.dumps(found))
        gains.append(of_sides["stack"] - of_sides["mean"])
    found = only(tmp_path, "stack-over-mean")
    assert (found.difference.seeds, found.difference.splits, len(found.notes)) == (3, 3, 1)
    assert found.difference.points == pytest.approx(np.mean(gains))
    least = stats.t.ppf(0.975, 2) * np.std(gains, ddof=1) / np.sqrt(3)
    assert found.difference.points - found.difference.low >= least - 1e-9


def test_images_with_a_damaged_record_of_recognition_are_named(tmp_path):
    for aggregate in ("mean", "stack"):
        found = transfer(descriptors(aggregate, 0.2), "caltech101", train_per_class=10, grid=[1.0])
        found["recognised"]["labels"].pop()
        (tmp_path / f"{aggregate}.json").write_text(json.dumps(found))
    found = only(tmp_path, "stack-over-mean")
    assert found.verdict == MISSING
    assert "must have the same length" in found.notes[0]


class TestCommand:
    @pytest.fixture
    def folder(self, tmp_path):
        save(tmp_path, predictions("A", right_on(200)), predictions("B", right_on(260)))
        return tmp_path

    def test_it_prints_a_table_and_notes(self, folder):
        done = CliRunner().invoke(
            main, ["claims", "--results", str(folder), "--format", "markdown"]
        )
        assert done.exit_code == 0, done.output
        (row,) = (line for line in done.stdout.splitlines() if line.startswith("| depth-a-b"))
        assert "| 0.9 | 15.0 | 11." in row
        assert row.endswith("| holds | 1 | 400 | made-up |")
        assert "With one seed, the interval is over images only" in done.stdout
        assert "- depth-b-d: There is no result of D/256/256, dense." in done.stdout
        text = CliRunner().invoke(main, ["claims", "--results", str(folder)]).stdout
        assert "Claims of the paper" in text

    def test_json_has_everything(self, folder):
        done = CliRunner().invoke(main, ["claims", "--results", str(folder), "--json"])
        found = {one["claim"]: one for one in json.loads(done.stdout)["results"]}
        assert found["depth-a-b"]["verdict"] == HOLDS
        assert found["depth-a-b"]["points"] == pytest.approx(15)
        assert found["depth-b-d"]["notes"] == ["There is no result of D/256/256, dense."]
        assert "points" not in found["depth-b-d"]

    def test_tensorflow_is_not_imported(self, folder):
        code = (
            "import sys; from vgg_keras.cli import main\n"
            "main(['claims', '--results', sys.argv[1]], standalone_mode=False)\n"
            "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)


def test_rows_of_a_claim_match_results_at_other_crop_sizes():
    """S and Q in proportion to the crop, as in the tables."""
    metadata = predictions("A", right_on(3), train=(73, 73), test=(73,), crop_size=64).metadata
    result = metadata | {"top1_error": 1.0, "top5_error": 0.0}
    side = DOES_NOT.sides[0]
    assert matches(result, side.table, side.row)
