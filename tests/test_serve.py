"""The page that counts, and its endpoints: what they answer, whom, and how much they take on."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import types
import zlib
from concurrent import futures

import numpy as np
import pytest
import requests
from matplotlib.path import Path as Polygon
from PIL import Image
from work_folders import kept_logging, only_error, untrained

import cmtl_jax

for _name in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(_name, reason="the page needs requirements-serve.txt")

import browser as browser_lib  # noqa: E402

from cmtl_jax import pictures, trained_model  # noqa: E402
from cmtl_jax.prediction.counter import Count  # noqa: E402
from cmtl_jax.serve import __main__ as command  # noqa: E402
from cmtl_jax.serve import app as app_lib  # noqa: E402
from cmtl_jax.serve import heat, upload  # noqa: E402
from cmtl_jax.serve.limits import Limits  # noqa: E402
from cmtl_jax.serve.results import GoneError, Result, Results  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Flat:
    """Counts as many people as `per_pixel` says, for tests of all but the counting."""

    channels = 1

    def __init__(self, per_pixel=0.01, spacing=None):
        about = {"data": "synthetic-flat"} | ({"head_spacing": spacing} if spacing else {})
        self.trained = types.SimpleNamespace(
            config=types.SimpleNamespace(model=types.SimpleNamespace(name="flat")),
            about=about,
            step=None,
        )
        self.per_pixel = per_pixel

    def __call__(self, image):
        density = np.full(image.shape[:2], self.per_pixel, np.float32)
        return Count(float(density.sum(dtype=float)), density, image[..., 0], "/secret/flat")


@contextlib.contextmanager
def running(counters, limits=Limits(), names=()):
    """The address of a server with these counters."""
    app = app_lib.create(counters, limits, names)
    server = command.server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("work"), name="single_stage")


@pytest.fixture(scope="module")
def counter(workdir):
    return cmtl_jax.load(workdir)


@pytest.fixture(scope="module")
def server(counter):
    with running({"single": counter, "flat": Flat()}) as address:
        yield address


@pytest.fixture(scope="module")
def flat():
    """A server that counts nothing, and takes on little."""
    limits = Limits(upload_bytes=300_000, pixels=500_000)
    with running({"flat": Flat()}, limits, names=["Counter.Example"]) as address:
        yield address


def encoded(size=(40, 56), kind="PNG", seed=0, **more):
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


def send(address, data=None, name="a.png", headers=None, timeout=60, **fields):
    return requests.post(
        f"{address}/api/count",
        files={"file": (name, encoded() if data is None else data)},
        data=fields,
        headers=headers,
        timeout=timeout,
    )


def error_of(answer, status):
    """The one line that says what is wrong; it names no place of this machine."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    text = answer.json()["error"]
    assert text and "\n" not in text
    places = (str(ROOT), tempfile.gettempdir(), sys.prefix, "/secret", "site-packages", ".py")
    assert not [place for place in places if place in answer.text]
    return text


# Counts and maps ---------------------------------------------------------------------------------


def test_the_count_and_maps_of_the_counter(server, counter, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded((90, 120), "JPEG"))
    expected = counter(path)
    zones = {"unit": "pixels", "zones": {"left": [[10, 20], [50, 20], [50, 70], [10, 70]]}}
    answer = send(server, path.read_bytes(), "a.jpg", zones=json.dumps(zones))
    assert answer.status_code == 200
    found = answer.json()
    assert found["count"] == expected.count
    assert (found["name"], found["weights"]) == ("a.jpg", "single")
    assert (found["width"], found["height"], found["scale"]) == (120, 90, 1)
    inside = expected.density[20:70, 10:50].sum(dtype=np.float64)
    assert found["zones"] == pytest.approx({"left": inside}, rel=1e-6)
    assert (found["warning"], found["better_scale"]) == (None, None)  # of weights that do not say

    def part(name, kind):
        answer = requests.get(server + found["links"][name], timeout=30)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        return io.BytesIO(answer.content)

    density = np.load(part("density", "application/octet-stream"))
    np.testing.assert_array_equal(density, expected.density)
    assert density.dtype == np.float32
    with Image.open(part("map", "image/png")) as image:
        assert image.size == (120, 90)
        shown = np.asarray(image.convert("RGBA"))
    assert (shown[..., 3][density == 0] == 0).all() and shown[..., 3].max() == 255
    with Image.open(part("picture", "image/jpeg")) as image:
        assert image.size == (120, 90)
    with Image.open(part("overlay", "image/png")) as image:
        plain = np.asarray(image.convert("RGB"))
    # The same endpoint draws zones, and counts in others than those that came with the picture.
    address = server + found["links"]["overlay"]
    with Image.open(io.BytesIO(requests.post(address, json=zones, timeout=30).content)) as image:
        drawn = np.asarray(image.convert("RGB"))
    assert drawn.shape == plain.shape and (drawn != plain).any()
    halves = {"n": [[0, 0], [1, 0], [1, 0.5], [0, 0.5]], "s": [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]}
    answer = requests.post(
        server + found["links"]["zones"], json={"unit": "fraction", "zones": halves}, timeout=30
    )
    assert sum(answer.json()["zones"].values()) == pytest.approx(expected.count, rel=1e-6)


