"""What the short trainings of several candidates say together."""

import json
import math
import os.path as osp
import statistics
from typing import (
    Any,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
)

from dms_mmrazor.baselines.runs import environment
from dms_mmrazor.errors import DMSError
from dms_mmrazor.files import write_text
from dms_mmrazor.ranking import agreement
from dms_mmrazor.ranking.scores import (
    LAST,
    SCORES,
    SINGLE,
    MoteWeights,
    Trajectory,
    check_score,
    score_all,
)

EQUAL = 0.02
"""Budgets may differ by this portion of the smallest."""

SPENT = {
    'accuracy': ('training', 'evaluation'),
    'landscape': ('training', 'landscape'),
    'mote': ('training', 'landscape'),
}
"""What a score takes beside the training."""

Row = Dict[str, Any]
Resources = Mapping[str, float]
BySeed = Mapping[int, Mapping[str, Trajectory]]


class Ranking(NamedTuple):
    """Candidates, best first.

    Attributes:
        score (str): What they are ranked by.
        rows (list[dict]): Of each candidate 'name', 'place', 'score' (mean
            over the seeds; −inf if a training diverged), 'std', 'each' (by
            seed), 'seconds' (of one training and what the score takes
            beside it), 'resources', 'scores' (means of all that were
            measured) and 'reason' (why it diverged).
        agreement (dict[str, float]): Score → mean Kendall's τ between the
            rankings of two seeds; nan for a single seed.
        warnings (list[str]): What is not as it should be.
    """

    score: str
    rows: List[Row]
    agreement: Dict[str, float]
    warnings: List[str]

    @property
    def best(self) -> str:
        """Name of the first candidate."""
        return self.rows[0]['name']

    def __str__(self) -> str:
        return table(self)


def summarize(
    score: str,
    trajectories: BySeed,
    resources: Mapping[str, Resources],
    budget: Sequence[str] = ('macs',),
    weights: Optional[MoteWeights] = None,
) -> Ranking:
    """Rank candidates by the mean of a score over seeds.

    A candidate with a training that diverged stands behind all others.

    Args:
        score (str): One of :data:`SCORES`.
        trajectories (Mapping): Seed → candidate → its short training.
        resources (Mapping): Candidate → resource kind → value.
        budget (Sequence[str]): Kinds that should be equal; parameters where
            none of them is known. Defaults to ('macs',).
        weights (MoteWeights, optional): Of the score 'mote'. Defaults to
            None.

    Raises:
        DMSError: If the score is unknown or could not be measured.
    """
    tables = {s: score_all(t, weights) for s, t in trajectories.items()}
    _check_measured(score, trajectories, tables)
    names = list(next(iter(trajectories.values())))
    rows = [
        _row(name, score, trajectories, tables, resources.get(name, {}))
        for name in names
    ]
    rows.sort(key=lambda row: (-row['score'], -row['fallback']))
    for place, row in enumerate(rows, 1):
        row['place'] = place
        del row['fallback']
    found = {
        name: agreement.between_seeds(
            {seed: list(t[name].values()) for seed, t in tables.items()}
        )
        for name in SCORES
        if all(name in t for t in tables.values())
    }
    counted = {kind for row in resources.values() for kind in row}
    known = [kind for kind in budget if kind in counted]
    warnings = budget_warnings(resources, known or counted & {'params'})
    warnings += _seed_warnings(rows, len(tables))
    return Ranking(score, rows, found, warnings)


def _check_measured(
    score: str, trajectories: BySeed, tables: Mapping[int, Any]
) -> None:
    """Raise unless every seed has the score."""
    check_score(score)
    for seed, column in tables.items():
        if score in column:
            continue
        for trajectory in trajectories[seed].values():
            if not trajectory.diverged and score in SINGLE:
                SINGLE[score](trajectory)  # says what is missing
        raise DMSError(
            f'`score={score}` needs two or more candidates whose landscape '
            'was measured (`landscape_batches` > 0).'
        )


def _row(
    name: str,
    score: str,
    trajectories: BySeed,
    tables: Mapping[int, Mapping[str, Mapping[str, float]]],
    resources: Resources,
) -> Row:
    """One candidate's part of the table."""
    each = {seed: table[score][name] for seed, table in tables.items()}
    sound = [value for value in each.values() if value > LAST]
    lost = {
        seed: found[name].diverged
        for seed, found in trajectories.items()
        if found[name].diverged
    }
    reasons = [f'seed {seed}: {reason}' for seed, reason in lost.items()]
    return {
        'name': name,
        'score': LAST if lost else statistics.fmean(sound),
        'fallback': statistics.fmean(sound) if sound else LAST,
        'std': statistics.stdev(sound) if len(sound) > 1 else math.nan,
        'each': each,
        'seconds': statistics.fmean(
            seconds_of(found[name], score) for found in trajectories.values()
        ),
        'resources': dict(resources),
        'scores': {
            kind: LAST
            if lost
            else statistics.fmean(
                table[kind][name] for table in tables.values()
            )
            for kind in SCORES
            if all(kind in table for table in tables.values())
        },
        'reason': '; '.join(reasons),
    }


