/* load.c - see load.h. What it says is in load_report.c. */
#include "cmd/load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/jout.h"
#include "cmd/load_private.h"

enum { DRY_ERRORS_MAX = 20 };

static volatile sig_atomic_t stop;

int load_stop_signal(void)
{
    return stop;
}

/* Once: the second time the signal does what it always did. */
static void on_signal(int signum)
{
    int saved = errno;
    stop = signum;
    admin_cancel_now();
    errno = saved;
}

/* No SA_RESTART: waiting for standard input is to end. */
static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction before;
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_signal;
        action.sa_flags = (int)SA_RESETHAND;
        (void)sigfillset(&action.sa_mask);
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            (void)sigaction(signals[i], &action, NULL);
    }
}

/* --- reading --- */

static void chunk_clear(struct chunk *c)
{
    buf_clear(&c->text);
    buf_putc(&c->text, '[');
    c->count = 0;
    c->starts[0] = 1;
}

/* The next line that is not blank: 1, 0 at the end, or -1 and l->problem. */
static int next_line(struct load *l, const char **ret_text, size_t *ret_len)
{
    int got;
    do {
        got = lines_next(&l->lines, ret_text, ret_len);
    } while (got == 1 && jobline_is_blank(*ret_text, *ret_len));
    if (got == OB_ETOOBIG)
        (void)snprintf(l->problem, sizeof l->problem,
                       "the line is longer than %d MiB; expected one job on each line",
                       JOBLINE_BYTES_MAX / 1024 / 1024);
    else if (got < 0 && got != -EINTR)
        (void)snprintf(l->problem, sizeof l->problem, "cannot be read: %s",
                       got <= -4096 ? ob_strerror(got) : strerror(-got));
    return got < 0 ? -1 : got;
}

static bool is_batch_full(const struct load *l)
{
    return l->batch > 0 && l->in_batch >= l->batch;
}

/* Adds a line to the chunk, or sets l->problem. */
static void add_line(struct load *l, struct chunk *c, const char *text, size_t len)
{
    if (c->count > 0)
        buf_puts(&c->text, ",\n");
    c->starts[c->count] = c->text.len;
    if (jobline_append(text, len, &l->defaults, &c->text, l->problem) != 0)
        return;
    if (c->text.err != 0)
        (void)snprintf(l->problem, sizeof l->problem, "%s", ob_strerror(c->text.err));
    c->lines[c->count++] = l->lines.number;
    c->starts[c->count] = c->text.len;
    l->in_batch++;
    l->seen++;
}

/* Fills the chunk as far as its limits, the batch and the file go. False: l->problem, or a signal.
 */
static bool fill(struct load *l, struct chunk *c)
{
    chunk_clear(c);
    while (c->count < CHUNK_JOBS && c->text.len < CHUNK_BYTES && !is_batch_full(l)) {
        const char *text;
        size_t len;
        int got = next_line(l, &text, &len);
        if (got < 0)
            return false;
        if (got == 0) {
            l->is_at_end = true;
            break;
        }
        add_line(l, c, text, len);
        if (l->problem[0] != '\0')
            return false;
    }
    buf_putc(&c->text, ']');
    if (c->text.err != 0)
        (void)snprintf(l->problem, sizeof l->problem, "%s", ob_strerror(c->text.err));
    return c->text.err == 0;
}

/* --- sending --- */

static int interrupted(void)
{
    return stop != 0 ? 128 + stop : 0;
}

/* Reads answers until at most so many chunks have none. 0 or an exit code after a message. */
static int receive(struct load *l, unsigned in_flight_max)
{
    while (l->in_flight > in_flight_max) {
        const struct chunk *c = &l->chunks[(l->sent - l->in_flight) % CHUNKS];
        struct admin_bulk_answer answer;
        struct admin_error error;
        int64_t element = -1;
        int err = admin_bulk_receive(&l->bulk, &answer, &element, &error);
        if (err != 0)
            return interrupted() != 0 ? interrupted() : load_refused(l, c, element, &error);
        l->in_flight--;
        if (l->answered.first_id == 0)
            l->answered.first_id = answer.first_id;
        l->answered.last_id = answer.last_id;
        l->answered.jobs += answer.enqueued;
        l->answered.existing += answer.existing;
        l->answered.line = c->lines[c->count - 1];
        progress_load(&l->progress, l->lines.bytes, l->answered.jobs);
    }
    return 0;
}

static int send_chunk(struct load *l, const struct chunk *c)
{
    struct admin_error error;
    int code = receive(l, IN_FLIGHT_MAX - 1);
    if (code != 0)
        return code;
    if (admin_bulk_send(&l->bulk, c->text.data, &error) != 0)
        return load_refused(l, c, -1, &error);
    l->sent++;
    l->in_flight++;
    return 0;
}

static int commit(struct load *l)
{
    struct admin_error error;
    int code = receive(l, 0);
    if (code == 0)
        code = interrupted();
    if (code != 0)
        return code;
    if (admin_bulk_commit(&l->bulk, &l->is_unknown, &error) != 0)
        return interrupted() != 0 && !l->is_unknown ? interrupted() : load_commit_failed(l, &error);
    l->committed = l->answered;
    l->in_batch = 0;
    return 0;
}

