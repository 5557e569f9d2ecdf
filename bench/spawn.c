/* spawn.c - how many processes a second: a bare posix_spawn loop against the whole path of an exec
 * job (environment, stdin, output pipe, timer, spawner, exit) but for the database.
 *
 *   bench_spawn [SECONDS=1] [CONCURRENCY=8]
 *   bench_spawn SECONDS CONCURRENCY bare|uv|path [MB]
 *       one of them, once, for bench/run, with so much touched memory: the bare loop, a loop of
 *       uv_spawn, or ours
 *
 * Each is measured with a small process and with 200 MB of touched memory, alternately in
 * five rounds, of which the medians are printed. The ratio counts: absolute figures are the
 * machine's. */
#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

static uint64_t timeval_us(struct timeval tv)
{
    return (uint64_t)tv.tv_sec * 1000000U + (uint64_t)tv.tv_usec;
}

/* Processor time of this process, of the children it has waited for, and the same of the spawner
 * (pid, 0: none): what a job costs whatever else the machine does. */
static uint64_t cpu_us(pid_t spawner)
{
    uint64_t us = 0;
    struct rusage usage;
    const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        (void)getrusage(whose[i], &usage);
        us += timeval_us(usage.ru_utime) + timeval_us(usage.ru_stime);
    }
    if (spawner == 0)
        return us;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)spawner);
    FILE *file = fopen(path, "re");
    unsigned long ticks[4] = {0};
    if (file == NULL || /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
        fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu",
               &ticks[0], &ticks[1], &ticks[2], &ticks[3]) != 4)
        die("the spawner's processor time", OB_EINVAL);
    (void)fclose(file);
    uint64_t tick_us = 1000000U / (uint64_t)sysconf(_SC_CLK_TCK);
    return us + (ticks[0] + ticks[1] + ticks[2] + ticks[3]) * tick_us;
}

struct figures {
    double rate;   /* processes a second */
    double cpu_us; /* of one, in all processes involved */
    unsigned done;
};

/* The limit: nothing but posix_spawn and waitpid. */
static struct figures measure_bare(void)
{
    static char program[] = "/bin/true";
    static char path[] = "PATH=/usr/bin:/bin";
    char *argv[] = {program, NULL};
    char *envp[] = {path, NULL};
    uint64_t cpu_begin = cpu_us(0);
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
    return (struct figures){.rate = (double)done * 1e6 / (double)(clock_mono_us() - begin),
                            .cpu_us = (double)(cpu_us(0) - cpu_begin) / done,
                            .done = done};
}

/* What a program on libuv would do without more ado. */
struct uv_loop_bench {
    uv_loop_t loop;
    uint64_t end_us;
    unsigned running;
    unsigned done;
};

static void uv_start(struct uv_loop_bench *b);

static void on_uv_closed(uv_handle_t *handle)
{
    free(handle);
}

static void on_uv_exit(uv_process_t *process, int64_t status, int signum)
{
    struct uv_loop_bench *b = process->data;
    if (status != 0 || signum != 0)
        die("uv_spawn's child", OB_ESPAWN);
    b->running--;
    b->done++;
    uv_close((uv_handle_t *)process, on_uv_closed);
    if (clock_mono_us() < b->end_us)
        uv_start(b);
}

static void uv_start(struct uv_loop_bench *b)
{
    static char program[] = "/bin/true";
    char *args[] = {program, NULL};
    const uv_process_options_t options = {.exit_cb = on_uv_exit, .file = program, .args = args};
    uv_process_t *process = calloc(1, sizeof *process);
    if (process == NULL)
        die("calloc", OB_ENOMEM);
    process->data = b;
    int err = uv_spawn(&b->loop, process, &options);
    if (err != 0)
        die("uv_spawn", err);
    b->running++;
}

static struct figures measure_uv(void)
{
    struct uv_loop_bench b = {.running = 0};
    int err = uv_loop_init(&b.loop);
    if (err != 0)
        die("uv_loop_init", err);
    uint64_t cpu_begin = cpu_us(0);
    uint64_t begin = clock_mono_us();
    b.end_us = begin + duration_ms * 1000;
    for (unsigned i = 0; i < concurrency; i++)
        uv_start(&b);
    (void)uv_run(&b.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&b.loop);
    return (struct figures){.rate = (double)b.done * 1e6 / (double)(clock_mono_us() - begin),
                            .cpu_us = (double)(cpu_us(0) - cpu_begin) / b.done,
                            .done = b.done};
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

static struct figures measure_client(void)
{
    pid_t spawner = spawn_client_pid(bench.client);
    uint64_t cpu_begin = cpu_us(spawner);
    uint64_t begin = clock_mono_us();
    bench.end_us = begin + duration_ms * 1000;
    bench.done = 0;
    for (unsigned i = 0; i < concurrency; i++)
        start(&bench.runs[i]);
    while (bench.running > 0)
        (void)uv_run(&bench.loop, UV_RUN_ONCE);
    return (struct figures){.rate = (double)bench.done * 1e6 / (double)(clock_mono_us() - begin),
                            .cpu_us = (double)(cpu_us(spawner) - cpu_begin) / bench.done,
                            .done = bench.done};
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

static int close_all(void)
{
    bench.commands->ops->close(bench.commands, on_commands_closed);
    (void)uv_run(&bench.loop, UV_RUN_DEFAULT);
    config_unref(bench.config);
    return uv_loop_close(&bench.loop) == 0 ? 0 : 1;
}

/* The ballast is touched after the spawner was forked, as a daemon's memory is. */
static int measure_one(const char *what, size_t ballast_mb)
{
    int code = 0;
    bool is_path = strcmp(what, "path") == 0;
    if (is_path)
        open_all();
    size_t bytes = ballast_mb * 1024 * 1024;
    char *ballast = ob_xcalloc(bytes + 1, 1);
    memset(ballast, 1, bytes + 1);
    struct figures f = is_path                   ? measure_client()
                       : strcmp(what, "uv") == 0 ? measure_uv()
                                                 : measure_bare();
    (void)printf("jobs_per_s=%.0f jobs=%u process_us=%.1f\n", f.rate, f.done, f.cpu_us);
    if (is_path)
        code = close_all();
    ob_free(ballast);
    return code;
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
    if (argc > 3)
        return measure_one(argv[3], argc > 4 ? strtoul(argv[4], NULL, 10) : 0);
    open_all();
    (void)printf("%-8s %10s %12s %8s %12s %12s\n", "memory", "bare /s", "pgoutbox /s", "ratio",
                 "bare CPU us", "our CPU us");
    for (int ballast = 0; ballast < 2; ballast++) {
        char *memory = NULL;
        if (ballast == 1) {
            memory = ob_xcalloc(1, BALLAST_BYTES);
            memset(memory, 1, BALLAST_BYTES);
        }
        double values[5][ROUNDS];
        for (int round = 0; round < ROUNDS; round++) {
            struct figures bare = measure_bare();
            struct figures ours = measure_client();
            values[0][round] = bare.rate;
            values[1][round] = ours.rate;
            values[2][round] = ours.rate / bare.rate;
            values[3][round] = bare.cpu_us;
            values[4][round] = ours.cpu_us;
        }
        (void)printf("%-8s %10.0f %12.0f %8.2f %12.0f %12.0f\n", ballast == 0 ? "small" : "200 MB",
                     median(values[0]), median(values[1]), median(values[2]), median(values[3]),
                     median(values[4]));
        ob_free(memory);
    }
    return close_all();
}
