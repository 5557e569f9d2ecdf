/* version.h - what program this is. Both come from outbox/outbox.h, the one place they are written.
 */
#ifndef OB_BASE_VERSION_H
#define OB_BASE_VERSION_H

/* OB_VERSION "0.1.0" and OB_SCHEMA_VERSION are set by dispatcher/CMakeLists.txt. */
#if !defined(OB_VERSION) || !defined(OB_SCHEMA_VERSION)
#error "build with CMake: OB_VERSION and OB_SCHEMA_VERSION come from outbox/outbox.h"
#endif

#endif