def test_pictures_are_turned_as_they_say(server):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = send(server, encoded((40, 56), "JPEG", exif=exif)).json()
    assert (found["width"], found["height"]) == (40, 56)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_formats(flat, kind):
    answer = send(flat, encoded((40, 56), kind))
    assert answer.json()["count"] == pytest.approx(0.01 * 40 * 56)


def test_scale_before_counting(flat):
    found = send(flat, encoded((400, 200)), scale=0.5).json()
    assert found["scale"] == 0.5
    # The map keeps the picture's size, and the sum of what was counted at half of it.
    assert (found["width"], found["height"]) == (200, 400)
    assert found["count"] == pytest.approx(0.01 * 200 * 100)
    density = np.load(io.BytesIO(requests.get(flat + found["links"]["density"]).content))
    assert density.shape == (400, 200)
    assert density.sum(dtype=float) == pytest.approx(found["count"], rel=1e-6)


def test_people_closer_than_in_training_are_told():
    trained = {"low": 20.0, "median": 40.0, "high": 80.0}  # 0.01 a pixel: about 10 pixels apart
    with running({"flat": Flat(spacing=trained)}) as address:
        found = send(address, encoded((400, 400))).json()
        assert "closer" in found["warning"] and "--" not in found["warning"]
        assert found["better_scale"] == pytest.approx(4, rel=0.5)
        better = send(address, encoded((400, 400)), scale=1.0)
        assert better.json()["warning"]


def test_weights_to_choose_from(server):
    choices = requests.get(f"{server}/api/weights").json()
    assert [one["name"] for one in choices] == ["single", "flat"]
    assert choices[0] == {
        "name": "single", "model": "single_stage", "trained_on": "synthetic", "step": 3
    }  # fmt: skip
    found = send(server, weights="flat").json()
    assert (found["weights"], found["count"]) == ("flat", pytest.approx(0.01 * 40 * 56))
    assert "single, flat" in error_of(send(server, weights="../sha"), 422)


def test_health(flat):
    found = requests.get(f"{flat}/api/health").json()
    assert (found["status"], found["in_work"]) == ("ok", 0)
    assert found["limits"] == {
        "upload_bytes": 300_000, "pixels": 500_000, "seconds": 300, "waiting": 8
    }  # fmt: skip
    assert found["formats"] == list(pictures.SUFFIXES)


def test_results_are_forgotten(flat):
    found = send(flat).json()
    address = f"{flat}/api/results/{found['id']}"
    assert requests.delete(address).status_code == 204
    for answer in (
        requests.delete(address),
        *(requests.get(flat + found["links"][name]) for name in ("density", "overlay", "map")),
        requests.post(f"{address}/zones", json={"zones": {"a": [[0, 0], [9, 0], [9, 9]]}}),
        requests.get(f"{flat}/api/results/none/map.png"),
    ):
        assert "send the picture again" in error_of(answer, 404)


def test_the_oldest_results_go_first():
    def result(side):
        count = Count(1.0, np.zeros((side, side), np.float32), np.zeros((side, side), np.uint8), "")
        return Result(count, "", 1.0, None, heat.Heat(b"", 1.0, False), 0.0)

    results = Results(most_bytes=3 * 5 * 10 * 10)  # five bytes a pixel, three results
    first, second, third = (results.add(result(10)) for _ in range(3))
    results.get(first)
    fourth = results.add(result(10))
    for key in (first, third, fourth):
        assert results.get(key)
    with pytest.raises(GoneError):
        results.get(second)
    large = results.add(result(100))  # larger than all that may be kept
    assert results.get(large)
    with pytest.raises(GoneError):
        results.get(fourth)


