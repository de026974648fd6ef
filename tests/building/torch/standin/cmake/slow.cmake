# The file that is here while it sleeps tells a test that all kernels are compiled.
if("$ENV{STANDIN_SLOW}" GREATER 0)
  file(TOUCH slow.started)
  execute_process(COMMAND ${CMAKE_COMMAND} -E sleep $ENV{STANDIN_SLOW})
endif()
file(WRITE slow.cpp "// As slow as STANDIN_SLOW said.\n")
