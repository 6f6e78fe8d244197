"""The files of an export are all it needs, without PyTorch and MMDetection."""

import json
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from ghostdet.runtime import Detector

# What pip installs for each format, beside NumPy and OpenCV.
DISTRIBUTIONS = {
    ".onnx": ("onnxruntime", "flatbuffers", "protobuf", "packaging"),
    ".xml": ("openvino", "openvino-telemetry"),
}
LOADED = """
import json, runpy, sys, warnings
warnings.simplefilter("error")
names = runpy.run_path("ghostdet_runtime.py")
detections = names["Detector"](sys.argv[1], threads=1)(sys.argv[2])
print(json.dumps([
    [field if isinstance(field, list) else field.tolist() for field in detections],
    sorted({name.partition(".")[0] for name in sys.modules}),
]))
"""


def environment(folder, distributions):
    """Python of a virtual environment with nothing but links to these."""
    command = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(command, check=True)
    (site,) = folder.glob("lib/*/site-packages")
    for name in distributions:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "."}:
            if top != "__pycache__":
                (site / top).symlink_to(distribution.locate_file(top))
    return folder / "bin/python"


@pytest.mark.parametrize("suffix", DISTRIBUTIONS)
def test_alone(tmp_path, export, cells, suffix):
    path = export(suffix)
    (opencv,) = metadata.packages_distributions()["cv2"]
    python = environment(
        tmp_path / "environment", ["numpy", opencv, *DISTRIBUTIONS[suffix]]
    )
    image = min((cells / "images").iterdir())

    def run(*arguments):
        # Isolated: neither PYTHONPATH nor the current folder.
        return subprocess.run(
            [python, "-I", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = run("-c", LOADED, path, image)
    assert (done.returncode, done.stderr) == (0, "")
    detections, modules = json.loads(done.stdout)
    expected = Detector(path)(image)
    assert detections[3] == expected.names
    for values, others in zip(detections[:3], expected[:3]):
        np.testing.assert_allclose(values, others, atol=1e-6)
    assert {"numpy", "cv2"} < set(modules)
    assert not {"torch", "mmcv", "mmdet", "mmengine", "ghostdet", "PIL"} & set(modules)
    assert run("-c", "import torch").returncode

    done = run("ghostdet_runtime.py", path, image)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(expected.names)