# Bad input ---------------------------------------------------------------------------------------


def png_header(width, height):
    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"",
        b"hello",
        np.zeros(9).tobytes(),
    ],
    ids=["svg", "pdf", "eps", "empty", "text", "zeros"],
)
def test_other_kinds_of_files_are_refused(flat, data, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("handed to Pillow"))
    text = error_of(send(flat, data, "page.png"), 415)
    assert "page.png" in text and ".jpg" in text


def test_damaged_pictures_are_told(flat):
    data = encoded((200, 200), "JPEG")
    text = error_of(send(flat, data[: len(data) // 2], "half.jpg"), 422)
    assert "half.jpg" in text and "truncated" in text
    error_of(send(flat, b"\xff\xd8\xff nothing", "none.jpg"), 422)


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 10_000), (10_000, 1), (750, 750)])
def test_pictures_of_too_many_pixels_are_not_decoded(flat, size, monkeypatch):
    """Sides below 64 count as 64: networks see them padded."""
    monkeypatch.setattr(pictures, "decode", lambda *_: pytest.fail("decoded"))
    text = error_of(send(flat, png_header(*size), "bomb.png"), 413)
    assert "bomb.png" in text and f"{size[0]} x {size[1]}" in text and "500,000" in text


def test_scaled_pictures_of_too_many_pixels(flat):
    assert "limit" in error_of(send(flat, encoded((400, 400)), scale=3), 422)


def test_large_files_are_refused(flat):
    whole = encoded((100, 100))
    assert send(flat, whole + bytes(300_000 - len(whole))).status_code == 200
    text = error_of(send(flat, whole + bytes(300_001 - len(whole)), "big.png"), 413)
    assert "big.png" in text and "0.286102 MiB" in text
    error_of(send(flat, bytes(3_000_000)), 413)


def test_large_bodies_are_refused_before_and_while_they_come(flat):
    host = flat.partition("//")[2]
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.putrequest("POST", "/api/count")
    for name, value in (form | {"Content-Length": "5000000000"}).items():
        connection.putheader(name, value)
    connection.endheaders()  # no byte of the body is sent, and none is waited for
    answer = connection.getresponse()
    assert answer.status == 413 and "MiB" in json.loads(answer.read())["error"]

    def body():  # of a length that nothing declares
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(30):
            yield bytes(100_000)

    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("POST", "/api/count", body(), form, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413 and "MiB" in json.loads(answer.read())["error"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"zones": "{"}, "zones: "),
        ({"zones": '{"zones": {"a": [[1, 2], [3, 4]]}}'}, "zones: zones.a: "),
        ({"zones": '{"zones": {"a": [[1, 2], [3, 4], [5]]}}'}, "zones: zones.a.2"),
        ({"zones": '{"zones": {"a": [[1, 2], [3, NaN], [5, 6]]}}'}, "zones: "),
        ({"zones": '{"zones": {"a": [[1, 2], [3, 4], [5, 900]]}}'}, "outside"),
        ({"zones": '{"zones": {"a": [[0, 0], [9, 9], [9, 0], [0, 9]]}}'}, "cross"),
        ({"zones": '{"zones": {" ": [[0, 0], [9, 0], [9, 9]]}}'}, "name"),
        ({"zones": '{"zones": {}, "more": 1}'}, "zones: more: "),
        ({"zones": json.dumps({"zones": {str(i): [[0, 0], [9, 0], [9, 9]] for i in range(101)}})},
         "zones: zones: "),
        ({"scale": "big"}, "scale: "),
        ({"scale": "1e9"}, "scale: "),
        ({"scale": "nan"}, "scale: "),
        ({"weights": "none"}, "flat"),
    ],
)  # fmt: skip
def test_fields_that_are_not_understood(flat, fields, expected, monkeypatch):
    monkeypatch.setattr(Flat, "__call__", lambda *_: pytest.fail("counted for nothing"))
    assert expected in error_of(send(flat, **fields), 422)


