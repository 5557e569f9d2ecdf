/* payload_json.c - is a text JSON? payload_check_json() of payload.h. Not by jansson: that one
 * builds a tree of the whole, and refuses JSON with U+0000 in a name or a number beyond a double.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/payload.h"
#include "base/utf8.h"

struct scan {
    const char *text;
    size_t len;
    size_t at;
    unsigned depth;
    bool for_jsonb;
    uint8_t is_object[PAYLOAD_JSON_DEPTH_MAX / 8]; /* a bit a level */
    const char *expected;                          /* set by what failed; NULL: fine */
};

/* What may come next. */
enum state { STATE_VALUE, STATE_FIRST_VALUE, STATE_FIRST_NAME, STATE_NAME, STATE_AFTER, STATE_END };

/* The byte at the cursor; 0 at the end, where no rule wants a 0. */
static char peek(const struct scan *s)
{
    return s->at < s->len ? s->text[s->at] : '\0';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool fail(struct scan *s, const char *expected)
{
    s->expected = expected;
    return false;
}

static void skip_blanks(struct scan *s)
{
    while (s->at < s->len && strchr(" \t\r\n", s->text[s->at]) != NULL && s->text[s->at] != '\0')
        s->at++;
}

/* Four hexadecimal digits at the cursor; -1: they are not there. */
static int read_hex(struct scan *s)
{
    int n = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        char h = peek(s);
        if (is_digit(h))
            n = n * 16 + (h - '0');
        else if (h >= 'a' && h <= 'f')
            n = n * 16 + (h - 'a' + 10);
        else if (h >= 'A' && h <= 'F')
            n = n * 16 + (h - 'A' + 10);
        else
            return -1;
    }
    return n;
}

/* Behind a \uXXXX: whether jsonb takes that character. A low half is read with its high half. */
static bool check_character(struct scan *s, int high)
{
    if (high == 0)
        return fail(s, "no \\u0000, which PostgreSQL does not store");
    if (high < 0xD800 || high > 0xDFFF)
        return true;
    int low = -1;
    if (high < 0xDC00 && s->len - s->at >= 6 && memcmp(s->text + s->at, "\\u", 2) == 0) {
        s->at += 2;
        low = read_hex(s);
    }
    return low >= 0xDC00 && low <= 0xDFFF ? true : fail(s, "a whole surrogate pair");
}

static bool read_escape(struct scan *s)
{
    s->at++;
    char c = peek(s);
    if (c == '\0' || strchr("\"\\/bfnrtu", c) == NULL)
        return fail(s, "an escape: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
    s->at++;
    if (c != 'u')
        return true;
    int n = read_hex(s);
    if (n < 0)
        return fail(s, "four hexadecimal digits");
    return s->for_jsonb ? check_character(s, n) : true;
}

/* The cursor is at the opening quote, and afterwards behind the closing one. */
static bool read_string(struct scan *s)
{
    s->at++;
    while (s->at < s->len) {
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20)
            return fail(s, "control characters escaped");
        if (c == '\\') {
            if (!read_escape(s))
                return false;
            continue;
        }
        size_t n = utf8_sequence(s->text + s->at, s->len - s->at);
        if (n == 0)
            return fail(s, "UTF-8");
        s->at += n;
    }
    return fail(s, "the closing quote");
}

static bool read_digits(struct scan *s)
{
    if (!is_digit(peek(s)))
        return fail(s, "a digit");
    while (is_digit(peek(s)))
        s->at++;
    return true;
}

static bool read_number(struct scan *s)
{
    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (!read_digits(s))
        return false;
    if (peek(s) == '.') {
        s->at++;
        if (!read_digits(s))
            return false;
    }
    if (peek(s) != 'e' && peek(s) != 'E')
        return true;
    s->at++;
    if (peek(s) == '+' || peek(s) == '-')
        s->at++;
    return read_digits(s);
}

static bool read_word(struct scan *s)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i]);
        if (s->len - s->at >= n && memcmp(s->text + s->at, words[i], n) == 0) {
            s->at += n;
            return true;
        }
    }
    return fail(s, "a value");
}

static bool in_object(const struct scan *s)
{
    unsigned level = s->depth - 1;
    return s->depth > 0 && (s->is_object[level / 8] >> (level % 8) & 1) != 0;
}

static bool enter(struct scan *s, bool is_object)
{
    if (s->depth == PAYLOAD_JSON_DEPTH_MAX)
        return fail(s, "no deeper nesting");
    unsigned bit = 1U << (s->depth % 8);
    uint8_t *byte = &s->is_object[s->depth / 8];
    *byte = (uint8_t)(is_object ? *byte | bit : *byte & ~bit);
    s->depth++;
    s->at++;
    return true;
}

static enum state leave(struct scan *s)
{
    s->depth--;
    s->at++;
    return s->depth > 0 ? STATE_AFTER : STATE_END;
}

