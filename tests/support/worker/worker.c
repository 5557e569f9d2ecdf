/* A worker that does what it is told, good or bad; written against the protocol's text, without
 * outbox/worker.h.
 *
 * Arguments say how it begins: window=N; mute (never says ready); exit=N and garbage (instead of
 * ready); noread (reads nothing after it); deaf (ignores TERM and the end of file); quit (exits
 * after ready); greedy (collects what is there before it answers each with "batch N").
 *
 * The payload, a JSON string or plain text, says what becomes of a job; see obey(). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { HELD_MAX = 1024, ID_SIZE = 32 };

static char held[HELD_MAX][ID_SIZE];
static size_t held_count;
static bool is_greedy;
static bool is_deaf;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vprintf(fmt, args);
    va_end(args);
    (void)fflush(stdout);
}

static void answer(const char *id, const char *rest)
{
    say("{\"id\":\"%s\",%s}\n", id, rest);
}

static void answer_ok(const char *id)
{
    answer(id, "\"status\":\"ok\"");
}

static void answer_dead(const char *id, const char *text)
{
    char rest[4096];
    (void)snprintf(rest, sizeof rest, "\"status\":\"dead\",\"error\":\"%s\"", text);
    answer(id, rest);
}

static void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

static void sleep_for_ever(void)
{
    for (;;)
        (void)pause();
}

static void answer_held(void)
{
    while (held_count > 0)
        answer_ok(held[--held_count]);
}

static void write_many(FILE *to, const char *text, long n)
{
    for (long i = 0; i < n; i++)
        (void)fprintf(to, "%s %ld\n", text, i);
    (void)fflush(to);
}

/* Waits for TERM, and answers then. */
static void answer_on_term(const char *id)
{
    sigset_t set;
    int signum = 0;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    say("{\"op\":\"touch\",\"id\":\"%s\",\"extend\":0}\n", id); /* a sign that it waits */
    (void)sigwait(&set, &signum);
    answer_ok(id);
    exit(0);
}

static void show_environment(const char *id)
{
    char names[3000] = "";
    size_t len = 0;
    for (char **e = environ; *e != NULL; e++)
        len += (size_t)snprintf(names + len, sizeof names - len, "%s;", *e);
    answer_dead(id, names);
}

static void record(const char *id, const char *path, const char *attempt)
{
    FILE *f = fopen(path, "a");
    if (f != NULL) {
        (void)fprintf(f, "%s %s\n", id, attempt);
        (void)fclose(f);
    }
}

static void misbehave(const char *id, const char *verb, const char *rest)
{
    if (strcmp(verb, "raw") == 0) {
        say("%s\n", rest);
    } else if (strcmp(verb, "nul") == 0) {
        (void)fwrite("{\"id\":\"1\0\"}\n", 1, 12, stdout);
        (void)fflush(stdout);
    } else if (strcmp(verb, "long") == 0) {
        for (int i = 0; i < 70000; i++)
            (void)putchar('x');
        (void)fflush(stdout);
    } else if (strcmp(verb, "twice") == 0) {
        answer_ok(id);
        answer_ok(id);
    } else if (strcmp(verb, "closeout") == 0) {
        (void)close(STDOUT_FILENO);
    } else if (strcmp(verb, "flood") == 0) {
        write_many(stderr, "flood of many words, most of which nobody will ever read", 200000);
        answer_ok(id);
        return;
    } else if (strcmp(verb, "deaf") == 0) {
        (void)signal(SIGTERM, SIG_IGN);
    }
    sleep_for_ever();
}

/* text: VERB REST */
static void obey(const char *id, const char *attempt, const char *text, size_t len)
{
    char verb[16] = "";
    size_t n = strcspn(text, " ");
    const char *rest = text[n] == ' ' ? text + n + 1 : "";
    (void)snprintf(verb, sizeof verb, "%.*s", (int)n, text);
    if (strcmp(verb, "ok") == 0 || verb[0] == '\0' || verb[0] == '{') {
        answer_ok(id);
    } else if (strcmp(verb, "size") == 0) {
        char size[32];
        (void)snprintf(size, sizeof size, "size %zu", len);
        answer_dead(id, size);
    } else if (strcmp(verb, "answer") == 0) {
        answer(id, rest);
    } else if (strcmp(verb, "hold") == 0) {
        (void)snprintf(held[held_count++], ID_SIZE, "%s", id);
    } else if (strcmp(verb, "release") == 0) {
        answer_ok(id);
        answer_held();
    } else if (strcmp(verb, "exit") == 0) {
        exit((int)strtol(rest, NULL, 10));
    } else if (strcmp(verb, "kill") == 0) {
        (void)kill(getpid(), (int)strtol(rest, NULL, 10));
    } else if (strcmp(verb, "err") == 0) {
        write_many(stderr, "line", strtol(rest, NULL, 10));
        answer_ok(id);
    } else if (strcmp(verb, "say") == 0) {
        (void)fprintf(stderr, "%s\n", rest);
        exit(9);
    } else if (strcmp(verb, "grace") == 0) {
        answer_on_term(id);
    } else if (strcmp(verb, "touch") == 0) { /* SECONDS, and then 600 ms of work */
        say("{\"op\":\"touch\",\"id\":\"%s\",\"extend\":%s}\n", id, rest);
        pause_ms(600);
        answer_ok(id);
    } else if (strcmp(verb, "env") == 0) {
        show_environment(id);
    } else if (strcmp(verb, "record") == 0) {
        record(id, rest, attempt);
        answer_ok(id);
    } else if (strcmp(verb, "poison") == 0) {
        record(id, rest, attempt);
        (void)kill(getpid(), SIGKILL);
    } else if (strcmp(verb, "pid") == 0) {
        char pid[32];
        (void)snprintf(pid, sizeof pid, "pid %d", (int)getpid());
        answer_dead(id, pid);
    } else {
        misbehave(id, verb, rest);
    }
}

