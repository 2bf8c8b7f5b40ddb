"""The difference of two transcripts as lines that can be kept and compared.

A line reads `A7 - < frame`: socket A, after seven lines of Reverb's, Reverb has this frame.
`+` is Resound's. A changed line is one of each.
"""

import difflib
import re


def difference(want, have):
    lines = []
    for who in sorted(set(want) | set(have)):
        left, right = want.get(who, []), have.get(who, [])
        matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            if kind == "equal":
                continue
            lines += [f"{who}{i} - {left[i]}" for i in range(a, b)]
            lines += [f"{who}{a} + {right[i]}" for i in range(c, d)]
    return lines


def bare(line):
    """A difference line without its place: for what is the same everywhere."""
    return re.sub(r"^\S*?\d+ (?=[-+] )", "", line)


def side_by_side(want, have):
    """Both transcripts for a reader, differing lines marked."""
    lines = []
    for who in sorted(set(want) | set(have)):
        lines.append(f"  {who}")
        left, right = want.get(who, []), have.get(who, [])
        lines += [f"    {line}" for line in difflib.ndiff(left, right) if line[0] != "?"]
    return "\n".join(lines)
