"""Each trouble once, however many trees have it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from glmpatch.checking.model import Report, Standing, TreeCheck, Trouble
from glmpatch.patching.model import Patch
from glmpatch.reporting.words import Show, count, day, join, one_line, short_hash, tree_title


@dataclass(frozen=True, slots=True)
class Finding:
    """A trouble of a patch, and where it is.

    Attributes:
        patch: The patch.
        standing: What it comes to: a conflict or a wrong result.
        trouble: As the newest tree has it; in older ones it may stand at another line.
        trees: Those that have it, the newest first.
    """

    patch: Patch
    standing: Standing
    trouble: Trouble
    trees: tuple[TreeCheck, ...]

    @property
    def heads(self) -> tuple[TreeCheck, ...]:
        """Those of the trees that count. There are none for what only old commits had."""
        return tuple(tree for tree in self.trees if tree.names)

    def where(self, show: Show = one_line) -> str:
        """The trees in words, their names shown the way of the format."""
        nameless = [tree.commit for tree in self.trees if not tree.names and tree.commit]
        words = [tree_title(tree, show) for tree in self.heads]
        if nameless:
            newest, oldest = nameless[0], nameless[-1]
            which = short_hash(newest) if newest is oldest else f"{short_hash(oldest)} to {short_hash(newest)}"
            words.append(f"{count(len(nameless), 'old commit')} ({which})")
        return join(words)

    @property
    def since(self) -> str:
        """The commit that brought it, in words; empty where that is not known."""
        commit = self.trouble.since
        return f"{short_hash(commit)} {day(commit)} {one_line(commit.subject, 80)}" if commit else ""


def find_troubles(report: Report) -> tuple[Finding, ...]:
    """The troubles of a report: first those of the heads, then those that only old commits had."""
    found: dict[tuple[str, Standing, Trouble], Finding] = {}
    for tree in report.trees:
        for cell in tree.patches:
            for trouble in cell.troubles:
                key = cell.patch.id, cell.standing, replace(trouble, line=None, since=None)
                finding = found.get(key) or Finding(cell.patch, cell.standing, trouble, ())
                if finding.trees[-1:] != (tree,):
                    found[key] = replace(finding, trees=(*finding.trees, tree))
    return tuple(sorted(found.values(), key=lambda finding: not finding.heads))
