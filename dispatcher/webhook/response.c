/* response.c - see response.h. Called by transfer.c from libcurl's callbacks. */
#include "webhook/response.h"

#include <string.h>
#include <strings.h>

#include "webhook/retry_after.h"

void response_init(struct response *r, size_t capture_bytes, uint64_t body_bytes_max)
{
    memset(r, 0, sizeof *r);
    buf_init(&r->head, capture_bytes);
    r->body_bytes_max = body_bytes_max;
}

void response_deinit(struct response *r)
{
    buf_deinit(&r->head);
}

void response_clear(struct response *r)
{
    struct buf head = r->head;
    uint64_t body_bytes_max = r->body_bytes_max;
    buf_clear(&head);
    memset(r, 0, sizeof *r);
    r->head = head;
    r->body_bytes_max = body_bytes_max;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 204 No Content" -> 204; 0 if it is not so. */
static int parse_status(const char *line, size_t len)
{
    const char *space = memchr(line, ' ', len);
    if (space == NULL || (size_t)(line + len - space) < 4)
        return 0;
    if (!is_digit(space[1]) || !is_digit(space[2]) || !is_digit(space[3]))
        return 0;
    return (space[1] - '0') * 100 + (space[2] - '0') * 10 + (space[3] - '0');
}

/* If the line is the header `name`, its value without space around, cut to size. The first of
 * several counts. */
static void take_value(const char *line, size_t len, const char *name, char *text, size_t size)
{
    size_t name_len = strlen(name);
    if (text[0] != '\0' || len <= name_len || line[name_len] != ':' ||
        strncasecmp(line, name, name_len) != 0)
        return;
    const char *value = line + name_len + 1;
    const char *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (value < end && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n'))
        end--;
    size_t n = (size_t)(end - value);
    if (n >= size)
        n = size - 1;
    memcpy(text, value, n);
    text[n] = '\0';
}

/* A block is a status line, headers, an empty line. Blocks of 1xx come before the one that counts;
 * what comes behind that are trailers. */
bool response_header(struct response *r, const char *line, size_t len)
{
    r->header_bytes += len;
    if (r->header_bytes > RESPONSE_HEADERS_MAX)
        return false;
    if (r->is_complete)
        return true;
    bool is_end = len > 0 && (line[0] == '\n' || line[0] == '\r');
    if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        r->status = parse_status(line, len);
        r->retry_after[0] = '\0';
        r->location[0] = '\0';
    } else if (is_end) {
        /* 101: we never ask for another protocol, so nothing better will follow. */
        r->is_complete = r->status >= 200 || r->status == 101;
    } else {
        take_value(line, len, "Retry-After", r->retry_after, sizeof r->retry_after);
        take_value(line, len, "Location", r->location, sizeof r->location);
    }
    return true;
}

bool response_body(struct response *r, const char *bytes, size_t len)
{
    size_t room = r->head.len_max - r->head.len;
    buf_append(&r->head, bytes, len < room ? len : room); /* no memory: less is kept */
    r->body_bytes += len;
    return r->body_bytes <= r->body_bytes_max;
}

void response_end(const struct response *r, int64_t now_unix_ms, uint64_t retry_after_max_ms,
                  struct http_end *end)
{
    if (!r->is_complete)
        return;
    end->status = r->status;
    end->location = r->location[0] != '\0' ? r->location : NULL;
    end->has_retry_after = r->retry_after[0] != '\0' &&
                           retry_after_parse(r->retry_after, strlen(r->retry_after), now_unix_ms,
                                             retry_after_max_ms, &end->retry_after_ms) == 0;
}
