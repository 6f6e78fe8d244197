import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ghostdet.datasets import Digits
from ghostdet.errors import UserError

TO_TENSOR = dict(type="torchvision.transforms.v2.PILToTensor")


def test_digits_are_scikit_learn_s():
    whole = load_digits()
    expected = sorted(
        (label, (image * (255 / 16)).astype(np.uint8).tobytes())
        for image, label in zip(whole.images, whole.target)
    )
    parts = [Digits(train, [TO_TENSOR]) for train in (True, False)]
    assert list(map(len, parts)) == [1437, 360]
    found = []
    for data in parts:
        share = np.bincount(data.targets) / np.bincount(whole.target)
        assert share == pytest.approx(np.full(10, len(data) / 1797), abs=0.005)
        for i in range(len(data)):
            image, about = data[i]["inputs"], data[i]["data_samples"]
            assert (image == image[:1]).all()  # grey
            found.append((about["gt_label"], image[0].numpy().tobytes()))
    assert sorted(found) == expected


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        Digits()