def test_requests_that_are_none(flat):
    assert "file" in error_of(requests.post(f"{flat}/api/count", data={"weights": "flat"}), 422)
    error_of(requests.post(f"{flat}/api/count", data={"file": "text"}), 422)
    broken = {"Content-Type": "multipart/form-data"}
    error_of(requests.post(f"{flat}/api/count", data=b"x", headers=broken), 400)
    error_of(requests.post(f"{flat}/api/count", json={"file": 1}), 422)
    error_of(requests.get(f"{flat}/api/count"), 405)
    key = send(flat).json()["id"]
    error_of(requests.post(f"{flat}/api/results/{key}/zones", data=b"{"), 422)
    deep = b'{"zones": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    answer = requests.post(
        f"{flat}/api/results/{key}/zones", data=deep, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/none", "/app.py", "/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "/page/../app.py",
        "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/", "/page//etc/passwd", "/page.js",
        "//etc/passwd", "/%00", "/redoc", "/docs.html.j2", "/..%5capp.py",
    ],
)  # fmt: skip
def test_no_other_files_are_served(flat, path):
    connection = http.client.HTTPConnection(flat.partition("//")[2], timeout=30)
    connection.request("GET", path)  # as it is, which requests would tidy up
    answer = connection.getresponse()
    assert answer.status == 404 and "error" in json.loads(answer.read())


def test_a_bug_says_nothing_of_the_machine(monkeypatch):
    broken = Flat()
    broken.__class__ = type("Broken", (Flat,), {"__call__": lambda *_: 1 / 0})
    with kept_logging(), running({"flat": broken}) as address:
        assert "internal error" in error_of(send(address), 500)
        assert requests.get(f"{address}/api/health").status_code == 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/photo.jpg", "photo.jpg"),
        ("C:\\fakepath\\photo.jpg", "photo.jpg"),
        ("<img src=x onerror=alert(1)>.png", "<img src=x onerror=alert(1)>.png"),
        ("a\u202egnp.\n\x1b[31mb.png", "agnp.[31mb.png"),
        ("x" * 500 + ".png", "x" * 116 + ".png"),
        ("", "picture"),
        (None, "picture"),
    ],
)
def test_names_of_files(name, shown):
    assert upload.file_name(name) == shown


# Who may ask, and how much -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:1", True), ("localhost:99", True), ("LOCALHOST", True), ("[::1]:8765", True),
        ("192.168.1.7:8765", True), ("counter.example:80", True), ("evil.example", False),
        ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("", False),
        ("evil.example:80@127.0.0.1", True), ("127.0.0.1@evil.example", False), ("[::1", False),
    ],
)  # fmt: skip
def test_foreign_names_are_refused(flat, host, known):
    """A page of evil.example whose name was rebound to this address asks by that name."""
    connection = http.client.HTTPConnection(flat.partition("//")[2], timeout=30)
    connection.putrequest("GET", "/api/health", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = json.loads(answer.read())
    if known:
        assert answer.status == 200
    else:
        assert answer.status == 403 and "--allow-host" in body["error"]


def test_other_pages_are_refused(flat):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost"):
        error_of(send(flat, headers={"Origin": origin}), 403)
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        error_of(requests.options(f"{flat}/api/count", headers=asking), 403)
    assert send(flat, headers={"Origin": flat}).status_code == 200
    assert send(flat, headers={"Origin": "null"}).headers.get("vary") is None


def test_headers_of_every_answer(flat):
    for answer in (
        requests.get(f"{flat}/"),
        requests.get(f"{flat}/page/page.js"),
        requests.get(f"{flat}/docs"),
        requests.get(f"{flat}/none"),
        requests.get(f"{flat}/api/health", headers={"Host": "evil.example"}),
        send(flat),
        send(flat, b"text"),
        requests.get(flat + send(flat).json()["links"]["map"]),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers


class Slow(Flat):
    """Counts when it is let go."""

    def __init__(self):
        super().__init__()
        self.go, self.begun = threading.Event(), threading.Semaphore(0)
        self.at_work = self.most = 0

    def __call__(self, image):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        self.begun.release()
        assert self.go.wait(60)
        self.at_work -= 1
        return super().__call__(image)


def test_one_picture_at_a_time_and_few_that_wait():
    slow = Slow()
    limits = Limits(waiting=2)
    with running({"slow": slow}, limits) as address, futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(send, address) for _ in range(3)]
        assert slow.begun.acquire(timeout=30)
        while requests.get(f"{address}/api/health").json()["in_work"] < 3:
            time.sleep(0.01)
        refused = send(address)
        assert "try again" in error_of(refused, 503) and int(refused.headers["retry-after"]) >= 1
        slow.go.set()
        assert [one.result().status_code for one in asked] == [200] * 3
        assert slow.most == 1
        assert requests.get(f"{address}/api/health").json()["in_work"] == 0
        assert send(address).status_code == 200


def test_requests_end_in_time():
    slow = Slow()
    with running({"slow": slow}, Limits(seconds=2.0)) as address:
        assert "2 s" in error_of(send(address), 504)
        assert slow.begun.acquire(timeout=30)
        error_of(send(address), 504)  # the first one is still being counted
        assert slow.most == 1
        slow.go.set()
        assert send(address).status_code == 200
        time.sleep(0.2)
        assert not slow.begun.acquire(blocking=False) or slow.most == 1
        # Nor is a body waited for.
        connection = http.client.HTTPConnection(address.partition("//")[2], timeout=30)
        connection.putrequest("POST", "/api/count")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"--b\r\n")
        assert connection.getresponse().status == 504


