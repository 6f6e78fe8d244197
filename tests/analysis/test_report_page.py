import base64
import io
import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from ghostdet.analysis.report_page import write_report
from ghostdet.errors import UserError


@pytest.fixture
def results(cells, tmp_path):
    """Labels of the test set as detections, some of another class, some gone."""
    coco = json.loads((cells / "annotations/test.json").read_text())
    found = []
    for i, a in enumerate(coco["annotations"]):
        own = {k: a[k] for k in ("image_id", "category_id", "bbox")}
        own |= dict(score=0.9 - 0.01 * i)
        own |= dict(category_id=1 + i % 3) if i % 5 == 0 else {}
        found += [own] if i % 7 else []
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found))
    return path


def test_page(tiny, results, tmp_path):
    cfg = tiny()
    page = write_report(cfg, results, tmp_path / "report")
    figures = json.loads((tmp_path / "report/figures.json").read_text())
    matrix = figures["confusion"]["matrix"]
    assert sum(map(sum, matrix[:3])) == sum(
        row["objects"] for row in figures["classes"]
    )
    text = page.read_text()
    assert {*re.findall(r'src="(.{10})', text)} == {"data:image"}  # nothing is fetched
    for name in ("RBC", "WBC", "Platelets", "background"):
        assert f"<th>{name}</th>" in text
    links = {*re.findall('href="#([^"]+)"', text)}
    assert links and links == {*re.findall('h3 id="([^"]+)"', text)}
    assert text.count("<figure>") == len(figures["images"])
    if browser := shutil.which("chromium"):
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
        command = [browser, *options, "--enable-logging=stderr", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "What errors cost" in done.stdout
        assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("kind", ["CocoMetric", "FastCocoMetric"])
@pytest.mark.parametrize("listed", [False, True])
def test_evaluators(tiny, results, tmp_path, kind, listed):
    """One in a list, and one that takes the annotations of the dataset."""
    cfg = tiny()
    expected = write_report(cfg, results, tmp_path / "report").read_text()
    del cfg.test_evaluator["ann_file"]
    cfg.test_evaluator.type = kind
    if listed:
        other = dict(type="DumpDetResults", out_file_path="a.pkl")
        cfg.test_evaluator = [other, cfg.test_evaluator]
    assert write_report(cfg, results, tmp_path / "report").read_text() == expected


def test_crops_stay_in_the_image(tiny, results, own_cells, tmp_path):
    """A white image has no black margin."""
    for path in (own_cells / "images").iterdir():
        Image.new("RGB", Image.open(path).size, "white").save(path)
    found = json.loads(results.read_text())
    results.write_text(json.dumps([{**d, "bbox": [0, 0, 40, 40]} for d in found]))
    text = write_report(tiny(None, own_cells), results, tmp_path / "a").read_text()
    crops = re.findall('base64,([^"]+)', text.partition("most lost AP")[0])
    assert crops
    for crop in crops:
        with Image.open(io.BytesIO(base64.b64decode(crop))) as picture:
            assert picture.convert("L").getextrema()[0] > 90  # of the frame


def test_names_are_text(tiny, results, tmp_path, own_cells):
    """Names in a dataset are shown, not run."""
    path, name = own_cells / "annotations/test.json", "<script>alert(1)</script>"
    coco = json.loads(path.read_text())
    coco["categories"][0]["name"] = name
    path.write_text(json.dumps(coco))
    classes = [c["name"] for c in coco["categories"]]
    cfg = tiny({"test_dataloader.dataset.metainfo.classes": classes}, own_cells)
    text = write_report(cfg, results, tmp_path / "report").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not COCO's results .JSONDecodeError"),
        ('[{"image_id": 1}]', "is not COCO's results .KeyError: 'category_id'"),
        ("[]", "has no detection; train longer"),
        (
            '[{"image_id": 77, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1}]',
            "has image_id 77 and category_id 1, which the test set does not have",
        ),
    ],
)
def test_bad(tiny, tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        write_report(tiny(), path, tmp_path / "report")
    assert not (tmp_path / "report").exists()
