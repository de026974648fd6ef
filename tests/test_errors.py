from __future__ import annotations

from glmpatch.errors import EnvironmentLacksError, ExitCode, GlmpatchError, TreeError, UsageError


def test_the_exit_codes_are_those_of_the_design() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "CONFLICT": 1,
        "USAGE": 2,
        "ENVIRONMENT": 3,
        "BUILD": 4,
        "BUG": 70,
        "INTERRUPTED": 130,
    }


def test_each_error_has_its_code() -> None:
    codes = {cls: cls("m").exit_code for cls in (TreeError, UsageError, EnvironmentLacksError)}
    assert codes == {
        TreeError: ExitCode.CONFLICT,
        UsageError: ExitCode.USAGE,
        EnvironmentLacksError: ExitCode.ENVIRONMENT,
    }


def test_an_error_has_a_message_and_a_hint() -> None:
    error = GlmpatchError("what", hint="do this")
    assert (str(error), error.message, error.hint) == ("what", "what", "do this")
    assert GlmpatchError("what").hint == ""
