/* config_private.h - what the config_*.c files share; nobody else includes it.
 *
 * config.c        life, files, the whole
 * config_task.c   one task: defaults, rules between keys, command-line handlers, programs resolved
 * config_yaml.c   one file's text: libyaml document, mappings, messages (the only file that parses)
 * config_keys.c   THE TABLES: every key, its type, range and the handlers it is for
 * config_types.c  reading and printing a value of each type; config_lists.c the lists and maps
 * config_webhook.c  secrets, breaker, rate; what a webhook's keys mean together
 * config_check.c  rules of single values: names, URLs, headers, placeholders, durations, sizes
 * config_suggest.c  "did you mean"
 * config_print.c  the effective configuration as YAML, secrets masked
 *
 * When you add a key: config_keys.c, the struct in config.h, docs/configuration.md,
 * check_config*.c. */
#ifndef OB_BASE_CONFIG_PRIVATE_H
#define OB_BASE_CONFIG_PRIVATE_H

#include <yaml.h>

#include "base/config.h"

enum {
    CONFIG_FILE_MAX = 1024 * 1024,
    CONFIG_COPIED_MAX = 8 * 1024 * 1024, /* aliases can repeat a long value without end */
    CONFIG_DEPTH_MAX = 32,               /* lists and maps within each other */
    CONFIG_ERRORS_MAX = 50,
    CONFIG_TASKS_MAX = 4096,
    CONFIG_LIST_MAX = 1000
};

/* One file being read. Errors do not stop it; they are counted, so that all are told at once. */
struct loader {
    struct config *config;
    const char *file; /* as messages name it */
    yaml_document_t *doc;
    struct buf *err;
    unsigned errors;
    size_t copied_bytes;
    bool no_memory;
    bool tasks_only; /* a file of tasks.d */
};

struct key;
struct key_type {
    /* Checks the node's value and stores it at target, or reports what is wrong. */
    void (*read)(struct loader *l, const struct key *k, const yaml_node_t *node, void *target);
    /* Appends "name: value" with its newline(s), or nothing if the value is unset. */
    void (*print)(const struct key *k, const void *value, unsigned indent, struct buf *out);
};

struct key {
    const char *name;
    const struct key_type *type;
    size_t offset;  /* in struct config or struct task_config */
    unsigned kinds; /* KIND() bits of the handlers it is for; 0 in the top-level table */
    uint64_t min;
    uint64_t max;
    const char *const *words; /* of an enum, in its order */
    /* NULL if the text is fine, else what was expected. */
    const char *(*check)(const char *text);
    bool is_handler;
};
#define KIND(k) (1U << (k))

/* The tables. */
extern const struct key top_keys[];
extern const size_t top_keys_count;
extern const struct key task_keys[];
extern const size_t task_keys_count;
void read_top(struct loader *l, const yaml_node_t *root);

/* One task (config_task.c). OB_ENOMEM. */
int task_init_defaults(struct task_config *t, enum handler_kind kind) OB_MUST_CHECK;
void task_free_members(struct task_config *t);
/* What one task's keys mean together. lines[i] is where task_keys[i] was given, 0 if it was not. */
void check_task(struct loader *l, const struct task_config *t, const size_t *lines);
/* Resolves what depends on the whole. OB_ECONFIG after a message, OB_ENOMEM. */
int task_finish(struct task_config *t, const struct config *c, struct buf *reterr) OB_MUST_CHECK;
/* Takes the task's members, keeps the list sorted by name. False: no memory, members freed. */
bool config_insert_task(struct config *c, struct task_config *t_take) OB_MUST_CHECK;

/* Types. */
extern const struct key_type type_string, type_duration, type_size, type_count, type_bool,
    type_word, type_jitter, type_umask, type_strings, type_argv, type_env, type_headers,
    type_exit_codes, type_schedule, type_discard, type_database, type_proxy, type_secrets,
    type_breaker, type_rate;
void secrets_free(struct webhook_secrets *s);
void check_webhook(struct loader *l, const struct webhook_config *w, const size_t *lines);
/* Where the key of task_keys was given; 0: it was not. */
size_t key_line(const size_t *lines, const char *name);

/* Reading (config_yaml.c). */
size_t node_line(const yaml_node_t *node);
yaml_node_t *node_at(struct loader *l, int index);
int config_load_document(struct config *c, const char *name, const char *text, size_t len,
                         bool tasks_only, struct buf *reterr) OB_MUST_CHECK;
/* "file:line: text; expected ...". line 0: "file: text"; expected may be NULL. */
OB_PRINTF(4, 5)
void loader_error(struct loader *l, size_t line, const char *expected, const char *fmt, ...);
/* Nothing, ~ or null, not in quotes. */
bool node_is_null(const yaml_node_t *node);
/* The scalar's text, or NULL after a message that names `what`. */
const char *node_text(struct loader *l, const yaml_node_t *node, const char *what,
                      const char *expected);
/* A copy that counts; NULL sets no_memory or reports that the whole is too large. */
char *loader_strdup(struct loader *l, const char *text);
bool strings_append(struct loader *l, struct strings *list, char *item_take);
void strings_free(struct strings *list);

/* Names (config_suggest.c). */
/* The table's entry of that name, or NULL. */
const struct key *find_key(const struct key *keys, size_t count, const char *name);
/* " (did you mean 'x'?)", or "" if nothing is close. */
enum { SUGGESTION_SIZE = 64 };
const char *suggest_key(const struct key *keys, size_t count, unsigned kinds, const char *name,
                        char ret_text[SUGGESTION_SIZE]);
/* 'value', short and free of control characters, for messages. */
enum { QUOTED_SIZE = 96 };
const char *quoted(const char *text, char ret_text[QUOTED_SIZE]);

/* Rules (config_check.c): NULL if fine, else what was expected. */
const char *check_not_empty(const char *text);
const char *check_absolute(const char *text);
const char *check_database(const char *text);
const char *check_dispatcher_name(const char *text);
const char *check_url(const char *text);
const char *check_proxy(const char *text);
const char *check_method(const char *text);
const char *check_header_value(const char *text);
const char *check_header_name(const char *name);
const char *check_env_name(const char *name);
const char *check_env_pass_name(const char *name);
const char *check_path(const char *text);
const char *check_argument(const char *text);
const char *check_program(const char *text);
void format_size(uint64_t bytes, char ret_text[32]);

/* Printing (config_print.c). */
void print_key(unsigned indent, const char *name, struct buf *out); /* "  name: " */
void print_scalar(const char *text, struct buf *out);               /* quoted where YAML needs it */
bool sounds_secret(const char *name);
void mask_conninfo(const char *conninfo, struct buf *out);
void mask_url(const char *url, struct buf *out);

#endif
