"""Downloads: resumed, mirrored, checked, and every failure named."""

import hashlib

import numpy as np
import pytest

from ptsne.datasets.catalogue import RemoteFile
from ptsne.datasets.download import fetch
from web_server import serving

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def site():
    with serving({"good": CONTENT, "bad": CONTENT[:-1] + b"!"}) as server:
        yield server


def remote(site, *paths, content=CONTENT):
    urls = tuple(site.url + path for path in paths)
    return RemoteFile("file.bin", hashlib.sha256(content).hexdigest(), urls)


def test_download(site, tmp_path, capfd):
    path = fetch(remote(site, "good"), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert capfd.readouterr().out == ""


def test_an_interrupted_download_is_resumed(site, tmp_path):
    site.cut = 300_000
    with pytest.raises(ConnectionError, match="interrupted after 300000 of 1000000 bytes"):
        fetch(remote(site, "good"), tmp_path)
    assert not (tmp_path / "file.bin").exists()
    site.cut = None
    assert fetch(remote(site, "good"), tmp_path).read_bytes() == CONTENT
    assert site.requests == [("/good", None), ("/good", "bytes=300000-")]


def test_a_mirror_goes_on_where_the_other_stopped(site, tmp_path):
    with serving({"good": CONTENT}) as mirror:
        site.cut = 300_000
        file = remote(site, "good")._replace(urls=(site.url + "good", mirror.url + "good"))
        assert fetch(file, tmp_path).read_bytes() == CONTENT
        assert mirror.requests == [("/good", "bytes=300000-")]


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    site.honours_ranges = False
    assert fetch(remote(site, "good"), tmp_path).read_bytes() == CONTENT


def test_a_whole_partial_file_is_taken(site, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(remote(site, "good"), tmp_path).read_bytes() == CONTENT
    assert len(site.requests) == 1


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * 2_000_000])
def test_a_partial_file_of_something_else_is_thrown_away(site, tmp_path, stale):
    (tmp_path / "file.bin.part").write_bytes(stale)
    assert fetch(remote(site, "good"), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused(site, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"what was there before")
    with pytest.raises(ConnectionError, match=r"expected sha256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        fetch(remote(site, "bad"), tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["file.bin"]
    assert (tmp_path / "file.bin").read_bytes() == b"what was there before"


def test_the_next_url_is_tried(site, tmp_path):
    assert fetch(remote(site, "lost", "bad", "good"), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in site.requests] == ["/lost", "/bad", "/good"]


def test_every_failure_is_named(site, tmp_path):
    file = remote(site, "lost", "bad")._replace(
        urls=("http://127.0.0.1:9/closed", site.url + "lost", site.url + "bad")
    )
    with pytest.raises(ConnectionError) as failure:
        fetch(file, tmp_path)
    for expected in (
        "closed: URLError",
        "lost: HTTPError",
        "404",
        "bad: expected sha256",
        "try again",
    ):
        assert expected in str(failure.value)
