/* clock.h - the clocks: which one for what, and how times are printed.
 *
 * Intervals and leases: clock_mono_ms. What must also run while the machine sleeps or this process
 * is stopped (a lease's deadline given to the spawner): clock_boot_ms. Dates for people:
 * clock_unix_us. */
#ifndef OB_BASE_CLOCK_H
#define OB_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

uint64_t clock_mono_ms(void);
uint64_t clock_mono_us(void);
uint64_t clock_boot_ms(void);
int64_t clock_unix_us(void);

/* "2026-01-02T03:04:05.678Z" with 3 (ms) or 6 (us) digits of fraction, or none for 0. */
enum { CLOCK_RFC3339_SIZE = 40 };
void clock_rfc3339(int64_t unix_us, int digits, char ret_text[CLOCK_RFC3339_SIZE]);

/* Days from 1970-01-01 to a date of the Gregorian calendar, years 0 to 9999; the day may be any. */
int64_t clock_days(int year, int month, int day);
int clock_days_in_month(int year, int month);
/* "2026-12-31T12:00:00Z" or "2026-12-31" (its first moment), in UTC. OB_EINVAL for anything else.
 */
int clock_parse_utc(const char *text, int64_t *ret_unix_us) OB_MUST_CHECK;

/* "1.2s", "3m 20s", "2h 5m", "450ms": a duration as a person would say it. */
enum { CLOCK_DURATION_SIZE = 32 };
void clock_duration(uint64_t ms, char ret_text[CLOCK_DURATION_SIZE]);

#endif
