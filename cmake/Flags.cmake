# Compiler flags. ob_flags is linked by everything that is ours and C11; the helper's headers are
# compiled with their own, stricter sets in tests/compile.
add_library(ob_flags INTERFACE)
target_compile_features(ob_flags INTERFACE c_std_11)
target_compile_options(ob_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2
  -Wundef -Wvla -Wcast-qual -Wwrite-strings -Wswitch-enum -fno-common
  $<$<BOOL:${OUTBOX_WERROR}>:-Werror>)
target_compile_definitions(ob_flags INTERFACE _POSIX_C_SOURCE=200809L
  $<$<BOOL:${OUTBOX_FAULTS}>:OB_FAULTS=1>)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(CMAKE_BUILD_TYPE MATCHES "Rel")
  target_compile_options(ob_flags INTERFACE -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
  add_link_options(-pie -Wl,-z,relro -Wl,-z,now)
endif()
if(OUTBOX_SANITIZE)
  add_compile_options(-fsanitize=${OUTBOX_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${OUTBOX_SANITIZE})
endif()
