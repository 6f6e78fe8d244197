import hashlib

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
)

from ghostdet.errors import UserError
from ghostdet.weights import fetch

CONTENT = b"weights"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path):
    (tmp_path / "a.pth").write_bytes(CONTENT)
    return tmp_path / "a.pth"


@pytest.mark.parametrize(
    "suffix", ["", f"#sha256={CHECKSUM}", f"#sha256={CHECKSUM[:8]}"]
)
def test_file(file, suffix):
    assert fetch(f"{file}{suffix}") == fetch(file) == file


@pytest.mark.parametrize(
    "suffix, message",
    [
        ("#sha256=0abc0abc", f"expected sha256 0abc0abc(.|\n)*{CHECKSUM}"),
        ("#sha256=", "is not a checksum, expected 8 to 64 hexa"),
        ("#sha256=abc", "is not a checksum"),
        ("#sha256=" + "g" * 64, "is not a checksum"),
        ("x", "no file of weights at '.*a.pthx'; give"),
    ],
)
def test_no_such_file(file, suffix, message):
    with pytest.raises(UserError, match=message):
        fetch(f"{file}{suffix}")


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the Hub: what it is asked for, and what it does."""
    asked, answers = [], {}

    def download(repository, name, revision=None):
        asked.append((repository, name, revision))
        answer = answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked, answers


def test_hub(hub, file):
    asked, answers = hub
    answers["model.safetensors"] = str(file)
    assert fetch("hf-hub:timm/ghostnet_100.in1k") == file
    assert fetch(f"hf-hub:timm/ghostnet_100.in1k@v1#sha256={CHECKSUM}") == file
    assert asked == [
        ("timm/ghostnet_100.in1k", "model.safetensors", None),
        ("timm/ghostnet_100.in1k", "model.safetensors", "v1"),
    ]
    answers["model.safetensors"] = EntryNotFoundError("404")
    answers["pytorch_model.bin"] = str(file)
    assert fetch("hf-hub:timm/ghostnet_100.in1k") == file


@pytest.mark.parametrize(
    "error, message",
    [
        (LocalEntryNotFoundError("offline"), "offline.*by other means and gi"),
        (HFValidationError("bad"), "hf-hub:a/b cannot be downloaded .bad"),
        (RuntimeError("403 of a proxy"), r"cannot be downloaded .403 of a proxy"),
        (OSError("401 Client Error\nmore"), r"cannot be downloaded \(401 Client Error"),
        (EntryNotFoundError("404"), "has none of the files model.safetensors, pytorch"),
    ],
)
def test_hub_fails(hub, error, message):
    _, answers = hub
    answers["model.safetensors"] = answers["pytorch_model.bin"] = error
    with pytest.raises(UserError, match=message) as caught:
        fetch("hf-hub:a/b")
    assert "\n" not in caught.value.text


def test_address(address):
    url, folder = address
    (folder / "a.pth").write_bytes(CONTENT)
    with pytest.raises(UserError, match="cannot be downloaded .invalid hash value"):
        fetch(f"{url}/a.pth#sha256=0abc0abc")
    path = fetch(f"{url}/a.pth#sha256={CHECKSUM}")
    assert path.read_bytes() == CONTENT
    (folder / "a.pth").unlink()
    assert fetch(f"{url}/a.pth") == path  # kept
    with pytest.raises(UserError, match="the file has another checksum"):
        fetch(f"{url}/a.pth#sha256=0abc0abc")
