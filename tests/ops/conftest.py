import pytest
import torch

from ghostdet.ops import operator_backend


@pytest.fixture(params=["cpu"] + ["cuda"] * torch.cuda.is_available())
def device(request):
    return request.param


@pytest.fixture
def ours():
    if operator_backend() == "mmcv":
        pytest.skip("MMCV's compiled operators do not promise this")


@pytest.fixture
def not_on_cpu_in_mmcv(device):
    if operator_backend() == "mmcv" and device == "cpu":
        pytest.skip("MMCV's compiled operator exists for the GPU only")