def seconds_of(trajectory: Trajectory, score: str) -> float:
    """Seconds that a score of one training takes, beside its preparation."""
    parts = SPENT.get(score, ('training',))
    return sum(trajectory.costs.get(part, 0.0) for part in parts)


def budget_warnings(
    resources: Mapping[str, Resources], budget: Iterable[str]
) -> List[str]:
    """A line for each kind of which candidates have unlike amounts."""
    lines = []
    for kind in budget:
        values = {n: row[kind] for n, row in resources.items() if kind in row}
        if len(values) < 2:
            continue
        low = min(values, key=lambda name: values[name])
        high = max(values, key=lambda name: values[name])
        apart = values[high] / values[low] - 1
        if apart > EQUAL:
            lines.append(
                f'budgets differ: {high} has {apart:.1%} more {kind} than '
                f'{low}; all scores favor large networks, so compare '
                f'candidates within {EQUAL:.0%}.'
            )
    return lines


def _seed_warnings(rows: Sequence[Row], seeds: int) -> List[str]:
    """Whether the first place is within the noise of the seeds."""
    if len(rows) < 2 or rows[1]['score'] == LAST or seeds < 2:
        return []
    first, second = rows[:2]
    error = math.hypot(first['std'], second['std']) / math.sqrt(seeds)
    if first['score'] - second['score'] > error:
        return []
    return [
        f'{first["name"]} and {second["name"]} are within the noise of '
        f'{seeds} seeds: more seeds or epochs would tell them apart.'
    ]


def table(ranking: Ranking) -> str:
    """Markdown of a ranking: one line a candidate, then seeds' agreement."""
    kinds = list(
        dict.fromkeys(k for r in ranking.rows for k in r['resources'])
    )
    others = [name for name in ranking.agreement if name != ranking.score]
    heads = ['', 'candidate', f'{ranking.score}: mean ± std', 'each seed']
    heads += [*others, 's each', *kinds, 'note']
    lines = [heads, ['---'] * len(heads)]
    for row in ranking.rows:
        mean = 'diverged' if row['reason'] else _number(row['score'])
        lines.append(
            [
                str(row['place']),
                row['name'],
                mean
                if math.isnan(row['std'])
                else f'{mean} ± {_number(row["std"])}',
                ', '.join(map(_number, row['each'].values())),
                *(_number(row['scores'][name]) for name in others),
                f'{row["seconds"]:.1f}',
                *(_number(row['resources'].get(kind)) for kind in kinds),
                row['reason'],
            ]
        )
    text = '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)
    taus = ', '.join(
        f'{name} {tau:.2f}'
        for name, tau in ranking.agreement.items()
        if math.isfinite(tau)
    )
    if taus:
        text += f"\n\nAgreement between seeds (Kendall's τ): {taus}."
    return '\n\n'.join([text, *(f'Warning: {w}' for w in ranking.warnings)])


def _number(value: Optional[float]) -> str:
    if value is None or math.isnan(value):
        return '–'
    if value == LAST:
        return 'diverged'
    return f'{value:,.0f}' if abs(value) >= 1e4 else f'{value:.4g}'


def plot(ranking: Ranking, path: str) -> None:
    """Scores with the spread of seeds, and score against seconds."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    rows = [row for row in ranking.rows if not row['reason']]
    names = [row['name'] for row in rows]
    scores = [row['score'] for row in rows]
    stds = [0.0 if math.isnan(row['std']) else row['std'] for row in rows]
    height = max(2.5, 0.3 * len(rows) + 1)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, height))
    left.errorbar(scores, range(len(rows)), xerr=stds, fmt='o', capsize=2)
    left.set_yticks(range(len(rows)), names, fontsize='small')
    left.invert_yaxis()
    left.set_xlabel(f'{ranking.score}, mean and deviation of the seeds')
    right.errorbar(
        [row['seconds'] for row in rows], scores, stds, fmt='o', capsize=2
    )
    right.set_xlabel('seconds of one short training')
    right.set_ylabel(ranking.score)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(
    ranking: Ranking, folder: str, records: Sequence[Mapping[str, Any]] = ()
) -> List[str]:
    """Write ``ranking.md``, ``.json`` and ``.png`` into a folder.

    Args:
        ranking (Ranking): What came out.
        folder (str): Where to.
        records (Sequence[Mapping]): Of all short trainings. Defaults to ().

    Returns:
        list[str]: The table and where it was written.
    """
    text = table(ranking)
    data = {
        'environment': environment(),
        **ranking._asdict(),
        'runs': list(records),
    }
    base = osp.join(folder, 'ranking')
    for suffix, content in (
        ('.md', text),
        ('.json', json.dumps(_plain(data), indent=1)),
    ):
        write_text(base + suffix, f'{content}\n')
    plot(ranking, f'{base}.png')
    return [text, f'Wrote {base}.md, {base}.json and {base}.png.']


def _plain(value: Any) -> Any:
    """JSON has no infinite numbers: null stands for them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
