/* config_suggest.c - finding a key by name, and the one that was probably meant. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/config_private.h"

const struct key *find_key(const struct key *keys, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    }
    return NULL;
}

enum { WORD_MAX = 32 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* How many letters, whatever their case, must be changed, added, left out or swapped with their
 * neighbour (optimal string alignment). Both words are shorter than WORD_MAX. */
static unsigned distance(const char *a, const char *b)
{
    unsigned d[WORD_MAX + 1][WORD_MAX + 1];
    unsigned rows = (unsigned)strlen(a);
    unsigned columns = (unsigned)strlen(b);
    for (unsigned i = 0; i <= rows; i++)
        d[i][0] = i;
    for (unsigned j = 0; j <= columns; j++)
        d[0][j] = j;
    for (unsigned i = 1; i <= rows; i++) {
        for (unsigned j = 1; j <= columns; j++) {
            unsigned change =
                tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]) ? 0 : 1;
            d[i][j] = min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change);
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[rows][columns];
}

const char *suggest_key(const struct key *keys, size_t count, unsigned kinds, const char *name,
                        char ret_text[SUGGESTION_SIZE])
{
    const char *best = NULL;
    unsigned best_distance = strlen(name) < 5 ? 2 : 3; /* one letter of a short word, else two */
    ret_text[0] = '\0';
    if (strlen(name) >= WORD_MAX)
        return ret_text;
    for (size_t i = 0; i < count; i++) {
        bool fits = kinds == 0 || keys[i].is_handler || (keys[i].kinds & kinds) != 0;
        unsigned d = fits ? distance(keys[i].name, name) : best_distance;
        if (d < best_distance) {
            best = keys[i].name;
            best_distance = d;
        }
    }
    if (best != NULL)
        (void)snprintf(ret_text, SUGGESTION_SIZE, " (did you mean '%s'?)", best);
    return ret_text;
}
