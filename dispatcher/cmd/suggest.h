/* suggest.h - "did you mean": the nearest of a list of names. Pure. */
#ifndef OB_CMD_SUGGEST_H
#define OB_CMD_SUGGEST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap neighbours) that turn a into b; long names count as far
 * apart. */
size_t suggest_distance(const char *a, const char *b);

/* The name nearest to `wrong`, or NULL when none is near enough to be meant: at most a third of its
 * letters differ, or it begins with what was typed. */
const char *suggest_name(const char *wrong, const char *const *names, size_t count);

#endif