def test_a_server_that_stops_does_not_wait_for_counts():
    slow = Slow()
    with futures.ThreadPoolExecutor(2) as pool:
        with running({"slow": slow}) as address:
            asked = [pool.submit(send, address) for _ in range(2)]
            assert slow.begun.acquire(timeout=30)
            while requests.get(f"{address}/api/health").json()["in_work"] < 2:
                time.sleep(0.01)
            start = time.monotonic()
        assert time.monotonic() - start < 4
        for one in asked:
            assert "stopping" in error_of(one.result(), 503)
        slow.go.set()
    assert slow.most == 1 and not slow.begun.acquire(blocking=False)


def test_nothing_is_written_to_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("written to disk")
    )
    data = encoded((1300, 1300))
    assert len(data) > 2**20
    found = send(server, data, weights="flat").json()
    assert found["width"] == 1300
    for name in ("density", "overlay", "map", "picture"):
        assert requests.get(server + found["links"][name]).status_code == 200
    assert not list(tmp_path.iterdir())


# Description -------------------------------------------------------------------------------------


def test_description_of_the_endpoints(flat):
    api = requests.get(f"{flat}/openapi.json").json()
    assert api["openapi"].startswith("3.")
    described = {(path, method) for path, methods in api["paths"].items() for method in methods}
    assert described == {
        ("/api/count", "post"), ("/api/weights", "get"), ("/api/health", "get"),
        ("/api/results/{id}", "delete"), ("/api/results/{id}/zones", "post"),
        ("/api/results/{id}/overlay.png", "get"), ("/api/results/{id}/overlay.png", "post"),
        *((f"/api/results/{{id}}/{name}", "get")
          for name in ("density.npy", "map.png", "picture.jpg")),
    }  # fmt: skip
    schemas = api["components"]["schemas"]
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas), "not what is answered"
    for path, methods in api["paths"].items():
        for endpoint in methods.values():
            assert endpoint["summary"] and endpoint["description"]
            for status, answer in endpoint["responses"].items():
                if status in ("200", "204"):
                    continue
                content = answer["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Error"}, path
                assert list(content["example"]) == ["error"]
    # Every error that these tests provoke is described, and every field of the answer.
    answers = api["paths"]["/api/count"]["post"]["responses"]
    assert {"200", "400", "403", "413", "415", "422", "503", "504", "default"} == set(answers)
    assert set(send(flat).json()) == set(schemas["Counted"]["properties"])
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(api)))
    assert references == set(schemas)


def test_pages_need_nothing_from_elsewhere(flat):
    home = requests.get(f"{flat}/")
    assert home.headers["content-type"].startswith("text/html")
    docs = requests.get(f"{flat}/docs")
    assert "POST /api/count" in docs.text and "curl -F" in docs.text and flat in docs.text
    parts = [requests.get(f"{flat}/page/{name}") for name in ("page.js", "page.css", "icon.svg")]
    for answer in (home, docs, *parts):
        assert answer.status_code == 200
        foreign = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", answer.text))
        assert foreign <= {"http://www.w3.org"}
        assert "<style" not in answer.text and " style=" not in answer.text  # CSP would drop them
    for link in re.findall(r'(?:href|src)="([^"#]+)"', home.text + docs.text):
        assert requests.get(f"{flat}/{link}").status_code == 200, link
    anchors = set(re.findall(r'href="#(\w+)"', docs.text))
    assert anchors and anchors <= set(re.findall(r'id="(\w+)"', docs.text))


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def main(capfd):
    def call(*arguments):
        with kept_logging():
            status = command.main([*map(str, arguments)])
        return status, *capfd.readouterr()

    return call


