/* testconfig.h - configurations as the program itself reads them, from YAML in a test. */
#ifndef OB_TEST_TESTCONFIG_H
#define OB_TEST_TESTCONFIG_H

#include "base/config.h"

/* Loaded and finished, with one reference; fails the test with the loader's messages if it is
 * wrong. */
struct config *testconfig_load(const char *yaml);

#endif
