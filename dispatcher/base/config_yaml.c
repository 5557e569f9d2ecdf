/* config_yaml.c - one text of configuration: libyaml's document, its nodes as texts, and messages
 * that name file and line. What the keys mean is not known here. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/config_private.h"
#include "base/mem.h"
#include "base/utf8.h"

void loader_error(struct loader *l, size_t line, const char *expected, const char *fmt, ...)
{
    l->errors++;
    if (l->errors > CONFIG_ERRORS_MAX)
        return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (line > 0)
        buf_printf(l->err, "%s:%zu: %s%s%s\n", l->file, line, text,
                   expected != NULL ? "; expected " : "", expected != NULL ? expected : "");
    else
        buf_printf(l->err, "%s: %s%s%s\n", l->file, text, expected != NULL ? "; expected " : "",
                   expected != NULL ? expected : "");
}

const char *quoted(const char *text, char ret_text[QUOTED_SIZE])
{
    enum { SHOWN_MAX = 60 };
    size_t n = strlen(text);
    size_t out = 0;
    size_t i = 0;
    ret_text[out++] = '\'';
    while (i < n && out < SHOWN_MAX) {
        size_t len = utf8_sequence(text + i, n - i);
        unsigned char c = (unsigned char)text[i];
        bool plain = len > 2 || (len == 1 && c >= 0x20 && c != 0x7f) ||
                     (len == 2 && !(c == 0xC2 && (unsigned char)text[i + 1] < 0xA0));
        if (plain)
            memcpy(ret_text + out, text + i, len);
        else
            ret_text[out] = '?';
        out += plain ? len : 1;
        i += len > 0 ? len : 1;
    }
    (void)snprintf(ret_text + out, QUOTED_SIZE - out, "%s'", i < n ? "..." : "");
    return ret_text;
}

/* --- nodes --- */

size_t node_line(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

yaml_node_t *node_at(struct loader *l, int index)
{
    yaml_node_t *node = yaml_document_get_node(l->doc, index);
    ob_assert(node != NULL); /* the loader never makes an index it has no node for */
    return node;
}

bool node_is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++) {
        if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
            return true;
    }
    return false;
}

const char *node_text(struct loader *l, const yaml_node_t *node, const char *what,
                      const char *expected)
{
    size_t line = node_line(node);
    if (node->type != YAML_SCALAR_NODE) {
        loader_error(l, line, expected, "%s is a %s", what,
                     node->type == YAML_SEQUENCE_NODE ? "list" : "map");
        return NULL;
    }
    if (node_is_null(node)) {
        loader_error(l, line, expected, "%s has no value", what);
        return NULL;
    }
    const char *tag = (const char *)node->tag;
    if (tag != NULL &&
        (strncmp(tag, "tag:yaml.org,2002:", 18) != 0 || strstr(tag, "binary") != NULL)) {
        loader_error(l, line, expected, "%s has a YAML tag", what);
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) != node->data.scalar.length) {
        loader_error(l, line, expected, "%s contains a NUL byte", what);
        return NULL;
    }
    return text;
}

/* --- strings of the configuration --- */

char *loader_strdup(struct loader *l, const char *text)
{
    size_t n = strlen(text);
    if (n + 16 > CONFIG_COPIED_MAX - l->copied_bytes) {
        if (l->copied_bytes < CONFIG_COPIED_MAX)
            loader_error(l, 0, NULL, "too large: more than %d bytes of values", CONFIG_COPIED_MAX);
        l->copied_bytes = CONFIG_COPIED_MAX;
        return NULL;
    }
    l->copied_bytes += n + 16;
    char *copy = ob_strndup(text, n);
    if (copy == NULL)
        l->no_memory = true;
    return copy;
}

bool strings_append(struct loader *l, struct strings *list, char *item_take)
{
    if (item_take == NULL)
        return false;
    char **items = ob_realloc(list->items, (list->count + 2) * sizeof *items);
    if (items == NULL) {
        ob_free(item_take);
        l->no_memory = true;
        return false;
    }
    items[list->count] = item_take;
    items[list->count + 1] = NULL;
    list->items = items;
    list->count++;
    return true;
}

