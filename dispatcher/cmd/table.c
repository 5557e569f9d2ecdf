/* table.c - see table.h. */
#include "cmd/table.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mem.h"
#include "base/utf8.h"

enum { COLUMNS_MAX = 20, CELL_MAX = 64 * 1024, GAP = 2 };

struct table {
    size_t columns;
    char *headers[COLUMNS_MAX];
    bool right[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    char **cells; /* row by row */
    size_t cells_count;
    size_t cells_cap;
};

/* Code points that take two columns, and none: the common blocks of UAX #11 and of combining marks.
 * Own tables, because wcwidth() knows nothing outside ASCII in the C locale that services run in.
 */
static const struct range {
    uint32_t first, last;
} wide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0x33FF},  {0x3400, 0x4DBF},
            {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},   {0xAC00, 0xD7A3},  {0xF900, 0xFAFF},
            {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F},
            {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF}, {0x20000, 0x3FFFD}},
  none[] = {{0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD},
            {0x0610, 0x061A}, {0x064B, 0x065F}, {0x200B, 0x200F},
            {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};

static bool in_ranges(uint32_t c, const struct range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    }
    return false;
}

/* Decodes a sequence that utf8_sequence() has found valid. */
static uint32_t code_point(const char *s, size_t len)
{
    unsigned char b = (unsigned char)s[0];
    uint32_t c = len == 1 ? b : len == 2 ? b & 0x1Fu : len == 3 ? b & 0x0Fu : b & 0x07u;
    for (size_t i = 1; i < len; i++)
        c = (c << 6) | ((unsigned char)s[i] & 0x3Fu);
    return c;
}

static size_t char_width(uint32_t c)
{
    if (in_ranges(c, none, sizeof none / sizeof none[0]))
        return 0;
    return in_ranges(c, wide, sizeof wide / sizeof wide[0]) ? 2 : 1;
}

size_t table_width(const char *text, size_t len)
{
    size_t width = 0;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence(text + i, len - i);
        width += n > 0 ? char_width(code_point(text + i, n)) : 1;
        i += n > 0 ? n : 1;
    }
    return width;
}

static void escape(struct buf *out, const char *text, size_t len, bool keep_lines)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_sequence(text + i, len - i);
        uint32_t c = n > 0 ? code_point(text + i, n) : (unsigned char)text[i];
        if (keep_lines && (c == '\n' || c == '\t'))
            buf_putc(out, (char)c);
        else if (c == '\n')
            buf_puts(out, "\\n");
        else if (c == '\t')
            buf_puts(out, "\\t");
        else if (c == '\r')
            buf_puts(out, "\\r");
        else if (n == 0 || c < 0x20 || (c >= 0x7F && c < 0xA0))
            buf_printf(out, "\\x%02x", (unsigned)c);
        else
            buf_append(out, text + i, n);
        i += n > 0 ? n : 1;
    }
}

void table_escape(struct buf *out, const char *text, size_t len)
{
    escape(out, text, len, false);
}

void table_escape_lines(struct buf *out, const char *text, size_t len)
{
    escape(out, text, len, true);
}

static bool colour_wanted(void)
{
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && (no == NULL || no[0] == '\0') && term != NULL &&
           strcmp(term, "dumb") != 0;
}

const char *table_colour(const char *state)
{
    static const struct {
        const char *state, *code;
    } codes[] = {{"dead", "\033[31m"},      {"running", "\033[32m"}, {"done", "\033[2m"},
                 {"scheduled", "\033[36m"}, {"waiting", "\033[33m"}, {"warning", "\033[33m"}};
    if (!colour_wanted())
        return "";
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (strcmp(codes[i].state, state) == 0)
            return codes[i].code;
    }
    return "";
}

const char *table_colour_off(void)
{
    return colour_wanted() ? "\033[0m" : "";
}

