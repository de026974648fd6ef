from __future__ import annotations

import pytest

from glmpatch.machine.topology import format_cpu_list, parse_cpu_list


@pytest.mark.parametrize("text", ["", "0", "0-3,8,10-11", "65535"])
def test_lists_of_cpus(text: str) -> None:
    assert format_cpu_list(parse_cpu_list(f"{text}\n")) == text


@pytest.mark.parametrize("text", ["?", "-1", "0-65536", "0-99999999999999"])
def test_what_is_no_list_of_cpus(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|numbers that no machine has"):
        parse_cpu_list(text)