void strings_free(struct strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        ob_free(list->items[i]);
    ob_free(list->items);
    *list = (struct strings){0};
}

/* --- the document --- */

static size_t line_of_offset(const char *text, size_t len, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < len; i++)
        line += text[i] == '\n' ? 1 : 0;
    return line;
}

static void parser_failed(struct loader *l, const yaml_parser_t *parser, const char *text,
                          size_t len)
{
    /* libyaml 0.2.5 leaves the error unset where its document loader runs out of memory. */
    if (parser->error == YAML_MEMORY_ERROR || parser->error == YAML_NO_ERROR) {
        l->no_memory = true;
        return;
    }
    size_t line = parser->error == YAML_READER_ERROR
                      ? line_of_offset(text, len, parser->problem_offset)
                      : parser->problem_mark.line + 1;
    const char *problem = parser->problem != NULL ? parser->problem : "unknown problem";
    if (parser->context != NULL)
        loader_error(l, line, NULL, "not YAML: %s, %s", parser->context, problem);
    else
        loader_error(l, line, NULL, "not YAML: %s", problem);
}

/* Anything behind the first document would be ignored, so it is an error. */
static void refuse_second_document(struct loader *l, yaml_parser_t *parser, const char *text,
                                   size_t len)
{
    yaml_document_t doc;
    if (!yaml_parser_load(parser, &doc)) {
        parser_failed(l, parser, text, len);
        return;
    }
    yaml_node_t *root = yaml_document_get_root_node(&doc);
    if (root != NULL)
        loader_error(l, node_line(root), "one document a file", "a second YAML document");
    yaml_document_delete(&doc);
}

/* *ret_line: where lists and maps are nested deeper than any configuration is; 0: nowhere.
 * libyaml's time grows with the square of the depth: a file of nothing but brackets would take
 * minutes, and a daemon that is told to reload would lose its lease. What is no YAML is left to the
 * loader. 0 or OB_ENOMEM. */
static int find_too_deep(const char *text, size_t len, size_t *ret_line)
{
    yaml_parser_t parser;
    size_t depth = 0;
    size_t line = 0;
    bool more = true;
    if (!yaml_parser_initialize(&parser))
        return OB_ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    while (more && line == 0) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event))
            break;
        if (event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT)
            depth++;
        else if (event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT)
            depth--;
        if (depth > CONFIG_DEPTH_MAX)
            line = event.start_mark.line + 1;
        more = event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    int err = parser.error == YAML_MEMORY_ERROR ? OB_ENOMEM : 0;
    yaml_parser_delete(&parser);
    *ret_line = line;
    return err;
}

int config_load_document(struct config *c, const char *name, const char *text, size_t len,
                         bool tasks_only, struct buf *reterr)
{
    struct loader l = {.config = c, .file = name, .err = reterr, .tasks_only = tasks_only};
    yaml_parser_t parser;
    yaml_document_t doc;
    size_t too_deep = 0;
    int err = find_too_deep(text, len, &too_deep);
    if (err != 0)
        return err;
    if (too_deep > 0) {
        loader_error(&l, too_deep, NULL, "lists and maps nested deeper than %d", CONFIG_DEPTH_MAX);
        return OB_ECONFIG;
    }
    if (!yaml_parser_initialize(&parser))
        return OB_ENOMEM;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    if (yaml_parser_load(&parser, &doc)) {
        l.doc = &doc;
        yaml_node_t *root = yaml_document_get_root_node(&doc);
        if (root != NULL) {
            read_top(&l, root);
            refuse_second_document(&l, &parser, text, len);
        }
        yaml_document_delete(&doc);
    } else
        parser_failed(&l, &parser, text, len);
    yaml_parser_delete(&parser);
    if (l.errors > CONFIG_ERRORS_MAX)
        buf_printf(reterr, "%s: and %u more errors\n", name, l.errors - CONFIG_ERRORS_MAX);
    if (l.no_memory)
        return OB_ENOMEM;
    return l.errors > 0 ? OB_ECONFIG : 0;
}

int config_load_text(struct config *c, const char *name, const char *text, size_t len,
                     struct buf *reterr)
{
    return config_load_document(c, name, text, len, false, reterr);
}
