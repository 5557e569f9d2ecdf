/* config_keys.c - the keys: their tables, and how a mapping of keys is read. */
#include <stdio.h>
#include <string.h>

#include "base/config_private.h"
#include "base/mem.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(a)[0])

enum {
    SHELL = KIND(HANDLER_SHELL),
    EXEC = KIND(HANDLER_EXEC),
    WORKER = KIND(HANDLER_WORKER),
    WEBHOOK = KIND(HANDLER_WEBHOOK),
    DISCARD = KIND(HANDLER_DISCARD),
    COMMAND = SHELL | EXEC,
    PROCESS = SHELL | EXEC | WORKER,
    EVERY = PROCESS | WEBHOOK | DISCARD
};

#define MS_SECOND UINT64_C(1000)
#define MS_HOUR   (3600 * MS_SECOND)
#define MS_DAY    (24 * MS_HOUR)
#define MS_YEAR   (365 * MS_DAY)
#define MIB       UINT64_C(1048576)

/* The order of each list is the order of its enum (bools: false first). */
static const char *const words_level[] = {"error", "warn", "info", "debug", NULL};
static const char *const words_format[] = {"logfmt", "json", NULL};
static const char *const words_bool[] = {"false", "true", "no", "yes", NULL};
static const char *const words_payload[] = {"json", "raw", NULL};
static const char *const words_on_dead[] = {"skip", "block", NULL};
static const char *const words_capture[] = {"on_failure", "always", "never", NULL};
static const char *const words_private[] = {"allow", "deny", NULL};
_Static_assert(LOG_DEBUG == 3 && LOG_JSON == 1 && CAPTURE_NEVER == 2 && PRIVATE_DENY == 1,
               "words follow the enums");

static void read_tasks(struct loader *l, const struct key *k, const yaml_node_t *node,
                       void *target);
static void print_nothing(const struct key *k, const void *value, unsigned indent, struct buf *out)
{
    (void)k;
    (void)value;
    (void)indent;
    (void)out;
}
static const struct key_type type_tasks = {read_tasks, print_nothing};

#define TOP(member) offsetof(struct config, member)
const struct key top_keys[] = {
    {"database", &type_database, TOP(database), .check = check_database},
    {"name", &type_string, TOP(name), .check = check_dispatcher_name},
    {"lock_dir", &type_string, TOP(lock_dir), .check = check_absolute},
    {"concurrency", &type_count, TOP(concurrency), .min = 1, .max = 10000},
    {"lease", &type_duration, TOP(lease_ms), .min = 5 * MS_SECOND, .max = MS_HOUR},
    {"stop_timeout", &type_duration, TOP(stop_timeout_ms), .min = 0, .max = MS_DAY},
    {"poll_interval", &type_duration, TOP(poll_interval_ms), .min = 10, .max = MS_HOUR},
    {"sweep_interval", &type_duration, TOP(sweep_interval_ms), .min = 1000, .max = 24 * MS_HOUR},
    {"log_level", &type_word, TOP(log_level), .words = words_level},
    {"log_format", &type_word, TOP(log_format), .words = words_format},
    {"log_sql", &type_bool, TOP(log_sql), .words = words_bool},
    {"tasks", &type_tasks, 0, .kinds = 0},
};
const size_t top_keys_count = ARRAY_SIZE(top_keys);