/* From the first line to the last commit. */
static int pump(struct load *l)
{
    while (!l->is_at_end) {
        struct chunk *c = &l->chunks[l->sent % CHUNKS];
        bool filled = fill(l, c);
        int code = interrupted();
        if (!filled && code == 0) {
            /* Earlier lines have gone to the server already: their errors come first. */
            code = receive(l, 0);
            if (code == 0)
                code = load_bad_line(l, l->lines.number, l->problem, "");
        }
        if (code == 0 && c->count > 0)
            code = send_chunk(l, c);
        if (code == 0 && (l->is_at_end || is_batch_full(l)))
            code = commit(l);
        if (code != 0)
            return code;
    }
    return 0;
}

static int enqueue(struct load *l)
{
    struct admin_error error;
    int code = cmd_connect_schema(l->args, &l->admin);
    if (code != 0)
        return code;
    admin_cancel_prepare(l->admin);
    catch_signals();
    if (admin_bulk_start(&l->bulk, l->admin, &error) != 0)
        return cmd_db_failed(l->args, l->admin, &error);
    code = pump(l);
    admin_bulk_end(&l->bulk);
    progress_end(&l->progress);
    if (code != 0)
        code = load_say_rest(l, code);
    load_summary(l, code);
    return code;
}

/* --- without a database --- */

static void say_checked(const struct load *l, int64_t jobs, int64_t errors)
{
    if (cmd_has(l->args, "json")) {
        struct jout j;
        jout_init(&j, stdout);
        jout_open_object(&j, NULL);
        jout_bool(&j, "dry_run", true);
        jout_int(&j, "jobs", jobs);
        jout_int(&j, "lines", (int64_t)l->lines.number);
        jout_int(&j, "errors", errors);
        jout_close(&j);
        jout_end(&j);
    } else if (errors == 0 && !cmd_has(l->args, "quiet")) {
        (void)printf("%lld job%s would be enqueued\n", (long long)jobs, jobs == 1 ? "" : "s");
    }
}

/* Checks every line, and reports the first errors of them all. */
static int check_all(struct load *l)
{
    int64_t errors = 0;
    const char *text;
    size_t len;
    struct chunk *c = &l->chunks[0];
    for (;;) {
        chunk_clear(c);
        int got = next_line(l, &text, &len);
        if (got == 0)
            break;
        if (got > 0)
            add_line(l, c, text, len);
        progress_load(&l->progress, l->lines.bytes, l->seen);
        if (l->problem[0] == '\0')
            continue;
        errors++;
        if (errors <= DRY_ERRORS_MAX)
            (void)load_bad_line(l, l->lines.number, l->problem, "");
        l->problem[0] = '\0';
        if (got < 0)
            break; /* where the next line would begin is not known */
    }
    progress_end(&l->progress);
    if (errors > DRY_ERRORS_MAX)
        cmd_error(l->args, "%s: %lld more lines are wrong", load_name(l),
                  (long long)(errors - DRY_ERRORS_MAX));
    say_checked(l, l->seen, errors);
    return errors == 0 ? 0 : OB_EXIT_FAILED;
}

static int open_file(struct load *l)
{
    int err = lines_open(&l->lines, l->path, JOBLINE_BYTES_MAX, &stop);
    if (err != 0) {
        cmd_error(l->args, "%s: cannot be opened: %s", load_name(l), strerror(-err));
        return OB_EXIT_FAILED;
    }
    progress_init(&l->progress, l->lines.size);
    bool is_typed = strcmp(l->path, "-") == 0 && isatty(STDIN_FILENO) != 0;
    if (cmd_has(l->args, "quiet") || is_typed)
        l->progress.shown = false;
    return 0;
}

int load_file(const struct cmd_args *args, const struct admin_job *defaults)
{
    struct load *l = ob_xcalloc(1, sizeof *l);
    l->args = args;
    l->path = cmd_value(args, "file");
    l->began_ms = clock_mono_ms();
    for (size_t i = 0; i < CHUNKS; i++)
        buf_init(&l->chunks[i].text, CHUNK_BYTES + 2 * JOBLINE_BYTES_MAX);
    int code = cmd_int_value(args, "batch", 1, INT64_C(1000000000), &l->batch);
    if (code == 0 && jobline_defaults_init(&l->defaults, defaults) != 0)
        code = cmd_usage(args, "the options are too long");
    if (code == 0)
        code = open_file(l);
    if (code == 0)
        code = cmd_has(args, "dry-run") ? check_all(l) : enqueue(l);
    admin_cancel_prepare(NULL);
    admin_close(l->admin);
    lines_close(&l->lines);
    jobline_defaults_deinit(&l->defaults);
    for (size_t i = 0; i < CHUNKS; i++)
        buf_deinit(&l->chunks[i].text);
    ob_free(l);
    return code;
}
