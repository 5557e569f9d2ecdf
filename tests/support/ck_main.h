/* ck_main.h - the main() of every check_*.c. A test file defines test_suite(); main runs it,
 * honours CK_FORK and the timeout multiplier, flushes stdio before forking, and exits 0, 1, or 77
 * (skipped). */
#ifndef OB_TEST_CK_MAIN_H
#define OB_TEST_CK_MAIN_H

#include <check.h>

Suite *test_suite(void);

/* Ends the whole binary with 77 before any test ran: it makes no sense in this build or on this
 * machine. (A missing PostgreSQL is pgcluster_start's own matter: OUTBOX_TEST_REQUIRE_PG.) */
void test_skip_all(const char *why) __attribute__((noreturn));

enum { TIMEOUT_UNIT_S = 10, TIMEOUT_DB_S = 30, TIMEOUT_E2E_S = 120 };

#endif