def test_a_missing_extra_is_told(main, workdir, monkeypatch):
    real = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name)
    )
    status, out, err = main("--weights", workdir)
    assert (status, out) == (1, "")
    line = only_error(err)
    assert "needs uvicorn;" in line
    assert "cmtl_jax[serve]" in line and "requirements-serve.txt" in line


def test_a_port_in_use_is_told(main, workdir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, out, err = main("--weights", workdir, f"--port={port}")
    assert (status, out) == (1, "")
    assert str(port) in only_error(err) and "--port" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--weights"], ["--port=70000"], ["--timeout=0"], ["--timeout=nan"], ["--queue=-1"],
        ["--max-pixels=1000000000"], ["--max-upload=0"], ["--host=no such host"], ["--port=x"],
    ],
)  # fmt: skip
def test_bad_arguments(main, workdir, arguments):
    with_weights = [] if arguments == ["--weights"] else ["--weights", workdir]
    status, out, err = main(*arguments, *with_weights)
    assert (status, out) == (1, "")
    only_error(err)


def test_weights_that_are_none(main, tmp_path):
    status, out, err = main("--weights", tmp_path / "none", "--port=0")
    assert (status, out) == (1, "")
    assert str(tmp_path / "none") in only_error(err)


def test_all_weights_that_come_along_are_offered_the_default_first(monkeypatch):
    monkeypatch.setattr(trained_model, "shipped", lambda: ["pa", "sha", "shb"])
    assert command._shipped() == ["auto", "pa", "sha", "shb"]


