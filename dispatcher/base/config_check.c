/* config_check.c - rules of single values: pure functions from a text to what was expected of it.
 * Called by the types of config_types.c and for command-line handlers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/config_private.h"

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* 1 to max characters, letters, digits and `others`, the first a letter, a digit or _. */
static bool is_name(const char *name, const char *others, size_t max)
{
    size_t n = strlen(name);
    if (n == 0 || n > max || !(is_alnum(name[0]) || name[0] == '_'))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_alnum(name[i]) && strchr(others, name[i]) == NULL)
            return false;
    }
    return true;
}

bool task_name_is_valid(const char *name)
{
    return is_name(name, "._:-", 128);
}

struct unit {
    const char *name;
    uint64_t factor;
};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
static const struct unit size_units[] = {
    {"", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}};

static int parse_number(const char *text, const struct unit *units, size_t count, uint64_t *ret)
{
    uint64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (n > (UINT64_MAX - digit) / 10)
            return OB_EINVAL;
        n = n * 10 + digit;
    }
    if (p == text)
        return OB_EINVAL;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(p, units[i].name) != 0)
            continue;
        if (n > UINT64_MAX / units[i].factor)
            return OB_EINVAL;
        *ret = n * units[i].factor;
        return 0;
    }
    return OB_EINVAL;
}

int parse_duration(const char *text, uint64_t *ret_ms)
{
    if (strcmp(text, "0") == 0) {
        *ret_ms = 0;
        return 0;
    }
    return parse_number(text, duration_units, sizeof duration_units / sizeof duration_units[0],
                        ret_ms);
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse_number(text, size_units, sizeof size_units / sizeof size_units[0], ret_bytes);
}

static void format_number(uint64_t n, const struct unit *units, size_t count, char ret_text[32])
{
    size_t i = count - 1;
    while (i > 0 && (n == 0 || n % units[i].factor != 0))
        i--;
    (void)snprintf(ret_text, 32, "%" PRIu64 "%s", n / units[i].factor, units[i].name);
}

void format_duration(uint64_t ms, char ret_text[32])
{
    if (ms == 0)
        (void)snprintf(ret_text, 32, "0");
    else
        format_number(ms, duration_units, sizeof duration_units / sizeof duration_units[0],
                      ret_text);
}

void format_size(uint64_t bytes, char ret_text[32])
{
    format_number(bytes, size_units, sizeof size_units / sizeof size_units[0], ret_text);
}

const char *check_not_empty(const char *text)
{
    return text[0] == '\0' ? "a text that is not empty" : NULL;
}

const char *check_absolute(const char *text)
{
    return text[0] == '/' ? NULL : "an absolute path";
}

const char *check_database(const char *text)
{
    if (strncmp(text, "postgresql://", 13) == 0 || strncmp(text, "postgres://", 11) == 0 ||
        strchr(text, '=') != NULL)
        return NULL;
    return "a connection string such as postgresql:///shop or 'host=/run/postgresql dbname=shop'";
}

const char *check_dispatcher_name(const char *text)
{
    return is_name(text, "._-", 64) ? NULL
                                    : "1 to 64 letters, digits, '.', '_' and '-', beginning with "
                                      "a letter, a digit or '_'";
}

/* Length of the scheme with "://", or 0. */
static size_t http_scheme(const char *text)
{
    if (strncasecmp(text, "http://", 7) == 0)
        return 7;
    return strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
}

/* host, host:port, [v6]:port. */
static bool is_authority(const char *s, size_t n)
{
    size_t host = 0;
    if (n > 0 && s[0] == '[') {
        while (host < n && s[host] != ']')
            host++;
        if (host < 3 || host == n || strspn(s + 1, "0123456789abcdefABCDEF:.") != host - 1)
            return false;
        host++;
    } else {
        while (host < n && (is_alnum(s[host]) || strchr("._-", s[host]) != NULL))
            host++;
    }
    if (host == 0 || host == n)
        return host > 0;
    unsigned port = 0;
    if (s[host] != ':' || host + 1 == n || n - host > 6)
        return false;
    for (size_t i = host + 1; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        port = port * 10 + (unsigned)(s[i] - '0');
    }
    return port > 0 && port <= 65535;
}

static bool has_only_url_characters(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= 0x20 || *text >= 0x7f || strchr("\"<>\\^`{|}", *text) != NULL)
            return false;
    }
    return true;
}

