import pytest
from mmdet.evaluation import CocoMetric

from ghostdet.evaluation import FastCocoMetric


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_any_encoding(own_cells, encoding):
    path = own_cells / "annotations/test.json"
    text = path.read_text().replace("WBC", "白血球")
    path.write_text(text, encoding)
    for kind in (CocoMetric, FastCocoMetric):
        coco = kind(str(path))._coco_api
        assert coco.get_cat_ids(cat_names=["白血球"]) == [2]
        assert len(coco.get_img_ids()) == 6
