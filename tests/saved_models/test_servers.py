"""The clients, with servers that implement the interfaces of TensorFlow Serving."""

from __future__ import annotations

import functools
import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import tensorflow as tf
from click.testing import CliRunner
from tensorflow_serving.apis import prediction_log_pb2, prediction_service_pb2_grpc

from benchmarks.cpp_loader import LoaderError
from tests.saved_models import servers
from tests.saved_models.servers import PredictionService, RestHandler, grpc_server, http_server
from vgg_keras import TrainedNet
from vgg_keras.cli import main
from vgg_keras.saved_models.client import classify, connect
from vgg_keras.saved_models.errors import RequestError
from vgg_keras.saved_models.records import Request, examples, prediction_log
from vgg_keras.saved_models.tensors import image_inputs
from vgg_keras.serving import verify
from vgg_keras.serving.expectations import Expectations

# `vgg_keras.serving.verify` is the function; this is its module.
VERIFY = sys.modules["vgg_keras.serving.verify"]
SIGNATURES = ["serving_default", "images", "crops", "features", "classify"]


@pytest.fixture(scope="module")
def service(served):
    return PredictionService(served)


@pytest.fixture(scope="module")
def grpc_address(service):
    with grpc_server(service) as address:
        yield address


@pytest.fixture(scope="module")
def rest_address(served):
    class Handler(RestHandler):
        model = served

    with http_server(Handler) as address:
        yield address


@pytest.fixture(scope="module", autouse=True)
def _expect_once():
    """What a net gives for some photos is computed once, whatever server is compared with it."""
    found = {}

    def expectations(net, metadata, photos, verbose):
        if (net, *photos) not in found:
            found[net, *photos] = Expectations(net, metadata, photos, verbose).all()
        return SimpleNamespace(all=lambda localisers: found[net, *photos])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedNet, "in_precision", functools.cache(TrainedNet.in_precision))
        patch.setattr(VERIFY, "Expectations", expectations)
        yield


@pytest.fixture(scope="module")
def other(net):
    """The same net with another bias."""
    changed = TrainedNet.load(net.name)
    bias = changed.model.get_layer("fc1").bias
    bias.assign(bias + 0.01)
    return changed


@pytest.fixture(params=["grpc", "http"])
def url(request, grpc_address, rest_address):
    if request.param == "grpc":
        return f"grpc://{grpc_address}/{servers.NAME}"
    return f"http://{rest_address}/v1/models/{servers.NAME}"


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if array.dtype == object:
            assert found[name].tolist() == array.tolist()
        else:
            np.testing.assert_allclose(found[name], array, atol=1e-6)


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_every_signature_answers(url, version, signature, served, images):
    rng = np.random.default_rng(0)
    inputs = {
        "images": {"images": rng.uniform(0, 255, (2, 40, 52, 3)).astype(np.float32)},
        "crops": {"crops": rng.uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)},
        "classify": examples(images[:2]),
    }.get(signature, image_inputs(images[:2]))
    same(connect(url + version).predict(inputs, signature), served.run(signature, inputs))


def test_images_are_sent_in_batches(grpc_address, service, images):
    server = connect(f"grpc://{grpc_address}/{servers.NAME}")
    service.batches.clear()
    answers = list(classify(server, iter(images), batch_size=2))
    assert service.batches == [2, 2, 1]
    one_by_one = list(classify(server, images, batch_size=1))
    assert [a.classes for a in answers] == [a.classes for a in one_by_one]


def test_answers_have_names_and_errors(url, images):
    good, bad = classify(connect(url), [images[0], b"no image"])
    assert good.error == ""
    assert len(good.class_names) == 3
    assert 1 >= good.probabilities[0] >= good.probabilities[2] > 0
    assert bad.error == "cannot be read as a JPEG or PNG image"
    assert (bad.classes, bad.class_names, bad.probabilities) == ((-1,) * 3, ("",) * 3, (0.0,) * 3)


def test_messages_of_the_server_are_passed_on(url):
    with pytest.raises(RequestError, match=r"not found"):
        connect(url.replace(servers.NAME, "other")).predict(image_inputs([b""]))
    with pytest.raises(RequestError, match=r"(NOT_FOUND|404).*not found"):
        connect(f"{url}/versions/9").predict(image_inputs([b""]))
    with pytest.raises(RequestError, match="guess"):
        connect(url).predict(image_inputs([b""]), "guess")