const char *check_url(const char *text)
{
    size_t scheme = http_scheme(text);
    if (scheme == 0)
        return "a URL that begins with http:// or https://";
    if (strlen(text) > 4096)
        return "a URL of at most 4096 bytes";
    if (!has_only_url_characters(text))
        return "a URL with other characters percent-encoded";
    if (strchr(text, '#') != NULL)
        return "a URL without a fragment (#...), which would not be sent";
    size_t authority = strcspn(text + scheme, "/?");
    if (memchr(text + scheme, '@', authority) != NULL)
        return "a URL without user and password; use headers: {Authorization: ...}";
    if (!is_authority(text + scheme, authority))
        return "a host, and a port from 1 to 65535 if there is one";
    return NULL;
}

const char *check_proxy(const char *text)
{
    static const char *const schemes[] = {"http://",    "https://",  "socks4://",
                                          "socks4a://", "socks5://", "socks5h://"};
    size_t scheme = 0;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strncasecmp(text, schemes[i], strlen(schemes[i])) == 0)
            scheme = strlen(schemes[i]);
    }
    const char *end = text + strlen(text);
    if (end > text && end[-1] == '/')
        end--;
    const char *host = strrchr(text, '@');
    host = host != NULL ? host + 1 : text + scheme;
    if (scheme == 0 || host >= end || !has_only_url_characters(text) ||
        !is_authority(host, (size_t)(end - host)))
        return "a proxy such as http://proxy.example.com:3128 or socks5h://127.0.0.1:1080";
    return NULL;
}

const char *check_method(const char *text)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(text, methods[i]) == 0)
            return NULL;
    }
    return "POST, PUT, PATCH or DELETE";
}

const char *check_header_value(const char *text)
{
    if (text[0] == '\0')
        return "a value that is not empty";
    if (text[0] == ' ' || text[0] == '\t')
        return "a value that does not begin with a blank";
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text < 0x20 && *text != '\t') || *text == 0x7f)
            return "a value without line breaks and other control characters";
    }
    return NULL;
}

const char *check_header_name(const char *name)
{
    static const char *const reserved[] = {
        "Host", "Content-Length", "Transfer-Encoding", "Expect",     "Connection", "Keep-Alive",
        "TE",   "Trailer",        "Upgrade",           "User-Agent", "traceparent"};
    size_t n = strlen(name);
    if (n == 0 || n > 256)
        return "a header name of 1 to 256 characters";
    for (size_t i = 0; i < n; i++) {
        if (!is_alnum(name[i]) && strchr("!#$%&'*+-.^_`|~", name[i]) == NULL)
            return "a header name: letters, digits and -";
    }
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        if (strcasecmp(name, reserved[i]) == 0)
            return "another header: this one is set by the dispatcher";
    }
    if (strncasecmp(name, "webhook-", 8) == 0)
        return "another header: webhook-* are set by the dispatcher";
    if (strcasecmp(name, "Content-Type") == 0)
        return "the key content_type instead";
    if (strcasecmp(name, "Idempotency-Key") == 0)
        return "the key idempotency_key instead";
    return NULL;
}

const char *check_env_name(const char *name)
{
    if (!is_name(name, "_", 256) || (name[0] >= '0' && name[0] <= '9'))
        return "a variable name: letters, digits and _, not beginning with a digit";
    if (strncmp(name, "OUTBOX_", 7) == 0)
        return "another name: those beginning with OUTBOX_ are set by the dispatcher";
    return NULL;
}

const char *check_env_pass_name(const char *name)
{
    const char *expected = check_env_name(name);
    if (expected == NULL && strncmp(name, "PG", 2) == 0)
        return "no PG* variable: they are the dispatcher's own; set what the command needs with "
               "env";
    return expected;
}

const char *check_path(const char *text)
{
    for (const char *p = text; p != NULL; p = strchr(p, ':')) {
        p += *p == ':' ? 1 : 0;
        if (*p != '/')
            return "absolute folders with ':' between them";
    }
    return NULL;
}

/* {word} in lower case is a placeholder; anything else in braces stays as it is. */
const char *check_argument(const char *text)
{
    static const char *const known[] = {"{id}", "{attempt}", "{task}"};
    for (const char *p = strchr(text, '{'); p != NULL; p = strchr(p + 1, '{')) {
        size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_");
        if (n == 0 || p[n + 1] != '}')
            continue;
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            found = found || (strlen(known[i]) == n + 2 && strncmp(p, known[i], n + 2) == 0);
        if (!found)
            return "no placeholder but {id}, {attempt} and {task}";
    }
    return NULL;
}

const char *check_program(const char *text)
{
    if (text[0] == '\0')
        return "a program";
    if (strstr(text, "{id}") != NULL || strstr(text, "{attempt}") != NULL ||
        strstr(text, "{task}") != NULL)
        return "a program without placeholders: they are for arguments";
    if (text[0] != '/' && strchr(text, '/') != NULL)
        return "an absolute path, or a bare name to be found in path";
    return NULL;
}