def test_weights_are_named_without_their_place():
    paths = ["runs/sha", "/data/sha/", "w/mcnn.h5", "sha", "runs/a,runs/b"]
    names = ["sha", "sha-2", "mcnn.h5", "sha-3", "a+b"]
    assert command._names(paths) == dict(zip(names, paths))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_as_a_program(workdir, tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, "-m", "cmtl_jax.serve", "--weights", workdir, "--port=0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert workdir.name in line and "Ctrl-C" in line, process.communicate()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        assert requests.get(f"{address}/api/health", timeout=30).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    assert not list(tmp_path.iterdir())


def test_extra_and_requirements_agree():
    lines = (ROOT / "requirements-serve.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["serve"] == wanted


# In a browser ------------------------------------------------------------------------------------


class Page:
    """The page in a browser."""

    def __init__(self, browser, address):
        self.browser = browser
        self.address = address
        self.expected = []
        self.browser.problems = []
        self.browser.open(f"{address}/")
        self.browser.wait("document.querySelector('#weights').options.length > 0")

    def text(self, selector):
        return self.browser.run(f"document.querySelector({json.dumps(selector)})?.textContent")

    def expect(self, status):
        """Browsers report every answer that is an error; those of this status are meant."""
        self.expected.append(f"status of {status}")

    def problems(self):
        self.browser.run("1")  # what came before its answer was reported before
        return [
            text
            for text in self.browser.problems
            if not any(expected in text for expected in self.expected)
        ]

    def texts(self, selector):
        return self.browser.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
        )

    def click(self, selector):
        self.browser.run(f"document.querySelector({json.dumps(selector)}).click()")

    def set(self, selector, value, event="change"):
        self.browser.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('{event}')); }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def box(self, selector):
        return self.browser.run(
            f"(r => [r.left, r.top, r.width, r.height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )

    def drop(self, *paths):
        """Drops files of this machine on the window, as a file manager does."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.browser.call("Input.dispatchDragEvent", type=kind, x=200, y=400, data=data)

    def counted(self, number=1):
        self.browser.wait(
            "document.querySelectorAll('.item-state.done, .item-state.failed').length"
            f" === {number}", 60,
        )

    def zones(self, number):
        """Names and counts in the list, once there are so many."""
        rows = "[...document.querySelectorAll('.zone')]"
        value = "[r.querySelector('input').value, r.querySelector('output').textContent]"
        self.browser.wait(f"{rows}.filter(r => /[0-9–]/.test({value}[1])).length === {number}")
        return self.browser.run(f"{rows}.map(r => {value})")

    def download(self, button, name):
        self.click(button)
        return self.browser.downloaded(name)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = browser_lib.Browser(tmp_path_factory.mktemp("browser"), 1280, 900)
    yield browser
    browser.close()


@pytest.fixture
def page(server, browser):
    page = Page(browser, server)
    yield page
    assert page.problems() == []
    browser.call("Page.navigate", url="about:blank")
    browser.wait("location.href === 'about:blank'")


def inside(points, height, width):
    """Pixels whose centre lies in a polygon, by another library."""
    y, x = np.mgrid[:height, :width] + 0.5
    return Polygon(points).contains_points(np.c_[x.ravel(), y.ravel()]).reshape(height, width)


def test_a_dropped_picture_is_counted(page, counter, shared, tmp_path):
    picture = tmp_path / "IMG_10.png"
    with Image.open(
        shared / "data/ShanghaiTech/part_B_final/test_data/images/IMG_10.jpg"
    ) as whole:
        whole.crop((512, 0, 1024, 384)).save(picture)
    expected = counter(picture)
    page.drop(picture)
    page.counted()
    assert page.text("#count") == f"{expected.count:,.1f}"
    assert page.text("#name") == "IMG_10.png"
    assert "512 × 384" in page.text("#facts")
    # The map lies over the picture, pixel over pixel, and clears up with the slider.
    page.browser.wait("document.querySelector('#map').naturalWidth === 512")
    assert page.box("#map") == page.box("#photo") == page.box("#stage")
    assert page.browser.run("getComputedStyle(document.querySelector('#map')).opacity") == "0.75"
    page.set("#opacity", 20, "input")
    assert page.browser.run("getComputedStyle(document.querySelector('#map')).opacity") == "0.2"
    ticks = page.texts("#ticks span")
    assert len(ticks) == 5 and ticks[0] == "0" and "people per" in page.text("#unit")

    # A zone by mouse, closed by a click on its first corner.
    page.click("#draw")
    left, top, width, height = page.box("#stage")
    corners = [(0.2, 0.3), (0.7, 0.25), (0.8, 0.9), (0.3, 0.7)]
    for x, y in [*corners, corners[0]]:
        page.browser.click(left + x * width, top + y * height)
    ((name, count),) = page.zones(1)
    zones = json.loads(page.download("#save-zones", "IMG_10.zones.json").read_text())
    assert zones["unit"] == "pixels" and list(zones["zones"]) == [name] == ["Zone 1"]
    points = np.array(zones["zones"]["Zone 1"])
    np.testing.assert_allclose(points, np.array(corners) * [512, 384], atol=1.5)
    inner = expected.density[inside(points, 384, 512)].sum(dtype=float)
    assert float(count.replace(",", "")) == pytest.approx(inner, abs=0.06, rel=1e-4)

    # Its corner moves with the mouse; the count follows.
    left, top, width, height = page.box("#stage")
    start, end = ((left + x * width, top + y * height) for x, y in ((0.8, 0.9), (0.9, 0.4)))
    page.browser.drag(*start, *end)
    page.browser.wait(f"document.querySelector('.zone output').textContent !== '{count}'")
    page.zones(1)

    # Renamed as text, whatever it says.
    page.set(".zone input", "<b onclick=x>Stage</b>")
    assert page.browser.run("document.querySelectorAll('#main b').length") == 0
    content = json.loads(page.download("#save-json", "IMG_10.count.json").read_text())
    assert content["count"] == expected.count and content["weights"] == "single"
    (zone,) = content["zones"]
    assert zone["name"] == "<b onclick=x>Stage</b>"
    moved = expected.density[inside(zone["points"], 384, 512)].sum(dtype=float)
    assert zone["count"] == pytest.approx(moved, rel=1e-3)
    density = np.load(page.download("#save-density", "IMG_10.density.npy"))
    np.testing.assert_array_equal(density, expected.density)
    with Image.open(page.download("#save-overlay", "IMG_10.overlay.png")) as overlay:
        assert overlay.width >= 512 and overlay.height > 384


def test_zones_by_keyboard(page, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded((100, 200)))
    page.browser.choose("#files", tmp_path / "a.png")
    page.counted()
    page.click("#draw")
    assert page.browser.run("document.activeElement.id") == "stage"
    arrows = {"ArrowLeft": "ArrowLeft", "ArrowRight": "ArrowRight"}
    for keys in (["ArrowLeft"] * 3 + [" "], ["ArrowRight"] * 6 + [" "], ["ArrowDown"] * 3 + [" "]):
        for key in keys:
            page.browser.key(arrows.get(key, key), modifiers=8 if key != " " else 0)
    page.browser.key("Enter")
    ((name, _),) = page.zones(1)
    # From the middle, with Shift 5 % of the longer side a step.
    zones = json.loads(page.download("#save-zones", "a.zones.json").read_text())
    assert zones["zones"] == {name: [[70, 50], [130, 50], [130, 80]]}
    # A zone whose sides cross is told beside it, and the other stays.
    crossing = {"zones": {"knot": [[0, 0], [90, 90], [90, 0], [0, 90]], "all": [[0, 0], [200, 0],
                [200, 100], [0, 100]]}}  # fmt: skip
    (tmp_path / "knot.json").write_text(json.dumps(crossing))
    page.drop(tmp_path / "knot.json")
    rows = page.zones(3)
    assert [name for name, _ in rows] == [name, "knot", "all"]
    assert rows[1][1] == "–" and rows[2][1] == page.text("#count")
    (message,) = page.texts(".zone-error:not([hidden])")
    assert "This zone" in message and "cross" in message
    page.expect("422")


def test_several_pictures_and_bad_ones(page, tmp_path):
    evil = "<img src=x onerror=document.title='evil'>.png"
    (tmp_path / evil).write_bytes(encoded(seed=1))
    (tmp_path / "b.tif").write_bytes(encoded((64, 48), "TIFF", seed=2))  # no browser shows these
    (tmp_path / "c.pdf").write_bytes(b"%PDF-1.7")
    page.drop(tmp_path / evil, tmp_path / "b.tif", tmp_path / "c.pdf")
    page.counted(3)
    assert page.texts(".item-name") == [evil, "b.tif", "c.pdf"]
    assert page.browser.run("document.title") == "Count a crowd"
    page.click(".item:nth-child(2) .item-open")
    page.browser.wait("document.querySelector('#photo').naturalWidth === 48")
    page.click(".item:nth-child(3) .item-open")
    assert ".jpg" in page.text("#failure-text") and page.text("#count") == "–"
    # Other weights count the shown picture again.
    page.click(".item:nth-child(1) .item-open")
    page.set("#weights", "flat")
    page.browser.wait(f"document.querySelector('#count').textContent === '{0.01 * 40 * 56:.1f}'")
    for rest in (2, 1, 0):
        page.click(".item .remove")
        assert page.browser.run("document.querySelectorAll('.item').length") == rest
    assert page.browser.run("document.querySelector('#view').hidden")
    page.expect("415")
    page.expect("404")  # of a picture that is removed before it is shown


def test_a_pasted_picture_and_a_server_that_forgot(page, tmp_path):
    data = list(encoded())
    page.browser.run(
        f"""(() => {{
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array({data})], "image.png", {{type: "image/png"}}));
            dispatchEvent(new ClipboardEvent("paste", {{clipboardData: data}}));
        }})()"""
    )
    page.counted()
    before = page.text("#count")
    key = page.browser.run("document.querySelector('#map').getAttribute('src')").split("/")[2]
    assert requests.delete(f"{page.address}/api/results/{key}").status_code == 204
    density = np.load(page.download("#save-density", "image.density.npy"))
    assert f"{density.sum(dtype=float):,.1f}" == before
    page.expect("404")


def test_on_a_phone(page, tmp_path):
    phone = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.browser.call("Emulation.setDeviceMetricsOverride", **phone)
    name = "a-rather-long-name-without-any-place-to-break-it-at-all.png"
    (tmp_path / name).write_bytes(encoded())
    page.drop(tmp_path / name)
    page.counted()
    assert page.browser.run("document.documentElement.scrollWidth") == 390
    nameless = """[...document.querySelectorAll('button, input, select')].filter(e =>
        e.offsetParent && !(e.textContent.trim() || e.labels?.[0]?.textContent.trim() ||
        e.getAttribute('aria-label'))).map(e => e.outerHTML)"""
    assert page.browser.run(nameless) == []
