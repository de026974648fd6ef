from __future__ import annotations

from typing import get_args

import click
import pytest
from click.testing import CliRunner

from glmpatch.commands.options import series_options
from glmpatch.patching.model import Backend, Dtype, Options
from glmpatch.patching.series import Series


def test_the_help_names_every_choice() -> None:
    @click.command()
    @series_options
    def command(*, series: Series) -> None:
        """Nothing."""

    output = CliRunner().invoke(command, ["--help"]).output
    for choice in (*get_args(Backend), *get_args(Dtype)):
        assert choice in output


@pytest.mark.parametrize(
    ("arguments", "options"), [([], Options()), (["--dtype", "fp32", "--backend", "gloo"], Options("gloo", "fp32"))]
)
def test_the_choices_reach_the_series(monkeypatch: pytest.MonkeyPatch, arguments: list[str], options: Options) -> None:
    seen: list[Options] = []

    class Loaded:
        def select(self, **_names: object) -> Loaded:
            return self

    def load(options: Options, *, extra: object) -> Loaded:
        assert extra == ()
        seen.append(options)
        return Loaded()

    monkeypatch.setattr("glmpatch.commands.options.load_series", load)

    @click.command()
    @series_options
    def command(*, series: object) -> None:
        assert isinstance(series, Loaded)

    assert CliRunner().invoke(command, arguments).exit_code == 0
    assert seen == [options]