#define TASK(member) offsetof(struct task_config, member)
const struct key task_keys[] = {
    {"shell", &type_string, TASK(command.shell), SHELL, .check = check_not_empty,
     .is_handler = true},
    {"exec", &type_argv, TASK(command.argv), EXEC, .min = 0, .is_handler = true},
    {"worker", &type_argv, TASK(command.argv), WORKER, .min = 0, .is_handler = true},
    {"webhook", &type_string, TASK(webhook.url), WEBHOOK, .check = check_url, .is_handler = true},
    {"discard", &type_discard, 0, DISCARD, .min = 0, .is_handler = true},

    {"concurrency", &type_count, TASK(concurrency), EVERY, .min = 1, .max = 10000},
    {"timeout", &type_duration, TASK(timeout_ms), EVERY, .min = 1, .max = MS_YEAR},
    {"max_attempts", &type_count, TASK(max_attempts), EVERY, .min = 1, .max = 32767},
    {"max_age", &type_duration, TASK(max_age_ms), EVERY, .min = 0, .max = 10 * MS_YEAR},
    {"max_lost", &type_count, TASK(max_lost), EVERY, .min = 1, .max = 32767},
    {"backoff", &type_duration, TASK(backoff.base_ms), EVERY, .min = 0, .max = MS_YEAR},
    {"backoff_max", &type_duration, TASK(backoff.max_ms), EVERY, .min = 0, .max = MS_YEAR},
    {"backoff_jitter", &type_jitter, TASK(backoff.jitter_permille), EVERY, .min = 0},
    {"retry_schedule", &type_schedule, TASK(backoff), EVERY, .min = 0, .max = MS_YEAR},
    {"payload", &type_bool, TASK(payload_raw), EVERY, .words = words_payload},
    {"max_ready", &type_count, TASK(max_ready), EVERY, .min = 0, .max = 2147483647},
    {"keep", &type_duration, TASK(keep_ms), EVERY, .min = 0, .max = 10 * MS_YEAR},
    {"on_dead", &type_bool, TASK(dead_blocks), EVERY, .words = words_on_dead},

    {"cwd", &type_string, TASK(command.cwd), PROCESS, .check = check_absolute},
    {"umask", &type_umask, TASK(command.umask), PROCESS, .min = 0},
    {"env", &type_env, TASK(command.env), PROCESS, .min = 0},
    {"env_pass", &type_strings, TASK(command.env_pass), PROCESS, .min = 0},
    {"path", &type_string, TASK(command.path), PROCESS, .check = check_path},
    {"dead_exit", &type_exit_codes, TASK(command.dead_exit), COMMAND, .min = 0},
    {"capture", &type_word, TASK(command.capture), COMMAND, .words = words_capture},
    {"capture_head", &type_size, TASK(command.capture_head_bytes), COMMAND, .min = 0, .max = MIB},
    {"capture_tail", &type_size, TASK(command.capture_tail_bytes), COMMAND, .min = 0, .max = MIB},

    {"processes", &type_count, TASK(worker.processes), WORKER, .min = 1, .max = 1000},
    {"startup", &type_count, TASK(worker.startup), WORKER, .min = 0, .max = 1000},
    {"idle_timeout", &type_duration, TASK(worker.idle_timeout_ms), WORKER, .max = MS_YEAR},
    {"max_jobs", &type_count, TASK(worker.max_jobs), WORKER, .min = 0, .max = 1000000000},
    {"max_lifetime", &type_duration, TASK(worker.max_lifetime_ms), WORKER, .max = MS_YEAR},
    {"window", &type_count, TASK(worker.window), WORKER, .min = 1, .max = 1000},
    {"start_timeout", &type_duration, TASK(worker.start_timeout_ms), WORKER, .min = 1,
     .max = MS_HOUR},
    {"restart_backoff", &type_duration, TASK(worker.restart_backoff_ms), WORKER, .min = 1,
     .max = WORKER_RESTART_MAX_MS},

    {"method", &type_string, TASK(webhook.method), WEBHOOK, .check = check_method},
    {"headers", &type_headers, TASK(webhook.headers), WEBHOOK, .min = 0},
    {"content_type", &type_string, TASK(webhook.content_type), WEBHOOK,
     .check = check_header_value},
    {"connect_timeout", &type_duration, TASK(webhook.connect_timeout_ms), WEBHOOK, .min = 1,
     .max = MS_HOUR},
    {"idempotency_key", &type_bool, TASK(webhook.idempotency_key), WEBHOOK, .words = words_bool},
    {"ca_file", &type_string, TASK(webhook.ca_file), WEBHOOK, .check = check_absolute},
    {"tls_verify", &type_bool, TASK(webhook.tls_verify), WEBHOOK, .words = words_bool},
    {"proxy", &type_proxy, TASK(webhook.proxy), WEBHOOK, .check = check_proxy},
    {"response_capture", &type_size, TASK(webhook.response_capture_bytes), WEBHOOK, .max = MIB},
    {"response_drain", &type_size, TASK(webhook.response_drain_bytes), WEBHOOK, .max = 16 * MIB},
    {"retry_after_max", &type_duration, TASK(webhook.retry_after_max_ms), WEBHOOK, .max = MS_YEAR},
    {"secret_file", &type_string, TASK(webhook.secret_file), WEBHOOK, .check = check_absolute},
    {"secret_env", &type_string, TASK(webhook.secret_env), WEBHOOK, .check = check_env_name},
    {"secrets", &type_secrets, TASK(webhook.secrets), WEBHOOK, .min = 0},
    {"client_cert", &type_string, TASK(webhook.client_cert), WEBHOOK, .check = check_absolute},
    {"client_key", &type_string, TASK(webhook.client_key), WEBHOOK, .check = check_absolute},
    {"private_addresses", &type_word, TASK(webhook.private_addresses), WEBHOOK,
     .words = words_private},
    {"breaker", &type_breaker, TASK(webhook.breaker), WEBHOOK, .min = 0},
    {"rate", &type_rate, TASK(webhook.rate), WEBHOOK, .min = 0},
};
const size_t task_keys_count = ARRAY_SIZE(task_keys);
enum { TASK_KEYS_MAX = 64 };
_Static_assert(ARRAY_SIZE(task_keys) <= TASK_KEYS_MAX, "lines[] has one place a key");

