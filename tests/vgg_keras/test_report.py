"""The report page: what it shows, what it reports as missing, and how a browser renders it."""

from __future__ import annotations

import base64
import datetime
import html
import io
import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from tests.conftest import CLASSES, TINY, write_folder
from tests.vgg_keras.test_report_claims import made_up_claims
from vgg_keras.cli import main
from vgg_keras.errors import ArgumentError
from vgg_keras.evaluation.evaluate import evaluate
from vgg_keras.evaluation.fusion import fuse
from vgg_keras.evaluation.predictions import Predictions
from vgg_keras.metadata import rounded
from vgg_keras.pipelines.sources import open_source
from vgg_keras.pipelines.statistics import ILSVRC
from vgg_keras.recipes import Recipe
from vgg_keras.report import analysis
from vgg_keras.report import page as page_module
from vgg_keras.report.claims import MARKS
from vgg_keras.report.page import _table, _unmatched, write_report
from vgg_keras.report.tables import Table, Unmatched
from vgg_keras.reproduction import verdicts
from vgg_keras.trained import TrainedNet
from vgg_keras.training import train
from vgg_keras.version import __version__

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of a tiny run, single and fused, with predictions."""
    folder = tmp_path_factory.mktemp("report")
    spec = write_folder(folder / "data", train=8, val=6)
    recipe = Recipe(**TINY, data=spec, epochs=2, batch_size=8, initialisation="glorot")
    train(recipe, folder / "runs/tiny <a>")
    net, source = TrainedNet.load(folder / "runs/tiny <a>"), open_source(spec)
    dense, crops = (evaluate(net, source, protocol=p) for p in ("dense", "multi-crop"))
    dense.save(folder / "results/dense.parquet")
    crops.save(folder / "results/crops.csv")
    fuse([dense, crops]).save(folder / "results/fusion.parquet")
    return folder / "results"


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("out"), examples=3)


def images_of(text: str) -> list[tuple[str, bytes]]:
    found = re.findall(r'<img src="data:([^;]+);base64,([^"]+)"', text)
    return [(kind, base64.b64decode(content)) for kind, content in found]


class TestPage:
    def test_the_error_of_guessing_is_beside_the_best(self, page):
        assert "Guessing gives 66.67 %" in page.read_text()  # three classes

    def test_the_page_is_self_contained(self, page):
        text = page.read_text()
        assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
        assert not re.findall(r"url\(|@import|<script|<link", text)
        images = images_of(text)
        assert len(images) == text.count("<img")
        for kind, content in images:
            if kind == "image/svg+xml":
                assert b"</svg>" in content
            else:
                Image.open(io.BytesIO(content)).load()

    def test_the_page_shows_results_tables_curves_classes_mistakes_and_maps(self, page, results):
        text = " ".join(html.unescape(page.read_text()).split())
        best = min(
            (json.loads(p.read_text()) for p in results.glob("*.json")),
            key=lambda r: r["top1_error"],
        )
        for piece in (
            f"{best['top1_error']:.2f}",
            "A<br>A",
            "multi-crop",
            *CLASSES,
            "18 images, crop 32, width 1/16",
            f"{best['top1_error']:.2f} % top-1 error</strong>",
            "the best of 3 results",
            "No result stands beside a row of the paper's tables.",
            "<summary>Results that stand beside no row, and why</summary>",
            "Cross-entropy is the training loss without the penalty on the weights (L2)",
            "Learning curves",
            "Top-1 error of each class",
            "most confident mistakes",
            "crop grid",
        ):
            assert piece in text
        kinds = [kind for kind, _ in images_of(page.read_text())]
        assert kinds.count("image/svg+xml") == 6  # curves, classes, confusions; three score maps
        assert "Green columns" not in text  # there are none
        assert text.count("Score maps of") == 3

    def test_what_all_results_are_measured_on_is_said_once(self):
        rows = [["A", "29.6", "30.00", "x"], ["D", "25.0", "", ""], ["E", "25.1", "31.00", "x"]]
        header = ("net", "top-1", "our top-1 error", "measured on")
        for last, shown in (("x", "x"), ("y", "")):
            rows[2][3] = last
            found = _table(Table(3, "t", header, tuple(map(tuple, rows)), 2))
            assert found["measured_on"] == shown
            assert found["header"] == (header[:3] if shown else header)
            assert {len(row) for row in found["rows"]} == {3 if shown else 4}

    def test_results_beside_no_row_have_their_reasons_once(self):
        first = Unmatched("a.json", "no net"), Unmatched("b.json", "no net")
        tables = [
            Table(3, "", (), (), 0, 2, first),
            Table(4, "", (), (), 0, 2, (*first[:1], Unmatched("b.json", "other"))),
        ]
        assert _unmatched(tables) == {
            "no net": {"tables": [3, 4], "files": "a.json, b.json"},
            "other": {"tables": [4], "files": "b.json"},
        }

    def test_the_page_says_when_where_and_how_it_was_made(self, page, results):
        text = html.unescape(page.read_text())
        day = datetime.date.fromtimestamp((results / "dense.parquet.json").stat().st_mtime)
        text = " ".join(text.split())
        environment = json.loads((results.parent / "runs/tiny <a>/environment.json").read_text())
        assert f"Results of {day}" in text
        assert f"Nets trained on {environment['platform']}, TensorFlow" in text
        footer = text[text.index("<footer") :]
        assert f"vgg_keras {__version__}" in footer
        assert "--results" not in footer

    def test_each_data_set_has_a_heading_and_a_best_result(self, results, tmp_path):
        result = json.loads((results / "dense.parquet.json").read_text())
        for name, error in (("a", 40.0), ("b", 20.0), ("b", 30.0)):
            made = {"date": f"2026-01-{error:02.0f}T10:00:00+00:00", "hardware": "2 x GPU"}
            other = result | {"data": f"folder:/x/{name}", "top1_error": error, "provenance": made}
            (tmp_path / f"{name}{error}.json").write_text(json.dumps(other))
        text = write_report(tmp_path, tmp_path / "out", examples=0).read_text()
        headings = re.findall("<h3>(.*)</h3>", text[text.index('id="results"') :])
        assert headings[:2] == ["b", "a"]
        assert re.findall("<strong>(.*?) % top-1", text) == ["20.00", "40.00"]
        assert "Results of 2026-01-20 to 2026-01-40, measured on 2 x GPU." in " ".join(text.split())

    def test_only_tables_with_results_are_shown(self, results, tmp_path):
        result = json.loads((results / "dense.parquet.json").read_text())
        same = {"train_scale": [37, 37], "test_scales": [37], "flip": True}
        for seed, error in enumerate((20.0, 30.0)):
            other = result | same | {"seed": seed, "top1_error": error}
            (tmp_path / f"{seed}.json").write_text(json.dumps(other))
        text = write_report(tmp_path, tmp_path / "out", examples=0).read_text()
        assert re.findall(r"<h3>Table (\d+): ", text) == ["3"]
        assert "25.0 ± 7.1" in text
        assert "18 images, crop 32, width 1/16, 2 seeds" in text

    def test_a_run_with_two_names_has_one_curve(self, results, tmp_path, monkeypatch):
        result = json.loads((results / "dense.parquet.json").read_text())
        for i, run in enumerate((result["run"], "runs/tiny <a>", "../gone")):
            other = result | {"run": run, "top1_error": 10.0 * i}
            (tmp_path / f"{i}.json").write_text(json.dumps(other))
        monkeypatch.chdir(results.parent)
        drawn = []
        monkeypatch.setattr(page_module, "journals_of", lambda runs: drawn.extend(runs) or {})
        monkeypatch.setattr(page_module, "learning_curves", lambda *_, **__: Figure())
        text = write_report(tmp_path, tmp_path / "out", examples=0).read_text()
        assert list(map(str, drawn)) == ["runs/tiny <a>"]
        assert "No training journal is available for" in text

    def test_names_are_escaped(self, page):
        assert "tiny <a>" not in page.read_text()
        assert "tiny &lt;a&gt;" in page.read_text()

    def test_missing_images_and_runs_are_reported(self, results, tmp_path):
        for name, key, value, message in (
            ("data", "data", "folder:/nowhere", "The images are not available"),
            (
                "run",
                "run",
                "/nowhere/run",
                "Score maps need the net, which cannot be loaded: There is no folder /nowhere/run",
            ),
        ):
            folder = tmp_path / name
            shutil.copytree(results, folder)
            for file in folder.glob("*.json"):
                result = json.loads(file.read_text())
                for one in (result, *result.get("members", ())):
                    one |= {key: value} if key in one else {}
                file.write_text(json.dumps(result))
            assert message in write_report(folder, folder / "out").read_text()

    def test_a_weights_file_has_score_maps(self, results, tmp_path):
        run = results.parent / "runs/tiny <a>"
        trained, source = TrainedNet.load(run), open_source(f"folder:{results.parent / 'data'}")
        facts = {"mean": trained.mean, "class_names": trained.class_names, "train_scale": (32, 40)}
        net = TrainedNet.load(run / "best.weights.h5", net="A", **facts)
        evaluate(net, source).save(tmp_path / "weights.parquet")
        text = write_report(tmp_path, tmp_path / "out", examples=2).read_text()
        assert text.count("Score maps of") == 2
        assert "net A, best.weights.h5" in text

    def test_a_model_without_files_has_no_score_maps(self, results, tmp_path):
        net = TrainedNet.load(results.parent / "runs/tiny <a>")
        net = TrainedNet.of_model(
            net.model, mean=net.mean, class_names=net.class_names, train_scale=(32, 40)
        )
        source = open_source(f"folder:{results.parent / 'data'}")
        evaluate(net, source).save(tmp_path / "model.parquet")
        text = write_report(tmp_path, tmp_path / "out").read_text()
        assert "The result names no run, saved net or weights file." in text
        assert "Top-1 error of each class" in text

    def test_missing_predictions_are_reported(self, results, tmp_path):
        result = json.loads((results / "dense.parquet.json").read_text())
        del result["predictions"]
        (tmp_path / "r.json").write_text(json.dumps(result))
        assert (
            "No result here has stored predictions" in write_report(tmp_path, tmp_path).read_text()
        )

    def test_classes_of_ilsvrc_have_distinct_names(self, results, tmp_path):
        """The table of confusions distinguishes the two classes named crane."""
        metadata = json.loads((results / "dense.parquet.json").read_text()) | {"data": "folder:/x"}
        bird, machine, other = "n02012849", "n03126707", "blue"
        rows = np.array([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]], np.float32)
        predictions = Predictions(
            ["a", "b"], np.array([0, 2]), rows, (bird, machine, other), metadata
        )
        predictions.save(tmp_path / "p.parquet")
        text = write_report(tmp_path, tmp_path / "out").read_text()
        for true, found in ((f"crane ({bird})", f"crane ({machine})"), (other, f"crane ({bird})")):
            assert f"<td>{true}</td><td>{found}</td>" in text

    def test_a_folder_without_results_is_refused(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"Predictions\.save .* which holds no results"):
            write_report(tmp_path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
    def test_a_browser_renders_the_page(self, page, tmp_path):
        """Every image loads, nothing is wider than the window, and no two blocks overlap."""
        probe = """<script>window.onload = () => {
          document.querySelectorAll('details').forEach(d => d.open = true);
          const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
          const blocks = [...document.querySelectorAll(
            'h1, h2, h3, p, summary, .wide, img, figcaption')].filter(
            e => e.checkVisibility());
          let overlaps = 0;
          for (const one of blocks) for (const other of blocks) {
            if (one.contains(other) || other.contains(one)) continue;
            const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
            overlaps += a.width && a.height && b.width && b.height &&
                        a.left < b.right - 1 && b.left < a.right - 1 &&
                        a.top < b.bottom - 1 && b.top < a.bottom - 1 ? 1 : 0;
          }
          const wide = document.documentElement.scrollWidth > window.innerWidth;
          document.title = JSON.stringify({images: document.images.length, broken, overlaps, wide});
        }</script>"""
        probed = tmp_path / "page.html"
        probed.write_text(page.read_text().replace("</body>", probe + "</body>"))
        for width in (1280, 500):
            flags = (
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-quic",
                "--virtual-time-budget=5000",
                f"--user-data-dir={tmp_path / str(width)}",
                f"--window-size={width},900",
                "--dump-dom",
                probed.as_uri(),
            )
            done = subprocess.run(
                [BROWSER, *flags], capture_output=True, text=True, timeout=120, check=True
            )
            (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
            seen = json.loads(html.unescape(title))
            assert seen.pop("images") == page.read_text().count("<img")
            assert seen == {"broken": 0, "overlaps": 0, "wide": False}, width


class TestClaims:
    def test_the_page_has_each_claim_with_its_verdict(self, results, tmp_path, monkeypatch):
        found = made_up_claims()
        monkeypatch.setattr(verdicts, "test_claims", lambda read: found)
        text = write_report(results, tmp_path, examples=0).read_text()
        section = re.search('<section id="claims">.*?</section>', text, re.DOTALL)[0]
        assert "<h3>data &lt;1&gt;, crop 32</h3>" in section
        assert "<1>" not in section
        assert "<row>" not in section
        shown = html.unescape(section)
        for one in found:
            cells = one.claim.statement + "\xa0(§" + one.claim.section + ")"
            assert shown.count(cells) == 1
        words = re.findall('<td class="verdict (.*?)">(.*?)</td>', section)
        assert [word for word, _ in words] == [one.verdict for one in found if one.difference]
        assert all(text == f"{MARKS[word].sign} {word}" for word, text in words)
        assert {"holds", "contradicted", "undecided"} == {word for word, _ in words}
        assert "-3.00 to -1.00" in section
        assert "1 claim without" in section
        assert "missing &lt;row&gt;." in section
        assert section.count("<details>") == section.count("<h3>") + 3  # numbers; how, notes, rest
        assert text.index('id="claims"') < text.index('id="results"')


class TestStyle:
    def test_the_page_has_a_dark_style(self, page):
        text = page.read_text()
        dark = text[text.index("@media (prefers-color-scheme: dark)") : text.index("</style>")]
        assert ".chart { filter: invert" in dark
        used = set(re.findall(r"var\((--[a-z]+)\)", text))
        light, dark = (set(re.findall(r"(--[a-z]+): #", part)) for part in text.split("@media")[:2])
        assert used == light == dark

    def test_no_text_is_small(self, page):
        """At least 11 pixels: rem are 16 pixels, and a point is 4/3 of a pixel."""
        text = page.read_text()
        assert min(float(size) for size in re.findall(r"font-size: ([\d.]+)rem", text)) * 16 >= 11
        charts = [content for kind, content in images_of(text) if kind == "image/svg+xml"]
        uris = re.findall(r'srcset="data:image/svg\+xml;base64,([^"]+)"', text)
        assert len(uris) == 2  # curves and classes have a narrow variant
        for svg in (*charts, *map(base64.b64decode, uris)):
            root = ElementTree.fromstring(svg)
            scales = re.findall(rb"scale\(([\d.]+) -", svg)
            assert scales
            # Glyphs are 100 units; the unit of the figure is a point.
            assert min(map(float, scales)) * 100 * 4 / 3 >= 11
            assert root.get("width").endswith("pt")


class TestAnalysis:
    def predictions(self):
        rng = np.random.default_rng(0)
        rows = rng.dirichlet(np.ones(4), 200).astype(np.float32)
        labels = np.minimum(rng.integers(0, 4, 200), 2)  # no image of class d
        return Predictions([str(i) for i in range(200)], labels, rows, tuple("abcd"))

    def test_counts_and_errors_equal_plain_loops(self):
        p = self.predictions()
        counts = analysis.confusion_counts(p)
        for i in range(4):
            for j in range(4):
                pairs = zip(p.labels, p.posteriors, strict=True)
                assert counts[i, j] == sum(y == i and row.argmax() == j for y, row in pairs)
        errors = analysis.class_errors(counts)
        assert np.isnan(errors[3])
        assert errors[0] == pytest.approx(100 * (1 - counts[0, 0] / counts[0].sum()))

    def test_most_frequent_confusions_come_first(self):
        p = self.predictions()
        counts = analysis.confusion_counts(p)
        found = analysis.most_frequent_confusions(counts, p.class_names, 5)
        wrong = counts.copy()
        np.fill_diagonal(wrong, 0)
        assert [c.images for c in found] == sorted(wrong.ravel(), reverse=True)[:5]
        assert all(c.true != c.predicted for c in found)
        assert found[0].share == pytest.approx(
            100 * found[0].images / counts["abcd".index(found[0].true)].sum()
        )

    def test_the_most_confident_predictions_come_first(self):
        p = self.predictions()
        best, found = p.posteriors.max(1), p.posteriors.argmax(1)
        for right in (True, False):
            rows = analysis.most_confident(p, right, 7)
            assert [best[i] for i in rows] == sorted(best[(found == p.labels) == right])[:-8:-1]


class TestCommands:
    def invoke(self, *arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    def test_fuse_equals_the_fusion_of_the_library(self, results, tmp_path):
        files = results / "dense.parquet", results / "crops.csv"
        (result,) = json.loads(self.invoke("fuse", *files, "--json").stdout)["results"]
        expected = json.loads((results / "fusion.parquet.json").read_text())
        for key in ("top1_error", "top5_error", "images", "protocol"):
            assert result[key] == rounded(expected[key])
        line = self.invoke("fuse", *files, "--out", tmp_path / "f.csv").stdout
        assert line.startswith("fusion of net A, Q = 36 + net A, Q = 36, mixed: top-1 error")
        assert len(Predictions.load(tmp_path / "f.csv")) == 18

    def test_fuse_names_a_missing_file(self, tmp_path):
        done = self.invoke("fuse", tmp_path / "a.parquet", tmp_path / "b.parquet")
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert "a.parquet" in done.output

    def test_table_shows_own_results(self, results):
        done = self.invoke("table", 2, "--results", results, "--json")
        assert json.loads(done.stdout)["number"] == 2
        done = self.invoke("table", 3, "--results", results)
        assert "our top-1 error" in done.stdout
        # Tiny's scales are those of no row.
        assert "Results found: 3. Beside a row: 0. Beside none: 3:" in done.stderr
        failed = self.invoke("table", 13)
        assert (failed.exit_code, "must be one of 1, 2, 3" in failed.output) == (1, True)

    def test_report_writes_a_page(self, results, tmp_path):
        done = self.invoke("report", "--results", results, "--out", tmp_path / "r", "--examples", 0)
        assert done.stdout.strip() == str(tmp_path / "r/index.html")
        text = (tmp_path / "r/index.html").read_text()
        assert len(text) > 20_000
        assert f"<code>vgg-keras report --results {results} --out {tmp_path / 'r'}</code>" in text

    def test_evaluate_scores_several_runs_and_their_fusion(self, results, tmp_path):
        """Each run is scored, and so is their fusion, the mean of their stored posteriors."""
        run, other = results.parent / "runs/tiny <a>", tmp_path / "runs/b"
        spec = f"folder:{results.parent / 'data'}"
        train(
            Recipe(**TINY, data=spec, epochs=1, batch_size=8, initialisation="glorot", seed=1),
            other,
        )
        done = self.invoke(
            "evaluate",
            "--run",
            run,
            "--run",
            other,
            "--data",
            spec,
            "--json",
            "--out",
            tmp_path / "all.parquet",
        )
        names = ("all-1-tiny <a>", "all-2-b", "all")
        files = [Predictions.load(tmp_path / f"{name}.parquet") for name in names]
        one, two, both = (file.posteriors for file in files)
        assert np.abs(one - two).max() > 1e-3
        np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-6)
        printed = json.loads(done.stdout)["results"]
        assert printed == rounded([file.result() for file in files])
        assert "provenance" in printed[2]
        assert "provenance" not in printed[2]["members"][0]
        assert [m["run"] for m in printed[2]["members"]] == [str(run), str(other)]
        assert printed[0]["test_scales"] == [36]
        assert len(list((other / "evaluation").glob("*.npy"))) == 1

    def test_evaluate_refuses_runs_of_different_classes_at_once(self, results, tmp_path):
        run = results.parent / "runs/tiny <a>"
        shutil.copytree(run, tmp_path / "other")
        (tmp_path / "other/classes.json").write_text('["x", "y", "z"]')
        done = self.invoke(
            "evaluate",
            "--run",
            run,
            "--run",
            tmp_path / "other",
            "--data",
            f"folder:{results.parent / 'data'}",
        )
        assert "The runs have different classes" in done.output

    def test_evaluate_scores_a_weights_file_like_its_run(self, results):
        run = results.parent / "runs/tiny <a>"
        spec = f"folder:{results.parent / 'data'}"
        shared = ("--data", spec, "--cache-dir", "", "--json", "--no-flip")
        (of_run,) = json.loads(self.invoke("evaluate", "--run", run, *shared).stdout)["results"]
        arguments = (
            "--weights",
            run / "best.weights.h5",
            "--net",
            "vgg11",
            "--train-scale",
            "32,40",
            "--statistics",
            run / "statistics.json",
        )
        (of_file,) = json.loads(self.invoke("evaluate", *arguments, *shared).stdout)["results"]
        for one in (of_run, of_file):
            del one["provenance"]
        assert of_run["flip"] is False
        assert of_file.pop("weights") == str(run / "best.weights.h5")
        assert of_file.pop("input").startswith("RGB in 0..255 minus (")
        assert of_file.pop("source_mean") == rounded(ILSVRC.mean)
        assert of_run.pop("run") == str(run)
        assert of_run.pop("seed") == 0
        assert of_file == of_run

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "Give either --run or --weights."),
            (("--weights", "w.weights.h5", "--net", "A"), "There is no weights file w.weights.h5"),
            (
                ("--run", "r", "--net", "A"),
                "--net goes with --weights; a run or saved net has its own",
            ),
            (("--run", "r", "--weights", "w"), "Give either --run or --weights."),
            (("--run", "r", "--out", "x.txt"), "end in .parquet or .csv"),
            (("--run", "r", "--out", "/proc/nowhere/x.csv"), "/proc/nowhere"),
        ],
    )
    def test_evaluate_refuses_bad_arguments(self, results, arguments, message):
        done = self.invoke("evaluate", "--data", f"folder:{results.parent / 'data'}", *arguments)
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
        assert message in done.output
