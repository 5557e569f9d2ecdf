/* suggest.c - see suggest.h. */
#include "cmd/suggest.h"

#include <string.h>

#include "base/assert.h"

enum { NAME_MAX_LEN = 32 };

static size_t least(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Optimal string alignment: a full matrix, since names are short. */
size_t suggest_distance(const char *a, const char *b)
{
    size_t d[NAME_MAX_LEN + 1][NAME_MAX_LEN + 1];
    size_t na = strlen(a);
    size_t nb = strlen(b);
    if (na > NAME_MAX_LEN || nb > NAME_MAX_LEN)
        return na == nb && memcmp(a, b, na) == 0 ? 0 : NAME_MAX_LEN;
    for (size_t i = 0; i <= na; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= nb; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        for (size_t j = 1; j <= nb; j++) {
            size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;
            d[i][j] = least(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[na][nb];
}

const char *suggest_name(const char *wrong, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = NAME_MAX_LEN;
    size_t len = strlen(wrong);
    if (len == 0)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        ob_assert(names[i] != NULL);
        size_t distance = suggest_distance(wrong, names[i]);
        if (distance < best_distance) {
            best = names[i];
            best_distance = distance;
        }
    }
    if (best != NULL && best_distance * 3 <= len + 1)
        return best;
    for (size_t i = 0; i < count && len >= 2; i++) {
        if (strncmp(names[i], wrong, len) == 0)
            return names[i];
    }
    return NULL;
}