/* More of standard input comes within a moment. Standard input is unbuffered. */
static bool has_more(void)
{
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&fd, 1, 200) > 0 && (fd.revents & POLLIN) != 0;
}

static void collect(const char *id)
{
    (void)snprintf(held[held_count++], ID_SIZE, "%s", id);
    if (has_more())
        return;
    char text[32];
    (void)snprintf(text, sizeof text, "batch %zu", held_count);
    for (size_t i = 0; i < held_count; i++)
        answer_dead(held[i], text);
    held_count = 0;
}

/* The member's value as text, quotes excluded. */
static void member(const char *line, const char *name, char *text, size_t size)
{
    char quoted[32];
    (void)snprintf(quoted, sizeof quoted, "\"%s\":", name);
    const char *found = strstr(line, quoted);
    found = found != NULL ? found + strlen(quoted) : "";
    found += *found == '"' ? 1 : 0;
    (void)snprintf(text, size, "%.*s", (int)strcspn(found, "\",}"), found);
}

static char *read_payload(size_t len)
{
    char *payload = malloc(len + 1);
    if (payload == NULL || fread(payload, 1, len, stdin) != len)
        exit(90);
    payload[len] = '\0';
    return payload;
}

/* A JSON string's inside, with its quotes and backslashes as they are meant. */
static size_t unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        from += *from == '\\' && from[1] != '\0' ? 1 : 0;
        *to++ = *from;
    }
    *to = '\0';
    return (size_t)(to - text);
}

static void serve(const char *line)
{
    char id[ID_SIZE];
    char attempt[16];
    char len_text[32];
    member(line, "id", id, sizeof id);
    member(line, "attempt", attempt, sizeof attempt);
    member(line, "len", len_text, sizeof len_text);
    size_t len = strtoul(len_text, NULL, 10);
    char *payload = read_payload(len);
    char *text = payload;
    size_t text_len = len;
    if (len >= 2 && text[0] == '"') {
        text[len - 1] = '\0';
        text++;
        text_len = unescape(text);
    }
    if (strcmp(text, "header") == 0) { /* shown with its quotes as apostrophes */
        char copy[2048];
        (void)snprintf(copy, sizeof copy, "%.*s", (int)strcspn(line, "\n"), line);
        for (char *p = copy; *p != '\0'; p++)
            *p = *p == '"' ? '\'' : *p == '\\' ? '/' : *p;
        answer_dead(id, copy);
    } else if (is_greedy) {
        collect(id);
    } else {
        obey(id, attempt, text, text_len);
    }
    free(payload);
}

static void begin(int argc, char **argv)
{
    const char *window = "1";
    bool is_noread = false;
    bool is_quit = false;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "window=", 7) == 0)
            window = argv[i] + 7;
        else if (strcmp(argv[i], "mute") == 0)
            sleep_for_ever();
        else if (strncmp(argv[i], "exit=", 5) == 0)
            exit((int)strtol(argv[i] + 5, NULL, 10));
        else if (strcmp(argv[i], "garbage") == 0)
            say("Traceback (most recent call last):\n");
        is_greedy = is_greedy || strcmp(argv[i], "greedy") == 0;
        is_deaf = is_deaf || strcmp(argv[i], "deaf") == 0;
        is_noread = is_noread || strcmp(argv[i], "noread") == 0;
        is_quit = is_quit || strcmp(argv[i], "quit") == 0;
    }
    if (is_deaf)
        (void)signal(SIGTERM, SIG_IGN);
    say("{\"op\":\"ready\",\"proto\":1,\"window\":%s}\n", window);
    if (is_noread)
        sleep_for_ever();
    if (is_quit)
        exit(3);
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t cap = 0;
    (void)setvbuf(stdin, NULL, _IONBF, 0); /* has_more() asks the descriptor */
    while (getline(&line, &cap, stdin) > 0) {
        if (strstr(line, "\"op\":\"hello\"") != NULL)
            begin(argc, argv);
        else
            serve(line);
    }
    free(line);
    if (is_deaf)
        sleep_for_ever();
    return 0;
}
