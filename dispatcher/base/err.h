/* err.h - the daemon's error codes: one number space with libuv's, one ob_strerror() for both.
 *
 * Functions that may fail return int: 0, a libuv code (UV_E*, negative errno) or one of these. An
 * executed job's fate is not an error: that is struct outcome, in core/outcome.h. */
#ifndef OB_BASE_ERR_H
#define OB_BASE_ERR_H

#define OB_MUST_CHECK        __attribute__((warn_unused_result))
#define OB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define OB_NORETURN          __attribute__((noreturn))

/* Below libuv's range (UV_ERRNO_MAX is -4096). Keep in step with the table in err.c. */
enum ob_err {
    OB_OK = 0,
    OB_ENOMEM = -5001,     /* an allocation failed */
    OB_EINVAL = -5002,     /* an argument or a value from outside is out of range */
    OB_ECONFIG = -5003,    /* the configuration is wrong: exit 78 */
    OB_ECONN = -5004,      /* no connection to the server, or it was lost: reconnect */
    OB_EDB = -5005,        /* the server refused a statement; its SQLSTATE says why */
    OB_ESCHEMA = -5006,    /* schema outbox absent or too old: wait for `outbox migrate` */
    OB_EINCOMPAT = -5007,  /* the schema needs a newer program: exit 69 */
    OB_EPRIVILEGE = -5008, /* a GRANT is missing */
    OB_ETOOBIG = -5009,    /* over a documented limit */
    OB_ENOTFOUND = -5010,  /* no such job, task or dispatcher: exit 1 */
    OB_EBUSY = -5011,      /* taken by somebody else (a name, a lock): exit 75 */
    OB_ESPAWN = -5012,     /* the spawner is gone, or could not start a child */
    OB_ESYNTAX = -5013,    /* not JSON, not msgpack, not YAML */
    OB_EUSAGE = -5014      /* the command line is wrong: exit 64 */
};

/* Text for any code above or of libuv's. Never NULL; static storage. */
const char *ob_strerror(int err);

/* Exit codes, after sysexits.h; documented in docs/cli.md. */
enum ob_exit {
    OB_EXIT_OK = 0,
    OB_EXIT_FAILED = 1, /* not found, or the operation failed */
    OB_EXIT_USAGE = 64,
    OB_EXIT_INCOMPATIBLE = 69,
    OB_EXIT_TRY_AGAIN =
        75, /* server unreachable for a command, name taken, rows left to their lease */
    OB_EXIT_CONFIG = 78
};

/* The exit code that a command ending with err returns. */
int ob_exit_code(int err);

#endif