def test_the_test_server_refuses_undocumented_requests(rest_address):
    url = f"http://{rest_address}/v1/models/{servers.NAME}:predict"
    image = {"b64": "AAAA"}
    for body in (
        {"inputs": {"image_bytes": [image]}, "other": 1},
        {"inputs": {"image_bytes": [image]}, "instances": [image]},
        {"inputs": {"image_bytes": [image | {"kind": "JPEG"}]}},
        {"inputs": {"image_bytes": [{"b64": "A-_="}]}},
        {"inputs": {"pixels": [image]}},
    ):
        assert requests.post(url, json=body, timeout=60).status_code == 400, body
    rows = requests.post(url, json={"instances": [image, {"image_bytes": image}]}, timeout=60)
    assert rows.status_code == 400
    rows = requests.post(url, json={"instances": [image, image]}, timeout=60).json()
    assert [row["classes"] for row in rows["predictions"]] == [[-1] * 3] * 2


def test_a_server_that_is_slow_or_absent_is_an_error(served):
    class Slow(RestHandler):
        model = served

        def do_POST(self):
            time.sleep(1)

    with http_server(Slow) as address, pytest.raises(RequestError, match="timed out"):
        connect(f"http://{address}/v1/models/tiny", timeout=0.1).predict(image_inputs([b""]))
    with pytest.raises(RequestError, match="does not answer"):
        connect("http://localhost:1/v1/models/tiny").predict(image_inputs([b""]))
    with pytest.raises(RequestError, match="UNAVAILABLE"):
        connect("grpc://localhost:1/tiny").predict(image_inputs([b""]))


def test_answers_of_another_model_are_an_error(served):
    class Other(RestHandler):
        def do_POST(self):
            self._reply(200, {"outputs": [[0.1, 0.9]]})

    class NoJson(RestHandler):
        def do_POST(self):
            self.send_error(502, "Bad Gateway")

    with http_server(Other) as address, pytest.raises(RequestError, match=r"Its outputs: outputs"):
        list(classify(connect(f"http://{address}/v1/models/tiny"), [b""]))
    with http_server(NoJson) as address, pytest.raises(RequestError, match=r"answers 502 Bad .*<"):
        list(classify(connect(f"http://{address}/v1/models/tiny"), [b""]))


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [[None, None]]},
        {"classes": 3},
        {"classes": [[1, 2], [3]]},
        {"class_names": [[1, 2]]},
        {"class_names": [[{"b64": "AAAA"}, "b"]]},
        {"probabilities": [["a", "b"]]},
        {"error": [""] * 2},
        {"error": []},
        {"error": [None]},
    ],
)
def test_malformed_outputs_are_an_error_that_shows_them(change):
    answer = {"classes": [[1, 2]], "class_names": [["a", "b"]], "probabilities": [[0.9, 0.1]]}

    class Nonsense(RestHandler):
        def do_POST(self):
            self._reply(200, {"outputs": answer | {"error": [""]} | change})

    with http_server(Nonsense) as address, pytest.raises(RequestError) as error:
        list(classify(connect(f"http://{address}/v1/models/tiny"), [b""]))
    assert next(iter(change)) in str(error.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"outputs": {"cla'])
def test_an_incomplete_answer_is_an_error_that_shows_it(body):
    class Cut(RestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http_server(Cut) as address, pytest.raises(RequestError) as error:
        list(classify(connect(f"http://{address}/v1/models/tiny"), [b""]))
    assert (body.decode() or "nothing") in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8501/v1/models/x",
        "http://localhost:8501/x",
        "grpc://localhost:8500",
        "ftp://h/x",
        "http://localhost/v1/models/x:predict",
        "http://localhost/v1/models/x?key=1",
        "grpc://localhost:8500/x/versions/one",
    ],
)
def test_urls_of_another_form_are_refused(url):
    with pytest.raises(ValueError, match="Received: "):
        connect(url)


def test_warmup_records_replay(exported, grpc_address, service):
    import grpc

    file = exported / "assets.extra/tf_serving_warmup_requests"
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(file))]
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    replayed = []
    with grpc.insecure_channel(grpc_address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for log in logs:
            if log.WhichOneof("log_type") == "classify_log":
                request = log.classify_log.request
                result = stub.Classify(request).result.classifications
                assert len(result) == 1
                assert len(result[0].classes) == 3
                assert result[0].classes[0].score > 0
            else:
                request = log.predict_log.request
                outputs = stub.Predict(request).outputs
                assert not any(outputs["error"].string_val if "error" in outputs else ())
            assert request.model_spec.name == "tiny"
            replayed.append(request.model_spec.signature_name)
    assert replayed == SIGNATURES


def test_records_hold_the_messages_of_tensorflow_serving():
    parse = prediction_log_pb2.PredictionLog.FromString
    pixels = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    log = parse(prediction_log("a" * 300, Request("images", {"images": pixels})))
    assert log.WhichOneof("log_type") == "predict_log"
    request = log.predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("a" * 300, "images")
    assert list(request.inputs) == ["images"]
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["images"]), pixels)

    images = [b"one", b"two" * 99]
    log = parse(prediction_log("net", Request("classify", examples(images), "classify")))
    assert log.WhichOneof("log_type") == "classify_log"
    request = log.classify_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("net", "classify")
    values = [
        example.features.feature["image/encoded"].bytes_list.value[0]
        for example in request.input.example_list.examples
    ]
    assert values == images


