"""The C++ that `mpi-dtypes` puts into PyTorch's MPI backend, and how it is found again."""

from __future__ import annotations

import re

import tree_sitter

from glmpatch.patching.syntax.cpp import CppFile

NAMESPACE = "glmpatch"
_LOOSE_BLANK = re.compile(r"\b \B|\B \b|\B \B")

# MPI carries the 16-bit floats as plain 16 bits and a bool as a byte: these names are as old as MPI-2.2, and never the
# MPI's own bf16 or fp16, which few have. So both functions decide before the maps are asked, whatever is in them.
HELPERS = """\
// By glmpatch. bf16, fp16 and bool, for every MPI: they travel as plain bits, and are reduced here.
namespace glmpatch {

using Kind = decltype(mpiOp)::key_type;
using Type = decltype(mpiDatatype)::key_type;

// One step of a reduction: in float, rounded once. A NaN wins, as in torch.minimum and torch.maximum.
template <class Number, Kind kind>
void combine(void* in, void* inout, int* count, MPI_Datatype*) {
  const Number* from = static_cast<const Number*>(in);
  Number* into = static_cast<Number*>(inout);
  for (int i = 0; i < *count; ++i) {
    const float a = into[i];
    const float b = from[i];
    if constexpr (kind == ReduceOp::SUM) {
      into[i] = a + b;
    } else if constexpr (kind == ReduceOp::PRODUCT) {
      into[i] = a * b;
    } else if constexpr (kind == ReduceOp::MIN) {
      into[i] = b < a || b != b ? b : a;
    } else {
      into[i] = b > a || b != b ? b : a;
    }
  }
}

// Made at the first use, which is behind MPI_Init; MPI_Finalize takes it away.
template <class Number, Kind kind>
MPI_Op made() {
  static const MPI_Op op = [] {
    MPI_Op fresh = MPI_OP_NULL;
    const int status = MPI_Op_create(&combine<Number, kind>, 1, &fresh);
    TORCH_CHECK(status == MPI_SUCCESS, "MPI_Op_create failed with error code ", status);
    return fresh;
  }();
  return op;
}

// For what it does not know, the error that the map would raise: no other operation may run on those bits.
template <class Number>
MPI_Op madeFor(Kind kind) {
  switch (kind) {
    case ReduceOp::SUM:
      return made<Number, ReduceOp::SUM>();
    case ReduceOp::PRODUCT:
      return made<Number, ReduceOp::PRODUCT>();
    case ReduceOp::MIN:
      return made<Number, ReduceOp::MIN>();
    case ReduceOp::MAX:
      return made<Number, ReduceOp::MAX>();
    default:
      throw std::out_of_range("bf16 and fp16 have only SUM, PRODUCT, MIN and MAX with MPI");
  }
}

MPI_Op logicalFor(Kind kind) {
  switch (kind) {
    case ReduceOp::SUM:
    case ReduceOp::MAX:
      return MPI_LOR;
    case ReduceOp::PRODUCT:
    case ReduceOp::MIN:
      return MPI_LAND;
    default:
      throw std::out_of_range("bool has only SUM, PRODUCT, MIN and MAX with MPI");
  }
}

MPI_Datatype datatypeOf(Type type) {
  switch (type) {
    case at::kBFloat16:
    case at::kHalf:
      return MPI_UINT16_T;
    case at::kBool:
      return MPI_UNSIGNED_CHAR;
    default:
      return mpiDatatype.at(type);
  }
}

MPI_Op opFor(Kind kind, Type type) {
  switch (type) {
    case at::kBFloat16:
      return madeFor<c10::BFloat16>(kind);
    case at::kHalf:
      return madeFor<c10::Half>(kind);
    case at::kBool:
      return logicalFor(kind);
    default:
      return mpiOp.at(kind);
  }
}

}"""


def find_helpers(file: CppFile) -> tree_sitter.Node | None:
    """The namespace with the helpers, in any layout and with any comments.

    Raises:
        Refusal: Its code is not what is written here, or it is there twice.
    """
    found = _namespaces(file)
    for namespace in found:
        if namespace != found[0] or _code(file, namespace) != _written():
            file.refuse(
                namespace.start_byte,
                f"the namespace {NAMESPACE} as this version of glmpatch writes it",
                hint="restore the file of PyTorch, and patch it again",
            )
    return found[0] if found else None


def squeeze(code: str) -> str:
    """Code without the blanks that part no two words."""
    return _LOOSE_BLANK.sub("", code)


def _namespaces(file: CppFile) -> list[tree_sitter.Node]:
    around = [node.parent for node in file.find(NAMESPACE)]
    return [node for node in around if node and node.type == "namespace_definition"]


def _code(file: CppFile, namespace: tree_sitter.Node) -> str:
    return squeeze(file.source(namespace))


def _written() -> str:
    file = CppFile(HELPERS.encode())
    return _code(file, *_namespaces(file))
