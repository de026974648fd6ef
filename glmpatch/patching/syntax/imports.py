"""The imports of a Python file: what they bind, and where new ones go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from glmpatch.patching.model import Replacement
from glmpatch.patching.syntax.python import PythonFile, below_docstring
from glmpatch.patching.syntax.search import Site, find_nodes, plain_name


@dataclass(frozen=True, slots=True)
class ImportedName:
    """A name that an import binds.

    Attributes:
        name: The name in this file; `*` for a star import.
        origin: What it stands for: `import a.b` binds `a` to `a`, `from a import b as c` binds `c` to `a.b`.
        target: What is imported: `a.b` in both cases.
        site: The import, and what is around it.
    """

    name: str
    origin: str
    target: str
    site: Site[cst.BaseSmallStatement]

    @property
    def is_at_top(self) -> bool:
        """Whether the import is a statement of the module itself, in no function and under no condition."""
        return self.site.parents[0] is self.site.parents[-2]


def imported_names(file: PythonFile) -> Iterator[ImportedName]:
    """All names that imports bind anywhere in `file`, in source order."""
    for site in find_nodes(file, (cst.Import, cst.ImportFrom), ["import"]):
        node = site.node
        if isinstance(node, cst.Import):
            for alias in node.names:
                package = alias.evaluated_name.partition(".")[0]
                origin = alias.evaluated_name if alias.asname else package
                yield ImportedName(alias.evaluated_alias or package, origin, alias.evaluated_name, site)
        elif isinstance(node, cst.ImportFrom):
            prefix = "." * len(node.relative) + (f"{plain_name(node.module)}." if node.module else "")
            if isinstance(node.names, cst.ImportStar):
                yield ImportedName("*", f"{prefix}*", f"{prefix}*", site)
                continue
            for alias in node.names:
                target = prefix + alias.evaluated_name
                yield ImportedName(alias.evaluated_alias or alias.evaluated_name, target, target, site)


def add_imports(
    file: PythonFile, imports: list[ImportedName], lines: list[str], *, after: str, ahead_of: tuple[str, ...]
) -> Replacement:
    """Put import lines among the imports of the module.

    They go behind `import <after>`; else before the first import from one of the packages `ahead_of`; else behind
    the last import; else, where there are none, before the first statement of the module, below its docstring.

    Args:
        file: The file.
        imports: The imports at the top of the module that count, in source order.
        lines: The import lines to add.
        after: The module to look for first.
        ahead_of: Packages before which the lines go.
    """
    for imported in imports:
        if imported.name == imported.target == after:
            return file.insert_after(imported.site.statement, lines)
    for imported in imports:
        if imported.target.partition(".")[0] in ahead_of:
            return file.insert_before(imported.site.statement, lines)
    if imports:
        return file.insert_after(imports[-1].site.statement, lines)
    return file.insert_above_comments(below_docstring(file.module)[0], [*lines, ""])