static enum state read_value(struct scan *s)
{
    char c = peek(s);
    if (c == '{' || c == '[') {
        (void)enter(s, c == '{'); /* a failure is in s */
        return c == '{' ? STATE_FIRST_NAME : STATE_FIRST_VALUE;
    }
    if (c == '"')
        (void)read_string(s);
    else if (c == '-' || is_digit(c))
        (void)read_number(s);
    else
        (void)read_word(s);
    return s->depth > 0 ? STATE_AFTER : STATE_END;
}

static enum state read_name(struct scan *s)
{
    if (peek(s) != '"') {
        (void)fail(s, "a name in double quotes");
        return STATE_END;
    }
    if (read_string(s)) {
        skip_blanks(s);
        if (peek(s) == ':')
            s->at++;
        else
            (void)fail(s, "':'");
    }
    return STATE_VALUE;
}

static enum state step(struct scan *s, enum state state)
{
    char c = peek(s);
    switch (state) {
    case STATE_FIRST_VALUE:
        return c == ']' ? leave(s) : read_value(s);
    case STATE_FIRST_NAME:
        return c == '}' ? leave(s) : read_name(s);
    case STATE_NAME:
        return read_name(s);
    case STATE_AFTER:
        if (c == (in_object(s) ? '}' : ']'))
            return leave(s);
        if (c != ',')
            (void)fail(s, in_object(s) ? "',' or '}'" : "',' or ']'");
        s->at += c == ',' ? 1 : 0;
        return in_object(s) ? STATE_NAME : STATE_VALUE;
    case STATE_VALUE:
    case STATE_END:
        break;
    }
    return read_value(s);
}

/* Line and column (in characters) of the cursor, from 1. */
static void describe(const struct scan *s, char reterr[PAYLOAD_ERROR_SIZE])
{
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < s->at; i++) {
        bool continues = ((unsigned char)s->text[i] & 0xC0) == 0x80;
        column += continues ? 0 : 1;
        if (s->text[i] == '\n') {
            line++;
            column = 1;
        }
    }
    (void)snprintf(reterr, PAYLOAD_ERROR_SIZE, "line %zu, column %zu: expected %s%s", line, column,
                   s->expected, s->at >= s->len ? ", not the end" : "");
}

static int check(const char *text, size_t len, bool for_jsonb, char reterr[PAYLOAD_ERROR_SIZE])
{
    struct scan s = {.text = text, .len = len, .for_jsonb = for_jsonb};
    enum state state = STATE_VALUE;
    reterr[0] = '\0';
    while (state != STATE_END && s.expected == NULL) {
        skip_blanks(&s);
        state = step(&s, state);
    }
    if (s.expected == NULL)
        skip_blanks(&s);
    if (s.expected == NULL && s.at < s.len)
        s.expected = "nothing behind the value";
    if (s.expected == NULL)
        return 0;
    describe(&s, reterr);
    return OB_ESYNTAX;
}

int payload_check_json(const char *text, size_t len, char reterr[PAYLOAD_ERROR_SIZE])
{
    return check(text, len, false, reterr);
}

int payload_check_jsonb(const char *text, size_t len, char reterr[PAYLOAD_ERROR_SIZE])
{
    return check(text, len, true, reterr);
}

/* The position behind the string that opens at `at`. */
static size_t skip_string(const char *text, size_t len, size_t at)
{
    for (at++; at < len && text[at] != '"'; at++)
        at += text[at] == '\\' ? 1 : 0;
    return at < len ? at + 1 : len;
}

static bool is_one_of(char c, const char *set)
{
    return c != '\0' && strchr(set, c) != NULL;
}

/* The position behind the value that begins at `at`. */
static size_t skip_value(const char *text, size_t len, size_t at)
{
    size_t depth = 0;
    do {
        char c = at < len ? text[at] : '\0';
        if (c == '"') {
            at = skip_string(text, len, at);
        } else if (is_one_of(c, "{[")) {
            depth++;
            at++;
        } else if (is_one_of(c, "}]")) {
            depth--;
            at++;
        } else if (depth > 0) {
            at++;
        } else {
            while (at < len && !is_one_of(text[at], ",}] \t\r\n"))
                at++;
        }
    } while (depth > 0 && at < len);
    return at;
}

/* Steps over blanks and the punctuation between members, of which valid JSON has no more than is
 * right. */
static size_t skip_between(const char *text, size_t len, size_t at, const char *set)
{
    while (at < len && is_one_of(text[at], set))
        at++;
    return at;
}

bool payload_next_member(const char *text, size_t len, size_t *pos, struct payload_member *ret)
{
    size_t at = skip_between(text, len, *pos, *pos == 0 ? " \t\r\n{" : " \t\r\n,");
    if (at >= len || text[at] != '"')
        return false;
    size_t end = skip_string(text, len, at);
    ret->name = text + at + 1;
    ret->name_len = end - at - 2;
    at = skip_between(text, len, end, " \t\r\n:");
    end = skip_value(text, len, at);
    ret->value = text + at;
    ret->value_len = end - at;
    *pos = end;
    return true;
}
