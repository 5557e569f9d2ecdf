/* retry_after.h - the Retry-After header, by our own parser: libcurl 7.88 answers nonsense for past
 * dates. Pure; fuzzed. */
#ifndef OB_WEBHOOK_RETRY_AFTER_H
#define OB_WEBHOOK_RETRY_AFTER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Seconds with an optional fraction, or an IMF-fixdate. A past date gives 0; more than max_ms is
 * clamped. OB_ESYNTAX for anything else (the header is then ignored). now_unix_ms: the date it is.
 */
int retry_after_parse(const char *text, size_t len, int64_t now_unix_ms, uint64_t max_ms,
                      uint64_t *ret_ms) OB_MUST_CHECK;

#endif
