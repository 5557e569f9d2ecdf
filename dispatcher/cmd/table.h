/* table.h - tables for people: columns as wide as their widest cell, numbers to the right, control
 * characters escaped, so that what is in the database cannot drive the reader's terminal.
 *
 * On a terminal, the last column is cut to the terminal's width; into a file or a pipe nothing is
 * ever cut. Colour only on a terminal, and not when NO_COLOR is set. */
#ifndef OB_CMD_TABLE_H
#define OB_CMD_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/buf.h"

struct table;

/* A header that begins with '>' makes its column right-aligned. headers is borrowed for the call.
 */
struct table *table_new(const char *const *headers, size_t columns);
void table_free(struct table *t);
/* Appends a cell, row by row, left to right. NULL and "" show as "-". The text is copied and
 * escaped. */
void table_cell(struct table *t, const char *text);
OB_PRINTF(2, 3) void table_cellf(struct table *t, const char *fmt, ...);
/* Prints what it holds. Nothing, not even the header, when it has no rows. */
void table_print(const struct table *t, FILE *out);

/* Columns that text takes on a terminal (UTF-8; wide East Asian characters and emoji take two,
 * combining marks none). */
size_t table_width(const char *text, size_t len);
/* Appends text with control characters (C0, DEL, C1) and invalid UTF-8 as \n, \t or \xNN. */
void table_escape(struct buf *out, const char *text, size_t len);
/* The same, but lines and tabs stay: for a command's output, shown as it was. */
void table_escape_lines(struct buf *out, const char *text, size_t len);

/* Escape sequences for a state's colour, "" when there is none to be used. */
const char *table_colour(const char *state);
const char *table_colour_off(void);

#endif
