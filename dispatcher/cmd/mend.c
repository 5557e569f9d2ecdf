/* mend.c - see mend.h. */
#include "cmd/mend.h"

#include <stdio.h>

#include "base/mem.h"
#include "cmd/jout.h"

struct mending {
    enum admin_verb verb;
    bool (*is_failure)(const char *answer);
    const char *(*explain)(const char *answer);
    struct jout *json; /* NULL: for people */
    bool failed;
};

static void tell(struct mending *m, const struct admin_rows *rows)
{
    for (size_t i = 0; i < admin_count(rows); i++) {
        const char *id = admin_text(rows, i, 0);
        const char *answer = admin_text(rows, i, 1);
        if (answer == NULL)
            answer = "not found";
        m->failed = m->failed || m->is_failure(answer);
        if (m->json != NULL) {
            jout_open_object(m->json, NULL);
            jout_raw(m->json, "id", id);
            jout_str(m->json, "answer", answer);
            jout_close(m->json);
        } else {
            (void)printf("%s: %s\n", id, m->explain(answer));
        }
    }
}

/* In portions, each a statement and hence a transaction of its own. */
static int ask(const struct cmd_args *args, struct admin *admin, struct mending *m,
               const int64_t *ids, size_t count)
{
    struct admin_error error;
    for (size_t from = 0; from < count; from += ADMIN_IDS_MAX) {
        size_t n = count - from < ADMIN_IDS_MAX ? count - from : ADMIN_IDS_MAX;
        struct admin_rows *rows = NULL;
        if (admin_answer(admin, m->verb, ids + from, n, &rows, &error) != 0)
            return cmd_db_failed(args, admin, &error);
        tell(m, rows);
        admin_rows_free(rows);
    }
    return m->failed ? OB_EXIT_FAILED : OB_EXIT_OK;
}

int mend_operands(const struct cmd_args *args, enum admin_verb verb,
                  bool (*is_failure)(const char *answer),
                  const char *(*explain)(const char *answer))
{
    size_t count = (size_t)args->operands_count;
    int64_t *ids = ob_xcalloc(count, sizeof *ids);
    int code = 0;
    for (size_t i = 0; i < count && code == 0; i++)
        code = cmd_id_operand(args, (int)i, &ids[i]);
    struct admin *admin = NULL;
    if (code == 0)
        code = cmd_connect_schema(args, &admin);
    if (code == 0) {
        struct jout json;
        jout_init(&json, stdout);
        struct mending m = {.verb = verb, .is_failure = is_failure, .explain = explain};
        if (cmd_has(args, "json")) {
            m.json = &json;
            jout_open_array(&json, NULL);
        }
        code = ask(args, admin, &m, ids, count);
        if (m.json != NULL) {
            jout_close(&json);
            jout_end(&json);
        }
    }
    admin_close(admin);
    ob_free(ids);
    return code;
}