def test_a_server_is_compared_with_the_net(url, exported, net, other, photos):
    """Every signature, in the C++ loader behind both interfaces."""
    checks, load_seconds = verify(exported, net, photos[:2], url=url, repeats=1)
    assert load_seconds is None
    assert {check.signature for check in checks} == set(SIGNATURES)
    for check in checks:
        assert check.difference <= 1e-5
        assert check.seconds > 0
        assert (check.passed, check.skipped) == (True, "")
    checks, _ = verify(exported, other, photos[:1], url=url, repeats=1)
    assert not any(check.passed for check in checks)


@pytest.mark.parametrize("refused", ["classify", "features"])
def test_only_classify_may_be_refused_by_a_server(
    refused, served, exported, net, photos, monkeypatch
):
    """`classify` is not made for Predict requests and may be refused; the others may not."""
    monkeypatch.setattr(VERIFY, "load_source", lambda _: net)

    class Strict:
        signatures = served.signatures

        def run(self, signature, inputs):
            if signature == refused:
                raise LoaderError(f"{refused} is not for Predict")
            return served.run(signature, inputs)

    class Handler(RestHandler):
        model = Strict()

    with http_server(Handler) as address:
        url = f"http://{address}/v1/models/{servers.NAME}"
        command = ["verify", str(exported), str(photos[0]), "--url", url, "--repeats", "1"]
        done = CliRunner().invoke(main, command)
        if refused == "features":
            assert done.exit_code == 1
            assert "features is not for Predict" in done.output
            return
        assert done.exit_code == 0, done.output
        assert "classify was skipped: " in done.output
        assert "400 classify is not for Predict" in " ".join(done.output.split())
        found = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert found["load_seconds"] is None
    skipped = {check["signature"]: check for check in found["results"] if check["skipped"]}
    assert list(skipped) == ["classify"]
    assert (skipped["classify"]["difference"], skipped["classify"]["passed"]) == (None, True)


def test_the_request_command_prints_classes_and_errors(url, photos, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    done = CliRunner().invoke(main, ["request", "--url", url, str(photos[0])])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == str(photos[0])
    assert done.stdout.count(" %  ") == 3
    done = CliRunner().invoke(main, ["request", "--url", url, "--json", str(bad), str(photos[0])])
    assert done.exit_code == 1
    found = json.loads(done.stdout)["results"]
    assert [answer["image"] for answer in found] == [str(bad), str(photos[0])]
    assert "cannot be read" in found[0]["error"]
    assert found[1]["top"][0]["posterior"] > 0
    assert found[1]["top"][0].keys() == {"class", "name", "posterior"}
    done = CliRunner().invoke(main, ["request", "--url", url, str(tmp_path / "none.jpg")])
    assert done.exit_code == 1
    assert "There is no such file" in done.output
