"""What the documentation shows works, and its links lead somewhere."""

import argparse
import doctest
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
NOT_RUN = re.compile(r'<!-- not run by a test: .+ -->\n$')


# They would run; `STUDY` stands for one of several.
WITHOUT_OPTIONS = ('docs/list_configs.py', 'benchmarks/studies/detection.py')


def blocks(path, language):
    """(text before, content) of the code blocks of a page."""
    text = path.read_text(encoding='utf-8')
    for match in re.finditer(rf'```{language}\n(.*?)```', text, re.S):
        yield text[: match.start()], match.group(1)


def commands(text):
    """Lines ``python SCRIPT OPTIONS`` of blocks and of running text."""
    for match in re.finditer(r'```(?:bash|shell)\n(.*?)```', text, re.S):
        content = match.group(1).replace('\\\n', ' ')
        for line in content.splitlines():
            line = re.sub(r'\s#.*', '', line)
            yield from re.findall(r'^(?:\w+=\S+\s+)?python (.*)', line)
    for inline in re.findall(r'(?<!`)`python\s([^`]+)`', text):
        yield ' '.join(inline.split())


def test_every_command_is_run_or_says_why_not():
    """Blocks without a mark are those that `tests/tools` runs."""
    lost = [
        f'{path.relative_to(ROOT)}: {content.splitlines()[0]}'
        for path in [*PAGES, *sorted((ROOT / 'configs').glob('*/README.md'))]
        for language in ('bash', 'shell', 'console', 'sh')
        for before, content in blocks(path, language)
        if not NOT_RUN.search(before) and path.name != 'recipes.md'
    ]
    assert not lost


def _all_commands():
    pages = [*PAGES, ROOT / 'CONTRIBUTING.md', ROOT / 'benchmarks/README.md']
    pages += sorted((ROOT / 'configs').glob('*/README.md'))
    found = {}
    for path in pages:
        for line in commands(path.read_text(encoding='utf-8')):
            found.setdefault(line, path.relative_to(ROOT).as_posix())
    return sorted(found.items())


def _parsed_only(monkeypatch):
    """Let scripts end when they have read their command line."""
    real = argparse.ArgumentParser.parse_args

    def parse_and_end(self, *args, **kwargs):
        real(self, *args, **kwargs)
        sys.exit(0)

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_end)


def test_scripts_understand_the_commands_of_pages(monkeypatch, capsys):
    """Also what no test can run names a script and options that it has."""
    _parsed_only(monkeypatch)
    monkeypatch.chdir(ROOT)
    for command, page in _all_commands():
        script, *options = shlex.split(command)
        if script in WITHOUT_OPTIONS or 'STUDY' in options:
            continue
        assert (ROOT / script).is_file(), f'{page}: {command}'
        monkeypatch.setattr(sys, 'argv', [script, *options])
        monkeypatch.syspath_prepend(str((ROOT / script).parent))
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name='__main__')
        assert not end.value.code, f'{page}: {command}\n{capsys.readouterr()}'


def test_the_first_search_is_a_program(tmp_path, monkeypatch):
    pytest.importorskip('sklearn')
    monkeypatch.chdir(tmp_path)
    parts = [c for _, c in blocks(ROOT / 'docs/first_search.md', 'python')]
    names = {}
    exec(compile('\n'.join(parts), 'first_search.md', 'exec'), names)
    ratio = names['subnet'].structure.resources['macs']['ratio']
    assert 0.45 < ratio <= 0.5
    assert (tmp_path / 'work_dirs/first/card.html').is_file()


def test_the_plain_lines_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (loop,) = (
        content
        for _, content in blocks(ROOT / 'README.md', 'python')
        if 'Search(' in content
    )

    def build_model():
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 4),
        )

    batch = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
    names = dict(
        torch=torch,
        F=F,
        build_model=build_model,
        model=build_model(),
        images=batch[0],
        steps=6,
        loader=[batch] * 6,
    )
    exec(compile(loop, 'README.md', 'exec'), names)
    widths = [m.out_channels for m in names['fresh'] if hasattr(m, 'stride')]
    assert min(widths[::2]) < 32


def test_examples_in_pages():
    """Whatever is shown with a prompt says what is shown below it."""
    count = 0
    for path in PAGES:
        text = path.read_text(encoding='utf-8').replace('```', '')
        name = path.name
        test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        count += len(test.examples)
        assert not doctest.DocTestRunner().run(test).failed
    assert count


def test_python_blocks_can_be_read():
    for path in PAGES:
        for _, content in blocks(path, 'python'):
            if not content.startswith('>>>'):
                compile(content, path.name, 'exec')


def test_links_lead_somewhere():
    lost = [
        f'{path.name}: {target}'
        for path in PAGES
        for target in re.findall(r'\]\(([^)#\s]+)', path.read_text())
        if '://' not in target and not (path.parent / target).exists()
    ]
    assert not lost


def test_every_config_is_listed():
    """If one is not: `python docs/list_configs.py`."""
    listed = (ROOT / 'docs/configs.md').read_text(encoding='utf-8')
    folder = ROOT / 'configs'
    names = {p.relative_to(folder).as_posix() for p in folder.rglob('*.py')}
    lost = {name for name in names if f'`{name}`' not in listed}
    assert not {name for name in lost if not name.startswith('_base_')}


def test_the_site_is_built_without_warnings(tmp_path):
    pytest.importorskip('sphinx', reason='needs Python 3.11')
    pytest.importorskip('myst_parser')
    pytest.importorskip('furo')
    found = subprocess.run(
        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going']
        + ['-b', 'html', '-d', str(tmp_path / 'cache')]
        + [str(ROOT / 'docs'), str(tmp_path / 'html')],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert found.returncode == 0, found.stderr
    shutil.rmtree(tmp_path / 'html')
