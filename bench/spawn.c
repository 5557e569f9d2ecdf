/* spawn.c - how many processes a second: a bare posix_spawn loop against the whole path of an exec
 * job (environment, stdin, output pipe, timer, spawner, exit) but for the database.
 *
 *   bench_spawn [SECONDS=1] [CONCURRENCY=8]
 *
 * Each is measured with a small process and with 200 MB of touched memory, alternately, and the
 * ratios are what counts: absolute figures are the machine's. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "exec/command.h"

enum { SLOTS_MAX = 256, BALLAST_BYTES = 200 * 1024 * 1024, ROUNDS = 5 };

static uint64_t duration_ms = 1000;
static unsigned concurrency = 8;

static void die(const char *what, int err)
{
    (void)fprintf(stderr, "%s: %s\n", what, ob_strerror(err));
    exit(1);
}

/* The limit: nothing but posix_spawn and waitpid. */
static double bare_rate(void)
{
    static char program[] = "/bin/true";
    static char path[] = "PATH=/usr/bin:/bin";
    char *argv[] = {program, NULL};
    char *envp[] = {path, NULL};
    uint64_t begin = clock_mono_us();
    uint64_t end = begin + duration_ms * 1000;
    unsigned running = 0;
    unsigned done = 0;
    while (clock_mono_us() < end || running > 0) {
        while (running < concurrency && clock_mono_us() < end) {
            pid_t pid;
            int err = posix_spawn(&pid, argv[0], NULL, NULL, argv, envp);
            if (err != 0)
                die("posix_spawn", -err);
            running++;
        }
        if (running > 0 && waitpid(-1, NULL, 0) > 0) {
            running--;
            done++;
        }
    }
    return (double)done * 1e6 / (double)(clock_mono_us() - begin);
}

struct bench {
    uv_loop_t loop;
    struct spawn_client *client;
    struct executor *commands;
    struct config *config;
    struct job job;
    struct run runs[SLOTS_MAX];
    uint64_t end_us;
    unsigned running;
    unsigned done;
};

static struct bench bench;

static void on_done(struct run *run, const struct outcome *outcome);

static void start(struct run *run)
{
    static const char body[] = "{\"order\":1001}";
    struct outcome refused;
    *run = (struct run){.job = &bench.job,
                        .task = &bench.config->tasks[0],
                        .body = body,
                        .body_len = sizeof body - 1,
                        .content_type = "application/json",
                        .executor = bench.commands,
                        .on_done = on_done};
    int err = run_start(run, &refused);
    if (err != 0)
        die(refused.reason, err);
    bench.running++;
}

static void on_done(struct run *run, const struct outcome *outcome)
{
    if (outcome->kind != OUTCOME_DONE)
        die(outcome->reason, OB_ESPAWN);
    bench.running--;
    bench.done++;
    if (clock_mono_us() < bench.end_us)
        start(run);
}

static double client_rate(void)
{
    uint64_t begin = clock_mono_us();
    bench.end_us = begin + duration_ms * 1000;
    bench.done = 0;
    for (unsigned i = 0; i < concurrency; i++)
        start(&bench.runs[i]);
    while (bench.running > 0)
        (void)uv_run(&bench.loop, UV_RUN_ONCE);
    return (double)bench.done * 1e6 / (double)(clock_mono_us() - begin);
}

static void on_lost(void *arg)
{
    (void)arg;
    die("the spawner", OB_ESPAWN);
}

static void open_all(void)
{
    struct spawner spawner;
    int err = spawner_fork(&spawner);
    if (err == 0)
        err = uv_loop_init(&bench.loop);
    if (err == 0)
        err = spawn_client_new(&bench.loop, &spawner, on_lost, NULL, &bench.client);
    if (err == 0)
        err = command_executor_new(&bench.loop, bench.client, &bench.commands);
    struct buf errors;
    buf_init(&errors, 4096);
    bench.config = config_new();
    if (err == 0)
        err = config_add_task(bench.config, HANDLER_EXEC, "true=/bin/true", &errors);
    if (err == 0)
        err = config_finish(bench.config, &errors);
    if (err != 0)
        die(errors.len > 0 ? errors.data : "start", err);
    buf_deinit(&errors);
    bench.job = (struct job){.id = 1,
                             .task = "true",
                             .attempt = 1,
                             .max_attempts = 20,
                             .created_at_us = clock_unix_us()};
}

static void on_client_closed(void *arg)
{
    (void)arg;
}

static void on_commands_closed(struct executor *ex)
{
    (void)ex;
    spawn_client_close(bench.client, on_client_closed, NULL);
}

static int compare(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double values[ROUNDS])
{
    qsort(values, ROUNDS, sizeof values[0], compare);
    return values[ROUNDS / 2];
}

int main(int argc, char **argv)
{
    if (argc > 1)
        duration_ms = strtoul(argv[1], NULL, 10) * 1000;
    if (argc > 2)
        concurrency = (unsigned)strtoul(argv[2], NULL, 10);
    if (duration_ms == 0 || concurrency == 0 || concurrency > SLOTS_MAX) {
        (void)fprintf(stderr, "usage: bench_spawn [SECONDS] [CONCURRENCY, at most %d]\n",
                      SLOTS_MAX);
        return 64;
    }
    open_all();
    (void)printf("%-10s %12s %12s %8s\n", "memory", "bare /s", "pgoutbox /s", "ratio");
    for (int ballast = 0; ballast < 2; ballast++) {
        char *memory = NULL;
        if (ballast == 1) {
            memory = ob_xcalloc(1, BALLAST_BYTES);
            memset(memory, 1, BALLAST_BYTES);
        }
        for (int round = 0; round < ROUNDS; round++) {
            double bare = bare_rate();
            double ours = client_rate();
            (void)printf("%-10s %12.0f %12.0f %8.2f\n", ballast == 0 ? "small" : "200 MB", bare,
                         ours, ours / bare);
        }
        ob_free(memory);
    }
    bench.commands->ops->close(bench.commands, on_commands_closed);
    (void)uv_run(&bench.loop, UV_RUN_DEFAULT);
    config_unref(bench.config);
    return uv_loop_close(&bench.loop) == 0 ? 0 : 1;
}
