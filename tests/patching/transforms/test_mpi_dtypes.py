from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmpatch.checking.postconditions import broken_in
from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Notice
from glmpatch.patching.transforms.mpi_dtypes import MpiDtypes
from glmpatch.patching.transforms.mpi_helpers import HELPERS
from tests.support import check_changed, check_refused, check_untouched

TRANSFORM = MpiDtypes()
OPS = "std::map<ReduceOp::RedOpType, MPI_Op> mpiOp = {{ReduceOp::SUM, MPI_SUM}};\n"
TYPES = "std::map<at::ScalarType, MPI_Datatype> mpiDatatype = {{at::kFloat, MPI_FLOAT}};\n"
REDUCE = "MPI_CHECK(MPI_Reduce(x, mpiDatatype.at(x.scalar_type()), mpiOp.at(op), comm));"
REDUCED = "MPI_CHECK(MPI_Reduce(x, glmpatch::datatypeOf(x.scalar_type()), glmpatch::opFor(op, x.scalar_type()), comm));"
FUNCTION = f"void f() {{ {REDUCE} }}\n"
CARRIED = TYPES.replace("{{", "{{at::kHalf, A}, {at::kBFloat16, B}, {at::kBool, C}, {")


def within(code: str, maps: str = OPS + TYPES) -> str:
    """A file with the maps and with code that uses them, one line behind the other."""
    return f"namespace c10d {{\nnamespace {{\n{maps}}}\n{code}}}\n"


def check_uses(before: str, after: str) -> None:
    helped = within(f"{after}\n").replace(TYPES, f"{TYPES}\n{HELPERS}\n")
    check_changed(TRANSFORM, within(f"{before}\n"), helped)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (f"void f() {{ {REDUCE} }}", f"void f() {{ {REDUCED} }}"),
        (
            "auto f = [=] { return MPI_Bcast(x, mpiDatatype.at(x[0]->y.scalar_type()), 0); };",
            "auto f = [=] { return MPI_Bcast(x, glmpatch::datatypeOf(x[0]->y.scalar_type()), 0); };",
        ),
        (
            "int n = MPI_A(mpiDatatype.at(x.t), mpiDatatype.at(x. /* */ t), mpiOp.at(op));",
            "int n = MPI_A(glmpatch::datatypeOf(x.t), glmpatch::datatypeOf(x. /* */ t), glmpatch::opFor(op, x.t));",
        ),
        (
            "int n = MPI_A(mpiOp . /* a */ at /* b */ (op), mpiDatatype\n.at(type));",
            "int n = MPI_A(glmpatch::opFor  /* a */  /* b */ (op, type), glmpatch::datatypeOf\n(type));",
        ),
        (
            "int n = MPI_Type_size(mpiDatatype.at(at::kFloat), &n);",
            "int n = MPI_Type_size(glmpatch::datatypeOf(at::kFloat), &n);",
        ),
        (f"{REDUCED}{REDUCE}", f"{REDUCED}{REDUCED}"),
        (f"void f() {{ BROKEN(x)}} void g() {{ {REDUCE} }}", f"void f() {{ BROKEN(x)}} void g() {{ {REDUCED} }}"),
    ],
)
def test_rewrites_each_use(before: str, after: str) -> None:
    check_uses(before, after)


@pytest.mark.parametrize(
    "maps",
    [
        OPS.replace("::RedOpType", "") + TYPES,
        "static " + OPS.replace(" = {", "{") + "const " + TYPES,
        TYPES.replace("at::", "c10::") + OPS.replace("std::map", "std::unordered_map"),
        OPS + TYPES.replace(" = {", " = { // first\n#ifdef A\n {at::kHalf, A}, {at::kBool, C},\n#endif\n"),
        OPS + CARRIED.replace("{at::kBool, C}, ", ""),
        OPS + CARRIED.replace("{at::kBool, C}, ", "\n#if MPI_VERSION > 3\n{at::kBool, C},\n#endif\n"),
        OPS + CARRIED.replace("{at::kBool, C}, ", "// {at::kBool, C},\n"),
    ],
)
def test_takes_the_maps_of_every_version(maps: str) -> None:
    outcome = TRANSFORM(within(FUNCTION, maps).encode())
    assert isinstance(outcome, Changed), outcome
    assert outcome.data.decode() == within(f"void f() {{ {REDUCED} }}\n", f"{maps}\n{HELPERS}\n")


