# What `cmake --install` puts where. Components: development (the headers and what finds them), program.
include(CMakePackageConfigHelpers)
set(pgoutbox_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pgoutbox)
set(pgoutbox_pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

file(GLOB public_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/outbox/*.h)
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/outbox COMPONENT development)

install(TARGETS pgoutbox EXPORT pgoutboxTargets)
install(EXPORT pgoutboxTargets NAMESPACE pgoutbox:: DESTINATION ${pgoutbox_cmake_dir} COMPONENT development)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/pgoutboxConfig.cmake.in
  ${PROJECT_BINARY_DIR}/pgoutboxConfig.cmake INSTALL_DESTINATION ${pgoutbox_cmake_dir})
# Before 1.0 a minor version may change what is source-compatible.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pgoutboxConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/pgoutboxConfig.cmake ${PROJECT_BINARY_DIR}/pgoutboxConfigVersion.cmake
  DESTINATION ${pgoutbox_cmake_dir} COMPONENT development)

# The .pc file finds its prefix from where it lies: an installed tree may be moved.
file(RELATIVE_PATH PGOUTBOX_PC_TO_PREFIX /prefix/${pgoutbox_pc_dir} /prefix)
string(REGEX REPLACE "/$" "" PGOUTBOX_PC_TO_PREFIX "${PGOUTBOX_PC_TO_PREFIX}")
configure_file(${PROJECT_SOURCE_DIR}/cmake/pgoutbox.pc.in ${PROJECT_BINARY_DIR}/pgoutbox.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/pgoutbox.pc DESTINATION ${pgoutbox_pc_dir} COMPONENT development)

if(TARGET outbox_cli)
  install(TARGETS outbox_cli DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
endif()
# systemd looks for units of local software in /usr/local/lib. The prefix may be given at install time.
install(CODE "set(bindir \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}\")
configure_file(\"${PROJECT_SOURCE_DIR}/packaging/outbox.service.in\"
               \"${PROJECT_BINARY_DIR}/outbox.service\" @ONLY)" COMPONENT program)
install(FILES ${PROJECT_BINARY_DIR}/outbox.service DESTINATION lib/systemd/system COMPONENT program)
file(GLOB sql_scripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/sql/*.sql)
install(FILES ${sql_scripts} DESTINATION ${CMAKE_INSTALL_DATADIR}/pgoutbox/sql COMPONENT program)
install(FILES ${PROJECT_SOURCE_DIR}/examples/outbox.yaml DESTINATION ${CMAKE_INSTALL_DATADIR}/pgoutbox
  COMPONENT program)
foreach(section 1 5 7)
  file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.${section})
  if(pages)
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT program)
  endif()
endforeach()
