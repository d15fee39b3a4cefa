"""Diffs as pages show them: without line numbers."""


def apply_diff(diff, text):
    """Apply a diff without line numbers: context must match in order."""
    lines, result, position = text.splitlines(), [], 0
    for entry in diff.splitlines():
        sign, content = entry[:1], entry[1:]
        if sign == '+':
            result.append(content)
            continue
        while lines[position] != content:
            result.append(lines[position])
            position += 1
        position += 1
        if sign != '-':
            result.append(content)
    return '\n'.join(result + lines[position:]) + '\n'