/* --- reading --- */

/* "webhook", "shell and exec". */
static const char *kinds_text(unsigned kinds, char ret_text[64])
{
    ret_text[0] = '\0';
    for (unsigned kind = HANDLER_SHELL; kind <= HANDLER_DISCARD; kind++) {
        if ((kinds & KIND(kind)) == 0)
            continue;
        size_t n = strlen(ret_text);
        unsigned later = kinds >> (kind + 1);
        (void)snprintf(ret_text + n, 64 - n, "%s%s",
                       n == 0       ? ""
                       : later != 0 ? ", "
                                    : " and ",
                       handler_kind_name((enum handler_kind)kind));
    }
    return ret_text;
}

static void unknown_key(struct loader *l, const yaml_node_t *node, const char *name, bool is_task,
                        unsigned kinds)
{
    char shown[QUOTED_SIZE];
    char suggestion[SUGGESTION_SIZE];
    const struct key *keys = is_task ? task_keys : top_keys;
    size_t count = is_task ? task_keys_count : top_keys_count;
    const char *place = "";
    if (!is_task && find_key(task_keys, task_keys_count, name) != NULL)
        place = ", which belongs to a task";
    else if (is_task && find_key(top_keys, top_keys_count, name) != NULL)
        place = ", which does not belong to a task but to the top level";
    loader_error(l, node_line(node), NULL, "unknown key %s%s%s", quoted(name, shown), place,
                 place[0] != '\0' ? "" : suggest_key(keys, count, kinds, name, suggestion));
}

/* Reads one key of a mapping into base. lines[] remembers where each key of the table was given. */
static void read_key(struct loader *l, const yaml_node_pair_t *pair, bool is_task, unsigned kinds,
                     void *base, size_t *lines)
{
    const struct key *keys = is_task ? task_keys : top_keys;
    yaml_node_t *key_node = node_at(l, pair->key);
    yaml_node_t *node = node_at(l, pair->value);
    const char *name = node_text(l, key_node, "a key", "a name");
    if (name == NULL)
        return;
    const struct key *k = find_key(keys, is_task ? task_keys_count : top_keys_count, name);
    if (k == NULL) {
        unknown_key(l, key_node, name, is_task, kinds);
        return;
    }
    size_t *line = &lines[k - keys];
    if (*line > 0) {
        loader_error(l, node_line(key_node), NULL, "%s is given twice, first in line %zu", name,
                     *line);
        return;
    }
    *line = node_line(key_node);
    char these[64];
    char task_kind[64];
    if (is_task && (k->kinds & kinds) == 0 && !k->is_handler)
        loader_error(l, *line, NULL, "%s is for %s, this task is %s", name,
                     kinds_text(k->kinds, these), kinds_text(kinds, task_kind));
    else if (l->tasks_only && !is_task && strcmp(name, "tasks") != 0)
        loader_error(l, *line, "nothing but tasks in a file of tasks.d",
                     "%s belongs in the main file", name);
    else if (node_is_null(node) && k->type != &type_tasks && k->type != &type_discard)
        loader_error(l, *line, NULL, "%s has no value", name);
    else
        k->type->read(l, k, node, (char *)base + k->offset);
}