@pytest.mark.parametrize(
    "maps", [OPS + CARRIED, OPS + CARRIED.replace("at::k", "at::ScalarType::") + "\n#if 0\n#endif\n"]
)
def test_leaves_a_map_that_carries_them_always(maps: str) -> None:
    (notice,) = check_untouched(TRANSFORM, within(FUNCTION + "auto found = mpiOp.find(op);\n", maps))
    assert notice == Notice("has bf16, fp16 and bool without glmpatch: left alone", 4)


def test_goes_on_where_a_part_is_done() -> None:
    helped = f"{OPS}{TYPES}\n{HELPERS}\n"
    check_changed(TRANSFORM, within(FUNCTION, helped), within(f"void f() {{ {REDUCED} }}\n", helped))
    half = "MPI_A(glmpatch::datatypeOf(x.y), mpiOp.at(op));\n"
    check_changed(
        TRANSFORM,
        within(half, helped),
        within("MPI_A(glmpatch::datatypeOf(x.y), glmpatch::opFor(op, x.y));\n", helped),
    )


def test_helpers_in_another_layout_are_the_helpers() -> None:
    bare = "\n".join(line.strip() for line in HELPERS.splitlines() if not line.startswith("//"))
    check_untouched(TRANSFORM, within(f"void f() {{ {REDUCED} }}\n", f"{OPS}{TYPES}{bare} // end\n"))


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("auto x = mpiDatatype.find(type);", 6, "mpiDatatype.find(type)"),
        ("for (auto& [key, value] : mpiOp) use(value);", 6, "only as mpiOp.at(...)"),
        ("int n = use(mpiOp, mpiDatatype.at(type));", 6, "only as mpiOp.at(...)"),
        ("auto x = mpiDatatype.at(type);", 6, "an argument of a call"),
        ("int n = use(mpiDatatype[type]);", 6, "only as mpiDatatype.at(...)"),
        ("int n = use(mpiDatatype.at);", 6, "only as mpiDatatype.at(...)"),
        ("int n = use(mpiDatatype.at());", 6, "only as mpiDatatype.at(...)"),
        ("int n = use(&mpiDatatype.at(type));", 6, "only as mpiDatatype.at(...)"),
        ("int n = use(this->mpiDatatype.at(type));", 6, "only as mpiDatatype.at(...)"),
        ("int n = use(other.mpiOp.at(op), mpiDatatype.at(type));", 6, "only as mpiOp.at(...)"),
        ("int n = use(c10d::mpiOp.at(op), mpiDatatype.at(type));", 6, "only as mpiOp.at(...)"),
        ("std::map<int, int> mpiOp;", 6, "std::map<int, int> mpiOp;"),
        ("int n = use(\n  mpiOp.at(op));", 7, "one mpiDatatype.at(...) beside"),
        ("int n = use(mpiOp.at(op), type);\nint m = use(mpiDatatype.at(type));", 6, "one mpiDatatype.at(...) beside"),
        ("int n = use(mpiDatatype.at(a),\n mpiDatatype.at(b),\n mpiOp.at(op));", 8, "one mpiDatatype.at(...) beside"),
        ("int n = use(mpiOp.at(op), mpiDatatype.at(next()));", 6, "of a plain expression"),
        ("int n = use(mpiOp.at(op), mpiDatatype.at(sizeof x));", 6, "of a plain expression"),
        ("int n = use(mpiOp.at(op), mpiDatatype.at(types[i++]));", 6, "of a plain expression"),
        ("int n = use(mpiOp.at(op), outer(mpiDatatype.at(type)));", 6, "one mpiDatatype.at(...) beside"),
        ("int n = use(mpiDatatype.at(type), 1 @ 2);", 6, "a parser can follow"),
        ("\n#define TYPE mpiDatatype.at(type)\n", 7, "not in a directive"),
    ],
)
def test_refuses_another_use(code: str, line: int, found: str) -> None:
    check_refused(TRANSFORM, within(f"{code}\n"), line=line, found=found)


