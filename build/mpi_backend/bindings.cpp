// The Python module glmpatch_mpi._C.
#include "process_group.hpp"
#include "reduce.hpp"

#include <pybind11/chrono.h>
#include <torch/csrc/utils/pybind.h>

namespace py = pybind11;

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  using glmpatch::ProcessGroupMPI;
  py::module_::import("torch._C._distributed_c10d"); // registers the base class

  py::class_<ProcessGroupMPI, c10d::Backend, c10::intrusive_ptr<ProcessGroupMPI>>(module, "ProcessGroupMPI")
      .def_static("create", &ProcessGroupMPI::create, py::arg("ranks"), py::arg("timeout"),
                  py::call_guard<py::gil_scoped_release>());

  module.def("library_version", [] {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    return std::string(text, length);
  });
  module.def("isa", &glmpatch::isa);
  module.def("set_isa", &glmpatch::set_isa);
  module.def("stop", &glmpatch::Engine::stop, py::call_guard<py::gil_scoped_release>());
}
