import re

from mmengine.registry import DefaultScope


def test_what_it_takes(project, monkeypatch, capsys):
    """The page's program prints the page's table."""
    monkeypatch.chdir(project)
    page = (project / "docs/reproduce.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    try:
        exec(program, {})
    finally:
        DefaultScope._instance_dict.clear()
    rows = capsys.readouterr().out.strip()
    assert len(rows.splitlines()) == 6
    assert rows in page