struct table *table_new(const char *const *headers, size_t columns)
{
    ob_assert(columns > 0);
    ob_assert(columns <= COLUMNS_MAX);
    struct table *t = ob_xcalloc(1, sizeof *t);
    t->columns = columns;
    for (size_t i = 0; i < columns; i++) {
        t->right[i] = headers[i][0] == '>';
        t->headers[i] = ob_xstrdup(headers[i] + (t->right[i] ? 1 : 0));
        t->widths[i] = table_width(t->headers[i], strlen(t->headers[i]));
    }
    return t;
}

void table_free(struct table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->columns; i++)
        ob_free(t->headers[i]);
    for (size_t i = 0; i < t->cells_count; i++)
        ob_free(t->cells[i]);
    ob_free(t->cells);
    ob_free(t);
}

void table_cell(struct table *t, const char *text)
{
    if (text == NULL || text[0] == '\0')
        text = "-";
    struct buf b;
    buf_init(&b, CELL_MAX);
    table_escape(&b, text, strlen(text));
    size_t column = t->cells_count % t->columns;
    size_t width = table_width(b.data, b.len);
    if (width > t->widths[column])
        t->widths[column] = width;
    if (t->cells_count == t->cells_cap) {
        t->cells_cap = t->cells_cap > 0 ? t->cells_cap * 2 : 64;
        t->cells = ob_xrealloc(t->cells, t->cells_cap * sizeof *t->cells);
    }
    t->cells[t->cells_count++] = ob_xstrdup(b.data);
    buf_deinit(&b);
}

void table_cellf(struct table *t, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    table_cell(t, text);
}

/* The terminal's width; 0 when out is none. */
static size_t terminal_width(FILE *out)
{
    int fd = fileno(out);
    if (fd < 0 || !isatty(fd))
        return 0;
    struct winsize size;
    memset(&size, 0, sizeof size);
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

/* How many bytes of text fit into `width` columns. */
static size_t bytes_that_fit(const char *text, size_t len, size_t width)
{
    size_t used = 0;
    size_t i = 0;
    while (i < len) {
        size_t n = utf8_sequence(text + i, len - i);
        size_t w = n > 0 ? char_width(code_point(text + i, n)) : 1;
        if (used + w > width)
            break;
        used += w;
        i += n > 0 ? n : 1;
    }
    return i;
}

/* limit: columns left on the terminal's line; 0: no limit. Only the last column is ever cut. */
static void print_cell(const struct table *t, size_t column, const char *text, FILE *out,
                       size_t limit)
{
    size_t len = strlen(text);
    size_t width = table_width(text, len);
    bool last = column + 1 == t->columns;
    int pad = (int)(t->widths[column] - width);
    const char *colour = table_colour(text);
    if (t->right[column])
        (void)fprintf(out, "%*s", pad, "");
    if (last && limit > 0 && width > limit) {
        size_t fits = bytes_that_fit(text, len, limit - 1);
        (void)fprintf(out, "%.*s\xE2\x80\xA6", (int)fits, text);
    } else {
        (void)fprintf(out, "%s%s%s", colour, text, colour[0] != '\0' ? table_colour_off() : "");
    }
    if (!last)
        (void)fprintf(out, "%*s", (t->right[column] ? 0 : pad) + GAP, "");
}

void table_print(const struct table *t, FILE *out)
{
    ob_assert(t->cells_count % t->columns == 0);
    if (t->cells_count == 0)
        return;
    size_t before_last = 0;
    for (size_t i = 0; i + 1 < t->columns; i++)
        before_last += t->widths[i] + GAP;
    size_t terminal = terminal_width(out);
    size_t limit = terminal > before_last + 10 ? terminal - before_last : 0;
    for (size_t i = 0; i < t->columns; i++)
        print_cell(t, i, t->headers[i], out, limit);
    (void)fputc('\n', out);
    for (size_t i = 0; i < t->cells_count; i++) {
        print_cell(t, i % t->columns, t->cells[i], out, limit);
        if ((i + 1) % t->columns == 0)
            (void)fputc('\n', out);
    }
}
