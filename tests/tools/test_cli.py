import argparse
import runpy
import shutil
import sys
from importlib import import_module

import pytest

from ghostdet.errors import UserError
from ghostdet_command import TOOLS as FOLDER
from ghostdet_command import main

TOOLS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


NO_CONFIG = "error: no config at 'nowhere.py'; give"


@pytest.fixture
def cli(project, monkeypatch):
    """What the tools share; they find it beside them, as Python runs a script."""
    monkeypatch.syspath_prepend(project / "tools")
    return import_module("_cli")


@pytest.fixture
def in_process(project, monkeypatch, cli, new_run):
    """A function that runs a tool here, where nothing has to be imported again."""

    def run(tool, *arguments):
        new_run()
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        runpy.run_path(str(project / f"tools/{tool}.py"), run_name="__main__")

    return run


def fail_in_context(error, context):
    try:
        raise context
    finally:
        raise error


@pytest.mark.parametrize(
    "error, context, code, message",
    [
        (UserError("one\ntwo"), None, 1, "error: one\ntwo\n"),
        (KeyboardInterrupt(), None, 130, "interrupted\n"),
        # PyTorch's archive is not complete when a checkpoint's writing is interrupted.
        (RuntimeError("unexpected pos"), KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), None, 141, ""),  # of `| head`
    ],
)
def test_errors(cli, capsys, monkeypatch, error, context, code, message):
    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setattr("sys.stdout.fileno", lambda: 1, raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.run(lambda: fail_in_context(error, context or error))
    assert caught.value.code == code
    assert capsys.readouterr().err == message


def test_a_bug_keeps_its_traceback(cli):
    with pytest.raises(ValueError, match="a bug"):
        cli.run(lambda: fail_in_context(ValueError("a bug"), OSError()))


def check_error(result, *texts):
    """A message that a shell shows on its own, behind logs and warnings of others."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    message = result.stderr[result.stderr.rindex("error: ") :]
    assert result.stderr.count("error: ") == 1
    for text in texts:
        assert text in message


def test_the_command_lists_the_tools(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ghostdet", "--help"])
    main()
    listed = capsys.readouterr().out
    assert "\n  train         Train a detector or classifier\n" in listed
    assert all(f"\n  {tool} " in listed for tool in TOOLS)
    monkeypatch.setattr(sys, "argv", ["ghostdet", "tarin"])
    with pytest.raises(SystemExit, match="ghostdet has no tool 'tarin'"):
        main()
    monkeypatch.setattr(sys, "argv", ["ghostdet", "train", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert "usage: ghostdet train [" in capsys.readouterr().out


@pytest.mark.parametrize("tool", TOOLS)
def test_help(in_process, capsys, tool):
    with pytest.raises(SystemExit) as caught:
        in_process(tool, "--help")
    assert caught.value.code == 0
    assert f"usage: {tool}" in capsys.readouterr().out


def imported(stderr):
    """The modules that a process with ``-X importtime`` imported, by their names."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_help_needs_the_standard_library_only(command):
    """Each tool imports the package after it has parsed its arguments."""
    script = "; ".join(
        [
            "import runpy, sys, ghostdet_command",
            "sys.path.insert(0, 'tools')",
            *(f"runpy.run_path('tools/{tool}.py')" for tool in TOOLS),
        ]
    )
    result = command("-X", "importtime", "-c", script)
    assert result.returncode == 0, result.stderr
    modules = imported(result.stderr)
    assert "argparse" in modules
    assert not modules & {"ghostdet", "torch", "numpy", "mmengine"}


def test_import_leaves_optional_packages_alone(command):
    result = command("-X", "importtime", "-c", "import ghostdet")
    assert result.returncode == 0, result.stderr
    modules = imported(result.stderr)
    assert "mmdet.models" in modules
    exporters = {"onnx", "onnxruntime", "openvino", "nncf"}
    assert not modules & {*exporters, "faster_coco_eval", "timm", "huggingface_hub"}


@pytest.mark.parametrize(
    "tool, arguments, message",
    [
        ("train", ["nowhere.py"], NO_CONFIG),
        ("test", ["nowhere.py", "a.pth"], NO_CONFIG),
        ("infer", [".", "--config", "nowhere.py", "--checkpoint", "a.pth"], NO_CONFIG),
        ("report", ["nowhere"], "error: no table"),
    ],
)
def test_error(in_process, capsys, tmp_path, monkeypatch, tool, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SystemExit) as caught:
        in_process(tool, *arguments)
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: config"),
        (["a.py", "--launcher", "ssh"], "invalid choice"),
        (["a.py", "--cfg-options", "a", "=", "1"], "'a' is not of the form KEY=VALUE"),
    ],
)
def test_usage(in_process, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        in_process("train", *arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_config_options_are_those_of_mmengine(cli):
    parser = argparse.ArgumentParser()
    cli.add_config_arguments(parser)
    options = ["a.b=[1,2]", "c=None", "d=e=f"], ["g=0.5", "a.b=(3,)"]
    given = parser.parse_args(
        [word for part in options for word in ("--cfg-options", *part)]
    )
    assert given.cfg_options == {"a.b": (3,), "c": None, "d": "e=f", "g": 0.5}
    assert parser.parse_args([]).cfg_options is None


def test_train_in_a_shell(command, tmp_path):
    result = command(
        "tools/train.py",
        "configs/retinanet_ghostnet_fpn.py",
        *("--data-root", tmp_path, "--work-dir", tmp_path / "run"),
    )
    check_error(
        result,
        f"{tmp_path}/annotations/instances_train2017.json: no such annotation file",
        "--data-root DIR",
    )
    assert result.stderr.startswith("error: ")


def test_train_without_its_check(in_process, tmp_path, project, capsys):
    config = str(project / "configs/bccd/retinanet_ghostnet_small_bccd.py")
    folders = ["--data-root", str(tmp_path), "--work-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        in_process("train", config, *folders, "--no-check")
    assert "val_evaluator fails with FileNotFoundError" in capsys.readouterr().err


def test_report(in_process, trained, cells, tmp_path, capsys):
    """A page of a checkpoint, and the same of its results, without the model."""
    small = [f"{part}_dataloader.num_workers=0" for part in ("val", "test")]
    small += [f"{part}_dataloader.persistent_workers=False" for part in ("val", "test")]
    run = shutil.copytree(trained, tmp_path / "run")
    options = ["--data-root", cells, "--work-dir", run]
    options += ["--cfg-options", *small, "model.test_cfg.score_thr=0.001"]
    config = next(run.glob("*.py"))
    figures = []
    for name, given in (("a", []), ("b", [tmp_path / "a/results.bbox.json"])):
        in_process("test", config, *given, "--report", tmp_path / name, *options)
        assert f"report: {tmp_path / name}/index.html" in capsys.readouterr().out
        figures.append((tmp_path / name / "figures.json").read_text())
    assert figures[0] == figures[1]


def test_no_checkpoint(in_process, tmp_path, project, capsys):
    config = project / "configs/bccd/retinanet_ghostnet_small_bccd.py"
    with pytest.raises(SystemExit):
        in_process("test", config, "--work-dir", tmp_path / "none")
    assert f"train first: ghostdet train {config}\n" in capsys.readouterr().err


def test_complexity_with_options(in_process, project, capsys):
    config = project / "configs/retinanet_ghostnet_fpn.py"
    shape = ("--shape", 64, 64)
    params = []
    for options in ([], ["--cfg-options", "model.bbox_head.stacked_convs=1"]):
        in_process("complexity", config, *shape, *options)
        params.append(capsys.readouterr().out)
    assert params[0] != params[1]
