"""Many runs, each a process of its own, of which none is done twice.

A study plans its runs from its arguments. Its script starts itself once for
each of them, several side by side; a run writes its result as it ends. A
study that was killed goes on with what is missing.
"""

import json
import os
import os.path as osp
import platform
import statistics
import subprocess
import sys
import time
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text

PACKAGES = (
    *('torch', 'mmcv', 'mmengine', 'mmrazor', 'mmpretrain', 'mmdet'),
    'transformers',
)

POLL = 0.2
"""Seconds between two looks at the running processes."""

VISIBLE = 'CUDA_VISIBLE_DEVICES'

Record = Dict[str, Any]
"""What a run leaves: name, settings, result, seconds, environment."""


class Run(NamedTuple):
    """One process of a study.

    Attributes:
        name (str): Of its files; unique in its study.
        kind (str): Runs of a kind take about as long as each other.
        settings (dict): All that the result depends on, as plain data.
        needs (tuple[str]): Runs whose results it reads.
    """

    name: str
    kind: str
    settings: Dict[str, Any]
    needs: Tuple[str, ...] = ()


Perform = Callable[[Run, Mapping[str, Record]], Dict[str, Any]]
"""Does a run: with the records of its needs by name; returns the result."""


class Study:
    """Runs of a study and their results in a folder.

    Args:
        folder (str): ``runs/*.json`` are the results, ``logs/*.log`` what
            the processes say, ``files/`` is for what runs leave beside.
        runs (Sequence[Run]): In an order in which needs come first.
    """

    def __init__(self, folder: str, runs: Sequence[Run]) -> None:
        self.folder = folder
        self.runs = {run.name: run for run in runs}
        self._on: Dict[str, Optional[str]] = {}
        for run in runs:
            missing = [name for name in run.needs if name not in self.runs]
            if missing:
                raise ValueError(f'{run.name} needs {missing[0]}, no run.')

    def file(self, name: str) -> str:
        """Path for a file of a run; its folder exists."""
        folder = osp.join(self.folder, 'files')
        os.makedirs(folder, exist_ok=True)
        return osp.join(folder, name)

    def records(self) -> Dict[str, Record]:
        """Results so far, of planned runs, by name.

        Raises:
            DMSError: If one was made with other settings.
        """
        found = {}
        for run in self.runs.values():
            record = self._read(run)
            if record is not None:
                found[run.name] = record
        return found

    def perform(self, name: str, perform: Perform) -> Record:
        """Do one run in this process and write its result.

        Raises:
            DMSError: If there is no such run, or a need is missing.
        """
        if name not in self.runs:
            raise DMSError(f'--run {name}: the study has no such run.')
        run = self.runs[name]
        needs = {need: self._read(self.runs[need]) for need in run.needs}
        missing = [need for need, record in needs.items() if record is None]
        if missing:
            raise DMSError(f'--run {name} needs the result of {missing[0]}.')
        started = time.time(), time.process_time()
        result = perform(run, {k: v for k, v in needs.items() if v})
        record = {
            'name': name,
            'kind': run.kind,
            'settings': run.settings,
            'result': result,
            'seconds': round(time.time() - started[0], 1),
            'cpu_seconds': round(time.process_time() - started[1], 1),
            'environment': environment(),
        }
        write_text(self._path(run), f'{json.dumps(record, indent=1)}\n')
        return record

    def perform_all(
        self,
        perform: Perform,
        share: Tuple[int, int] = (0, 1),
        say: Callable[[str], None] = print,
    ) -> Dict[str, Record]:
        """Do the missing runs of this process's share, one after another.

        Args:
            perform (Callable): Does a run.
            share (tuple[int, int]): This process among so many, each with
                the same study; runs that need others need one process.
                Defaults to (0, 1).
            say (Callable): Takes lines of progress. Defaults to print.

        Returns:
            dict[str, Record]: Results so far, of all shares, by name.
        """
        index, shares = share
        mine = list(self.runs)[index::shares]
        done = self.records()
        left = [name for name in mine if name not in done]
        for name in left:
            say(self._progress(done, {}, (), shares))
            done[name] = self.perform(name, perform)
        if left:
            say(self._progress(done, {}, (), shares))
        return done

    def execute(
        self,
        command: Sequence[str],
        jobs: int = 1,
        say: Callable[[str], None] = print,
        devices: Sequence[str] = (),
    ) -> Dict[str, Record]:
        """Do all runs that are missing, each in a process of its own.

        A run that fails stops only those that need it.

        Args:
            command (Sequence[str]): Starts this study: ``--run NAME`` is
                added.
            jobs (int): Processes side by side. Defaults to 1.
            say (Callable): Takes lines of progress. Defaults to print.
            devices (Sequence[str]): Values of ``CUDA_VISIBLE_DEVICES`` to
                deal out; the process that starts gets the one that the
                fewest have. Defaults to (), all see all.

        Returns:
            dict[str, Record]: Results by name.

        Raises:
            DMSError: If a run failed; it names the logs.
        """
        records = self.records()
        waiting = [r for r in self.runs.values() if r.name not in records]
        running: Dict[str, subprocess.Popen] = {}
        failed: List[str] = []
        if waiting:
            say(self._progress(records, running, failed, jobs))
        try:
            while waiting or running:
                self._start(
                    command, jobs, waiting, running, records, failed, devices
                )
                ended = _ended(running)
                for name in ended:
                    record = self._read(self.runs[name])
                    if record is None:
                        failed.append(name)
                        say(f'{name} failed: see {self._log(name)}')
                    else:
                        records[name] = record
                if ended:
                    say(self._progress(records, running, failed, jobs))
                else:
                    time.sleep(POLL)
        finally:
            for process in running.values():
                process.terminate()
        if failed:
            logs = ', '.join(self._log(name) for name in failed)
            raise DMSError(
                f'{len(failed)} of {len(self.runs)} runs failed: see {logs}. '
                'The same command goes on where it stopped.'
            )
        return records

    def _start(
        self,
        command: Sequence[str],
        jobs: int,
        waiting: List[Run],
        running: Dict[str, subprocess.Popen],
        records: Mapping[str, Record],
        failed: Sequence[str],
        devices: Sequence[str],
    ) -> None:
        """Start what can be; drop what needs a run that failed."""
        for run in list(waiting):
            pending = {other.name for other in waiting} | set(running)
            lost = [
                need
                for need in run.needs
                if need not in records and need not in pending
            ]
            if lost:
                waiting.remove(run)
            elif len(running) < jobs and all(n in records for n in run.needs):
                waiting.remove(run)
                running[run.name] = self._process(
                    command, run, self._device(devices, running)
                )

    def _device(
        self, devices: Sequence[str], running: Mapping[str, Any]
    ) -> Dict[str, str]:
        """The variable that shows a process one device, if any."""
        if not devices:
            return {}
        used = [self._on.get(name) for name in running]
        return {VISIBLE: min(devices, key=used.count)}

    def _process(
        self, command: Sequence[str], run: Run, device: Dict[str, str]
    ) -> 'subprocess.Popen[bytes]':
        log = self._log(run.name)
        os.makedirs(osp.dirname(log), exist_ok=True)
        threads = {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}
        self._on[run.name] = device.get(VISIBLE)
        with open(log, 'wb') as file:
            return subprocess.Popen(
                [*command, '--run', run.name],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**threads, **os.environ, **device},
            )

    def _progress(
        self,
        records: Mapping[str, Record],
        running: Mapping[str, Any],
        failed: Sequence[str],
        jobs: int,
    ) -> str:
        line = f'{len(records)} of {len(self.runs)} runs done'
        if failed:
            line += f', {len(failed)} failed'
        left = time_left(list(self.runs.values()), records, jobs)
        if left is not None:
            line += f', about {_duration(left)} left'
        return line

    def _path(self, run: Run) -> str:
        return osp.join(self.folder, 'runs', f'{run.name}.json')

    def _log(self, name: str) -> str:
        return osp.join(self.folder, 'logs', f'{name}.log')

    def _read(self, run: Run) -> Optional[Record]:
        path = self._path(run)
        if not osp.exists(path):
            return None
        with open(path, encoding='utf-8') as file:
            record = json.load(file)
        if record['settings'] != json.loads(json.dumps(run.settings)):
            old = record['settings']
            keys = [
                key
                for key in {**old, **run.settings}
                if old.get(key) != run.settings.get(key)
            ]
            raise DMSError(
                f'{path} was made with other settings ({keys[0]}: '
                f'{old.get(keys[0])!r}, now {run.settings.get(keys[0])!r}): '
                'take another --out-dir, or remove the file.'
            )
        return record


def time_left(
    runs: Sequence[Run], records: Mapping[str, Record], jobs: int
) -> Optional[float]:
    """Seconds, by the mean of finished runs of the same kind.

    Kinds of which none is finished count as the mean of all; None if
    nothing is finished.
    """
    if not records:
        return None
    times: Dict[str, List[float]] = {}
    for record in records.values():
        times.setdefault(record['kind'], []).append(record['seconds'])
    every = [seconds for kind in times.values() for seconds in kind]
    left = [
        statistics.fmean(times.get(run.kind, every))
        for run in runs
        if run.name not in records
    ]
    return sum(left) / min(jobs, max(len(left), 1))


def environment() -> Dict[str, Any]:
    """Versions, processor and command of this process."""
    from importlib.metadata import PackageNotFoundError, version

    found: Dict[str, Any] = {'python': platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found['processor'] = platform.processor() or platform.machine()
    found['cores'] = os.cpu_count()
    found['command'] = ' '.join(['python', *sys.argv])
    return found


def _ended(running: Dict[str, subprocess.Popen]) -> List[str]:
    """Names of processes that have ended; they are taken out."""
    ended = [n for n, process in running.items() if process.poll() is not None]
    for name in ended:
        del running[name]
    return ended


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{round(seconds)} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'
