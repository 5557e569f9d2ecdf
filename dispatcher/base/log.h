/* log.h - one line an event, logfmt or JSON, to stderr or a descriptor.
 *
 *   log_info("started", LOG_STR("name", name), LOG_INT("pid", getpid()));
 *   ts=2026-01-02T03:04:05.678Z level=info event=started name=web1 pid=42
 *
 * Levels: error (someone must act), warn (self-healing; says what happens next), info (start, stop,
 * configuration, a periodic line of figures), debug. Values are quoted and control characters
 * escaped; a line that would be longer than LOG_LINE_MAX is cut inside a value or before a field,
 * ends in truncated=true and stays well-formed. A line that a full pipe does not take is dropped,
 * and the next one says log_dropped=N. Never log a payload, a password or a secret. Who logs:
 * core/, cmd/ and main.c. The other folders return errors and texts. */
#ifndef OB_BASE_LOG_H
#define OB_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };
enum { LOG_LINE_MAX = 4096 };

struct log_field {
    const char *key;
    enum { LOG_FIELD_END, LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_UINT } type;
    const char *str; /* NULL: the field is left out */
    int64_t num;
};

#define LOG_STR(k, v)  ((struct log_field){.key = (k), .type = LOG_FIELD_STR, .str = (v)})
#define LOG_INT(k, v)  ((struct log_field){.key = (k), .type = LOG_FIELD_INT, .num = (int64_t)(v)})
#define LOG_UINT(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_UINT, .num = (int64_t)(v)})
#define LOG_END        ((struct log_field){.type = LOG_FIELD_END})
/* For an event without fields. */
#define LOG_NONE LOG_STR("", NULL)

#define log_error(event, ...)                                                                      \
    log_write(LOG_ERROR, event, (const struct log_field[]){__VA_ARGS__, LOG_END})
#define log_warn(event, ...)                                                                       \
    log_write(LOG_WARN, event, (const struct log_field[]){__VA_ARGS__, LOG_END})
#define log_info(event, ...)                                                                       \
    log_write(LOG_INFO, event, (const struct log_field[]){__VA_ARGS__, LOG_END})
#define log_debug(event, ...)                                                                      \
    log_write(LOG_DEBUG, event, (const struct log_field[]){__VA_ARGS__, LOG_END})

/* Until then: info, logfmt, stderr. */
void log_setup(enum log_level level, enum log_format format, int fd);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* False, and counted, if the same key was let through less than interval_ms ago. *ret_suppressed is
 * how many were swallowed since; log it. For messages that a broken handler could repeat for every
 * job. */
bool log_allow(const char *key, uint64_t interval_ms, uint64_t *ret_suppressed);

/* "error" "warn" "info" "debug"; "logfmt" "json". */
int log_level_parse(const char *text, enum log_level *ret_level) OB_MUST_CHECK;    /* OB_EINVAL */
int log_format_parse(const char *text, enum log_format *ret_format) OB_MUST_CHECK; /* OB_EINVAL */

#endif
