/* assert.h - assertions that stay on in release builds, crash points for tests, and rules.
 *
 * ob_assert() is for programmer errors only: it prints file, line, function and condition, and
 * aborts (core). The truth is in PostgreSQL, so crashing is always safe; corrupt memory is not. */
#ifndef OB_BASE_ASSERT_H
#define OB_BASE_ASSERT_H

#include <stdbool.h>

#include "base/err.h"

OB_NORETURN void ob_assert_failed(const char *file, int line, const char *func, const char *cond);

#define ob_assert(cond) ((cond) ? (void)0 : ob_assert_failed(__FILE__, __LINE__, __func__, #cond))

/* OB_CRASH_POINT("after_settle_sent"): in builds with OB_FAULTS, the process dies there at once, as
 * by kill -9, when the environment variable OB_CRASH names the point: "NAME" the first time it is
 * reached, "NAME:3" the third. Other builds: nothing. */
#ifdef OB_FAULTS
void ob_crash_point(const char *name);
#define OB_CRASH_POINT(name) ob_crash_point(name)
#else
#define OB_CRASH_POINT(name) ((void)0)
#endif

/* OB_RULE("watch_set"): true; in builds with OB_FAULTS, false when the environment variable
 * OUTBOX_TEST_RULE_OFF names it. A test that proves a rule is seen to fail without it. */
#ifdef OB_FAULTS
bool ob_rule_is_on(const char *name);
#define OB_RULE(name) ob_rule_is_on(name)
#else
#define OB_RULE(name) true
#endif

#endif
