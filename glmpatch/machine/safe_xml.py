"""Reads XML of anybody's."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

# The largest topologies have some megabytes and a dozen levels.
MOST_BYTES = 64_000_000
_MOST_LEVELS = 100


def read_xml(data: bytes) -> Element:
    """Parse XML, with all off that data has no use for and that could do harm: entities, endless depth and size.

    A DOCTYPE that names a file is fine: the file is not read.

    Raises:
        ValueError: It is not XML, or such as is refused. The message says what, and where.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES // 1_000_000} MB")
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_LEVELS:
            raise ValueError(f"more than {_MOST_LEVELS} levels of elements")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse_entity(name: str, *_: object) -> None:
        raise ValueError(f"it declares the entity {name!r}")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse_entity
    try:
        parser.Parse(data, True)
    # The latter for an encoding that nobody knows.
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"it is not XML: {error}") from None
    return builder.close()
