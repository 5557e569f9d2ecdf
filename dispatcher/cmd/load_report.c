/* load_report.c - what `outbox enqueue --file` says: which line is wrong, what is in the database
 * then, and how it ended. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cmd/jout.h"
#include "cmd/load_private.h"

const char *load_name(const struct load *l)
{
    return strcmp(l->path, "-") == 0 ? "standard input" : l->path;
}

int load_bad_line(struct load *l, uint64_t line, const char *message, const char *hint)
{
    progress_end(&l->progress);
    cmd_error(l->args, "%s:%" PRIu64 ": %s%s%s", load_name(l), line, message,
              hint[0] != '\0' ? ". " : "", hint);
    return OB_EXIT_FAILED;
}

/* The classes of errors that data cause: "data exception", "program limit exceeded". */
static bool is_about_data(const struct admin_error *error)
{
    return error->err == OB_EDB &&
           (strncmp(error->sqlstate, "22", 2) == 0 || strncmp(error->sqlstate, "54", 2) == 0);
}

/* Whether the server takes the elements [from, to) of the chunk as jsonb, for all that it says. */
static bool is_taken(struct load *l, const struct chunk *c, size_t from, size_t to,
                     struct admin_error *reterr)
{
    struct buf part;
    size_t end = c->starts[to] - (to < c->count ? strlen(",\n") : 0);
    buf_init(&part, c->text.len_max);
    buf_putc(&part, '[');
    buf_append(&part, c->text.data + c->starts[from], end - c->starts[from]);
    buf_putc(&part, ']');
    bool taken = part.err != 0 || admin_check_jsonb(l->admin, part.data, reterr) == 0 ||
                 !is_about_data(reterr);
    buf_deinit(&part);
    return taken;
}

/* The server refused the text of a chunk as a whole, before it looked at its elements: a number
 * that its numeric cannot hold, say. Finds the first element that it refuses alone; -1: none. */
static int64_t find_refused(struct load *l, const struct chunk *c, struct admin_error *reterr)
{
    size_t from = 0;
    size_t to = c->count;
    admin_bulk_end(&l->bulk);
    while (to - from > 1) {
        size_t middle = from + (to - from) / 2;
        if (is_taken(l, c, from, middle, reterr))
            from = middle;
        else
            to = middle;
    }
    return is_taken(l, c, from, to, reterr) ? -1 : (int64_t)from;
}

int load_refused(struct load *l, const struct chunk *c, int64_t element,
                 const struct admin_error *error)
{
    struct admin_error found = *error;
    progress_end(&l->progress);
    if (element < 0 && is_about_data(error))
        element = find_refused(l, c, &found);
    if (load_stop_signal() != 0)
        return 128 + load_stop_signal();
    if (element >= 0 && (uint64_t)element < c->count)
        return load_bad_line(l, c->lines[element], found.message, found.hint);
    int code = cmd_db_failed(l->args, l->admin, error);
    if (is_about_data(error))
        cmd_error(l->args, "%s: it was in lines %" PRIu64 " to %" PRIu64, load_name(l), c->lines[0],
                  c->lines[c->count - 1]);
    return code;
}

int load_commit_failed(struct load *l, const struct admin_error *error)
{
    progress_end(&l->progress);
    return cmd_db_failed(l->args, l->admin, error);
}

int load_say_rest(struct load *l, int code)
{
    const char *why = load_stop_signal() != 0 ? "interrupted: " : "";
    if (l->is_unknown) {
        cmd_error(l->args,
                  "the connection was lost while lines %" PRIu64 " to %" PRIu64
                  " were being committed: they may be enqueued or not, look before you try again",
                  l->committed.line + 1, l->answered.line);
        code = OB_EXIT_FAILED;
    }
    if (l->committed.line > 0) {
        cmd_error(l->args,
                  "%slines 1 to %" PRIu64 " are enqueued and committed (%" PRId64
                  " jobs), nothing after them; go on with `tail -n +%" PRIu64
                  "`, not from the beginning",
                  why, l->committed.line, l->committed.jobs, l->committed.line + 1);
        /* 75 says that the same command may simply be tried again. */
        return code == OB_EXIT_TRY_AGAIN ? OB_EXIT_FAILED : code;
    }
    if (!l->is_unknown)
        cmd_error(l->args, "%snothing was enqueued", why);
    return code;
}

static void print_json(const struct load *l, int code, uint64_t ms)
{
    const struct load_sum *sum = &l->committed;
    struct jout j;
    jout_init(&j, stdout);
    jout_open_object(&j, NULL);
    jout_int(&j, "enqueued", sum->jobs);
    jout_int(&j, "existing", sum->existing);
    if (sum->jobs > 0) {
        jout_int(&j, "first_id", sum->first_id);
        jout_int(&j, "last_id", sum->last_id);
    } else {
        jout_null(&j, "first_id");
        jout_null(&j, "last_id");
    }
    jout_int(&j, "lines", (int64_t)sum->line);
    jout_int(&j, "ms", (int64_t)ms);
    jout_bool(&j, "complete", code == 0);
    jout_close(&j);
    jout_end(&j);
}

void load_summary(struct load *l, int code)
{
    const struct load_sum *sum = &l->committed;
    uint64_t ms = clock_mono_ms() - l->began_ms;
    if (cmd_has(l->args, "json")) {
        print_json(l, code, ms);
        return;
    }
    if (code != 0 || cmd_has(l->args, "quiet"))
        return;
    (void)printf("enqueued %" PRId64 " job%s", sum->jobs, sum->jobs == 1 ? "" : "s");
    if (sum->existing > 0)
        (void)printf(", %" PRId64 " of them there before", sum->existing);
    if (sum->jobs > 0)
        (void)printf(" (first id %" PRId64 ", last id %" PRId64 ")", sum->first_id, sum->last_id);
    (void)printf(" in %.1f s\n", (double)ms / 1000.0);
}
