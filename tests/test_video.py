"""Frames of videos: which, when, and of damaged files."""

import http.server
import threading
import time

import cv2
import numpy as np
import pytest

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import ffmpeg
from cmtl_jax.prediction.sources import Source
from cmtl_jax.prediction.video import Frame, Video

RATE, NUMBER = 10.0, 30


def picture(i, size=(48, 64), noise=1):
    """A frame whose number can be read off its middle; red is half of green."""
    image = np.random.default_rng(i).integers(0, noise, (*size, 3), np.uint8)
    image[8:40, 16:48] = (i * 4, i * 8, 0)
    return image


def number(image):
    return round(image[12:36, 20:44, 1].mean() / 8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    def write(name, code, size=(48, 64), noise=1):
        path = tmp_path_factory.mktemp("clip") / name
        writer = ffmpeg.writer(path, code, RATE, size[::-1])
        assert writer.isOpened()
        for i in range(NUMBER):
            writer.write(picture(i, size, noise)[..., ::-1])
        writer.release()
        return path

    return write


@pytest.fixture(scope="module")
def mp4(clip):
    return clip("a.mp4", "mp4v")


@pytest.fixture(scope="module")
def avi(clip):
    return clip("a.avi", "MJPG")


def read(path, **options):
    with Video(Source(str(path), "video"), **options) as video:
        return list(video)


def frames(items):
    assert not [item for item in items if isinstance(item, UserError)], items
    return items


def test_all_frames_in_order_with_their_times(mp4, avi):
    for path in (mp4, avi):
        found = frames(read(path))
        assert [frame.number for frame in found] == list(range(NUMBER))
        assert [number(frame.image) for frame in found] == list(range(NUMBER))
        assert [f.seconds for f in found] == pytest.approx([i / RATE for i in range(NUMBER)])
        assert found[20].image.dtype == np.uint8 and found[20].image.shape == (48, 64, 3)
        red, green = found[20].image[12:36, 20:44, :2].mean(axis=(0, 1))
        assert green == pytest.approx(160, abs=6) and red == pytest.approx(80, abs=6)
        assert all(frame.time is None for frame in found)


@pytest.mark.parametrize("every", [2, 7, 29, 100])
def test_every_nth(mp4, every):
    with Video(Source(str(mp4), "video"), every=every) as video:
        expected, rate = video.frames, video.rate
        found = frames(list(video))
    assert [frame.number for frame in found] == list(range(0, NUMBER, every))
    assert [number(frame.image) for frame in found] == list(range(0, NUMBER, every))
    assert expected == len(found) and rate == RATE / every


def test_the_first_seconds(mp4):
    with Video(Source(str(mp4), "video"), seconds=1.0, every=3) as video:
        expected = video.frames
        assert [frame.number for frame in video] == [0, 3, 6, 9]
    assert expected == 4


def test_a_damaged_frame_is_told_and_the_others_are_given(clip, tmp_path):
    data = bytearray(clip("large.avi", "MJPG", (120, 160), 255).read_bytes())
    starts = [i for i in range(len(data) - 1) if data[i] == 0xFF and data[i + 1] == 0xD8]
    assert len(starts) == NUMBER
    for start in starts[10:13]:
        data[start : start + 800] = bytes(800)
    path = tmp_path / "damaged.avi"
    path.write_bytes(data)
    found = read(path)
    (error,) = [item for item in found if isinstance(item, UserError)]
    assert "damaged.avi: 3 frames from 1.00 s on are damaged" in str(error)
    assert found.index(error) == 10
    rest = [item for item in found if isinstance(item, Frame)]
    kept = [i for i in range(NUMBER) if not 10 <= i < 13]
    assert [number(frame.image) for frame in rest] == kept
    assert [frame.number for frame in rest] == kept
    assert rest[-1].seconds == pytest.approx((NUMBER - 1) / RATE)


def test_a_file_cut_short_is_told(avi, mp4, tmp_path):
    (tmp_path / "cut.avi").write_bytes(avi.read_bytes()[: avi.stat().st_size * 2 // 3])
    *found, error = read(tmp_path / "cut.avi")
    assert 10 <= len(frames(found)) <= 20
    assert "cut.avi is damaged: it can be read up to" in str(error) and "of 3.00 s" in str(error)
    (tmp_path / "cut.mp4").write_bytes(mp4.read_bytes()[: mp4.stat().st_size // 2])
    with pytest.raises(UserError, match="cut.mp4 is no video that can be read .*cut short"):
        read(tmp_path / "cut.mp4")


def test_what_is_no_video(tmp_path, capfd):
    (tmp_path / "text.mp4").write_text("hello " * 1000)
    (tmp_path / "empty.mp4").touch()
    for name, says in (("text", "unknown format"), ("empty", "it is empty"), ("none", "No such")):
        with pytest.raises(UserError, match=f"{name}.mp4.*{says}") as info:
            read(tmp_path / f"{name}.mp4")
        assert "\n" not in str(info.value)
    assert capfd.readouterr() == ("", "")  # FFmpeg is silent


def test_large_frames_are_refused(mp4):
    read(mp4, max_pixels=48 * 64)
    with pytest.raises(UserError, match="frames of 64 x 48 pixels, more than the limit of 3071"):
        read(mp4, max_pixels=48 * 64 - 1)


def test_names_that_ffmpeg_has_a_meaning_for(mp4, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "a%02d.mp4", "http.mp4", "-i.mp4", "人群 é.mp4"):
        (tmp_path / name).write_bytes(mp4.read_bytes())
        assert len(frames(read(name))) == NUMBER


def test_no_such_camera(capfd):
    for path in ("camera:99", "/dev/null", "rtsp://127.0.0.1:9/x"):
        with pytest.raises(UserError, match=f"{path} cannot be opened"):
            Video(Source(path, "camera"))
    assert capfd.readouterr().err == ""


HELD = 10  # frames that a stream sends before it waits for `rest`


@pytest.fixture
def rest():
    """Lets a stream send the frames from HELD on."""
    return threading.Event()


@pytest.fixture
def stream(rest):
    """An address that sends a frame every 20 ms, as many network cameras do."""

    class Camera(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for i in range(NUMBER):
                    if i == HELD:
                        rest.wait(60)
                    data = cv2.imencode(".jpg", picture(i)[..., ::-1])[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                    self.wfile.write(head.encode() + b"\r\n\r\n" + data + b"\r\n")
                    self.wfile.flush()
                    time.sleep(0.02)
            except OSError:
                pass  # nobody listens any more

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Source(f"http://user:secret@127.0.0.1:{server.server_port}/stream.mjpg", "camera")
    rest.set()
    server.shutdown()
    server.server_close()


def test_a_stream_drops_what_comes_while_one_is_counted(stream, rest):
    with Video(stream) as video:
        assert video.live and video.frames is None
        items = iter(video)
        first = next(items)
        rest.set()
        video._thread.join(60)  # until the last one has come
        last, error = items
    assert "stopped sending frames" in str(error) and "secret" not in str(error)
    # The first ones are there when the stream opens; a busy machine takes the newest of them.
    assert first.number < HELD and last.number == NUMBER - 1
    assert number(first.image) == first.number and number(last.image) == last.number
    assert first.number or first.seconds == 0.0
    assert first.seconds < last.seconds and first.time < last.time
    assert first.time.endswith("Z") and "T" in first.time


def test_a_stream_ends_when_it_is_closed_or_its_time_is_over(stream, rest):
    with Video(stream, seconds=1.0, every=2) as video:
        items = iter(video)
        first = next(items)
        time.sleep(1.2)
        rest.set()
        found = frames([first, *items])
    assert all(frame.number % 2 == 0 and frame.seconds < 1.0 for frame in found)
    with Video(stream) as video:
        next(iter(video))
    assert not [thread for thread in threading.enumerate() if "stream.mjpg" in thread.name]
