"""The command blocks of `docs/recipes.md` run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / 'docs/recipes.md'
FASTER = {'profile_latency.py': ('--structures', 4, '--rounds', 1)}
WRITES = {'profile_latency.py': 'latency.yaml', 'result_card.py': 'card.html'}


def commands():
    """The lines of blocks that are not marked as not run."""
    text = PAGE.read_text(encoding='utf-8')
    for match in re.finditer(r'```bash\n(.*?)```', text, re.S):
        before = text[: match.start()].splitlines()[-1]
        if 'not run by a test' not in before:
            yield from match.group(1).splitlines()


@pytest.mark.parametrize('line', commands())
def test_command(line, workspace, search, call, monkeypatch):
    monkeypatch.chdir(search)
    values = {'CONFIG': workspace / 'search.py', 'WORK_DIR': search}
    python, path, *words = shlex.split(line)
    assert python == 'python'
    name = Path(path).name
    options = [values.get(word, word) for word in words]
    done = call(name, *options, *FASTER.get(name, ()))
    assert done.status in (0, None), done.err
    assert list(search.rglob(WRITES[name]))