/* Which handlers the mapping names, as KIND bits. */
static unsigned handlers_of(struct loader *l, const yaml_node_t *node)
{
    unsigned kinds = 0;
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key_node = node_at(l, pair->key);
        if (key_node->type != YAML_SCALAR_NODE)
            continue;
        const struct key *k =
            find_key(task_keys, task_keys_count, (const char *)key_node->data.scalar.value);
        if (k != NULL && k->is_handler)
            kinds |= k->kinds;
    }
    return kinds;
}

static void read_task_keys(struct loader *l, const char *name, size_t line, const yaml_node_t *node,
                           struct task_config *t)
{
    static const char handlers[] = "exactly one of shell, exec, worker, webhook, discard";
    unsigned kinds = handlers_of(l, node);
    char these[64];
    if (kinds == 0)
        loader_error(l, line, handlers, "task '%s' has no handler", name);
    else if ((kinds & (kinds - 1)) != 0)
        loader_error(l, line, handlers, "task '%s' has the handlers %s", name,
                     kinds_text(kinds, these));
    enum handler_kind kind = HANDLER_DISCARD;
    for (unsigned i = HANDLER_SHELL; i <= HANDLER_DISCARD; i++) {
        if (kinds == KIND(i))
            kind = (enum handler_kind)i;
    }
    if (task_init_defaults(t, kind) != 0) {
        l->no_memory = true;
        return;
    }
    size_t lines[TASK_KEYS_MAX] = {0};
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++)
        read_key(l, pair, true, kinds != 0 ? kinds : EVERY, t, lines);
    check_task(l, t, lines);
}

static void read_task(struct loader *l, const yaml_node_pair_t *pair)
{
    yaml_node_t *key_node = node_at(l, pair->key);
    yaml_node_t *node = node_at(l, pair->value);
    size_t line = node_line(key_node);
    const char *name = (const char *)key_node->data.scalar.value;
    char shown[QUOTED_SIZE];
    if (key_node->type != YAML_SCALAR_NODE || strlen(name) != key_node->data.scalar.length ||
        !task_name_is_valid(name)) {
        loader_error(
            l, line, "1 to 128 of A-Z a-z 0-9 . _ : -, beginning with a letter, a digit or _",
            "bad task name %s", quoted(key_node->type == YAML_SCALAR_NODE ? name : "", shown));
        return;
    }
    const struct task_config *earlier = config_find_task(l->config, name);
    if (earlier != NULL) {
        loader_error(l, line, NULL, "task '%s' is given twice, first in %s", name, earlier->source);
        return;
    }
    if (node->type != YAML_MAPPING_NODE) {
        loader_error(l, line, "a map such as {shell: /usr/local/bin/send-mail}",
                     "task '%s' is not a map", name);
        return;
    }
    if (l->config->tasks_count == CONFIG_TASKS_MAX) {
        loader_error(l, line, NULL, "more than %d tasks", CONFIG_TASKS_MAX);
        return;
    }
    char source[512];
    (void)snprintf(source, sizeof source, "%s:%zu", l->file, line);
    struct task_config t = {.name = loader_strdup(l, name), .source = loader_strdup(l, source)};
    if (t.name != NULL && t.source != NULL)
        read_task_keys(l, name, line, node, &t);
    if (t.name == NULL || t.source == NULL)
        task_free_members(&t);
    else if (!config_insert_task(l->config, &t))
        l->no_memory = true;
}

/* The messages of handlers_of's callers print `name` raw: task names have no odd characters. */
static void read_tasks(struct loader *l, const struct key *k, const yaml_node_t *node, void *target)
{
    (void)target;
    if (node_is_null(node))
        return;
    if (node->type != YAML_MAPPING_NODE) {
        loader_error(l, node_line(node), "a map of task names", "%s is not a map", k->name);
        return;
    }
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top && !l->no_memory; pair++)
        read_task(l, pair);
}

void read_top(struct loader *l, const yaml_node_t *root)
{
    if (node_is_null(root))
        return;
    if (root->type != YAML_MAPPING_NODE) {
        loader_error(l, node_line(root), "a map of keys such as database and tasks", "not a map");
        return;
    }
    size_t lines[ARRAY_SIZE(top_keys)] = {0};
    const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
    for (; pair < root->data.mapping.pairs.top; pair++)
        read_key(l, pair, false, 0, l->config, lines);
}
