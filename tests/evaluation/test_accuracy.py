import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from ghostdet.errors import ConfigError, UserError
from ghostdet.evaluation.accuracy import Accuracy


def evaluate(metric, scores, labels, batch=7):
    samples = [dict(pred_score=s, gt_label=label) for s, label in zip(scores, labels)]
    for i in range(0, len(samples), batch):
        metric.process(None, samples[i : i + batch])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize("classes", [3, 5, 100])
def test_against_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300)
    scores = rng.normal(size=(300, classes))  # without ties
    scores[np.arange(300), labels] += 1
    topk = [k for k in (1, 2, 3, 5) if k < classes]
    found = evaluate(Accuracy(topk), torch.tensor(scores), labels)
    for k in topk:
        expected = top_k_accuracy_score(labels, scores, k=k, labels=range(classes))
        assert found[f"accuracy/top{k}"] == pytest.approx(100 * expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_equal_scores(dtype):
    """The first of those that are equal comes first, as argmax has it."""
    scores = torch.randint(5, (200, 10)).to(dtype)
    labels = torch.randint(10, (200,))
    right = (scores.argmax(1) == labels).float().mean() * 100
    assert evaluate(Accuracy(1), scores, labels)["accuracy/top1"] == pytest.approx(
        right
    )
    assert evaluate(Accuracy(1), torch.ones(4, 4), range(4))["accuracy/top1"] == 25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite(value):
    scores = torch.tensor([0.1, value])
    sample = dict(pred_score=scores, gt_label=0, img_path="a.jpg")
    with pytest.raises(UserError, match="the scores of a.jpg are not finite"):
        Accuracy(1).process(None, [sample])


@pytest.mark.parametrize("topk", [0, (), (1, -5), (0, 1), 2.5, [None], True, "15"])
def test_no_such_k(topk):
    with pytest.raises(ConfigError, match="expected integers of 1 or more"):
        Accuracy(topk)


@pytest.mark.parametrize(
    "topk, fitting", [((1, 5), "1"), (5, "1"), ((1, 3, 5), "1,3"), ((5, 10), "1")]
)
def test_more_than_there_are_classes(topk, fitting):
    remedy = f"val_evaluator.topk={fitting} test_evaluator.topk={fitting}$"
    with pytest.raises(ConfigError, match=f"there are 4 classes; .*{remedy}"):
        Accuracy(topk).dataset_meta = dict(classes=tuple("abcd"))
    with pytest.raises(ConfigError, match=remedy):
        evaluate(Accuracy(topk), torch.eye(4), range(4))