@pytest.mark.parametrize(
    ("maps", "line", "found"),
    [
        ("", None, "no definition of mpiDatatype"),
        (TYPES, None, "no definition of mpiOp"),
        (OPS + "std::map<at::ScalarType, MPI_Datatype> mpiDatatype = filled();\n", 4, "with its entries"),
        (OPS + "std::map<std::string, MPI_Datatype> mpiDatatype = {};\n", 4, "of PyTorch's MPI backend"),
        (OPS.replace("MPI_Op>", "int>") + TYPES, 3, "of PyTorch's MPI backend"),
        (OPS + TYPES + TYPES, 5, "one map mpiDatatype"),
        (OPS + f"}}\n{TYPES}namespace {{\n", 5, "in an unnamed namespace"),
        (OPS + f"}}\nnamespace {{\n{TYPES}", 3, "in one unnamed namespace"),
        (OPS + f"}}\nnamespace named {{\n{TYPES}", 6, "in an unnamed namespace"),
        (f"void init() {{\n{OPS}}}\n{TYPES}", 4, "in an unnamed namespace"),
        (OPS + TYPES.replace("MPI_FLOAT}", "MPI_FLOAT @ 1}"), 4, "a parser can follow"),
        (OPS + f"int early = use(mpiOp.at(op), mpiDatatype.at(type));\n{TYPES}", 4, "used below the definitions"),
        (OPS + TYPES + "namespace glmpatch {\nint ours = 1;\n}\n", 5, "as this version of glmpatch writes it"),
        (OPS + TYPES + HELPERS.replace("a + b", "a - b") + "\n", 6, "as this version of glmpatch writes it"),
        (OPS + TYPES + (HELPERS + "\n") * 2, 7 + HELPERS.count("\n"), "as this version of glmpatch writes it"),
        (OPS + HELPERS + "\n" + TYPES, 5, "below mpiDatatype and mpiOp"),
        (OPS + TYPES + "}\n" + HELPERS + "\nnamespace {\n", 7, "below mpiDatatype and mpiOp, beside them"),
    ],
)
def test_refuses_other_maps(maps: str, line: int | None, found: str) -> None:
    conflict = check_refused(TRANSFORM, within(FUNCTION if "map" in maps else "", maps), line=line, found=found)
    assert conflict.line == line


def test_refuses_maps_that_nobody_asks() -> None:
    check_refused(TRANSFORM, within(""), line=4, found="collectives that ask mpiDatatype.at(...)")


# Code that the transform has no business with, near misses among it.
NOISE = [
    '// mpiOp.at(op) 名 "\n',
    "/* mpiDatatype.at(x)\n#if */\n",
    'const char* name = "mpiOp.at(op) \\" /*";\n',
    'auto raw = R"x(mpiDatatype.at(")x";\n',
    "int mpiOps = 1'000, mpiOp_ = 'm', notMpiOp = '\"';\n",
    "void g(){CHECK(false)}\n",
    "#if A\nint y; // else\n#else\nint z;\n#endif\n",
    "#define CHECK(x) \\\n  do { use(x); } while (0)\n",
    "template <class T> T h(T x) { return x < 1 ? h<T>(x) : x >> 2; }\n",
]


@given(
    st.lists(st.sampled_from([*NOISE, FUNCTION]), max_size=6),
    st.permutations([OPS, TYPES]),
    st.lists(st.sampled_from(NOISE), max_size=2),
    st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_stands_around(code: list[str], maps: list[str], between: list[str], newline: str) -> None:
    data = within("".join(code) + FUNCTION, maps[0] + "".join(between) + maps[1]).replace("\n", newline).encode()
    outcome = TRANSFORM(data)
    assert isinstance(outcome, Changed)
    assert broken_in("file.cpp", data, outcome.data, [TRANSFORM]) == ()
    assert isinstance(TRANSFORM(outcome.data), AlreadyDone)


@given(st.text(alphabet=" \n(){}<>;:,.=\"'/*#\\@Ax", max_size=30), st.integers(0, 400))
def test_damaged_code_is_refused_or_only_its_uses_change(damage: str, place: int) -> None:
    code = within(FUNCTION)
    data = (code[:place] + damage + code[place:]).encode()
    outcome = TRANSFORM(data)
    if isinstance(outcome, Conflict):
        assert outcome.found
        return
    assert broken_in("file.cpp", data, outcome.data if isinstance(outcome, Changed) else data, [TRANSFORM]) == ()
