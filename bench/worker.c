/* worker.c - the least that a resident worker can do, and the limit of jobs over pipes.
 *
 *   bench_worker serve [WINDOW=1]     a worker by outbox/worker.h: every job is done at once
 *   bench_worker bare SECONDS WINDOW PROCESSES
 *       frames of the size of our jobs and answers, sent to and fro over pipes by one loop and as
 *       many children that only count bytes: no JSON, no database, WINDOW under way in each */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <outbox/worker.h>

#include "base/clock.h"
#include "lib.h"

enum { JOB_BYTES = 320, ANSWER_BYTES = 29, WINDOW_MAX = 1000, PROCESSES_MAX = 64 };

struct peer {
    int to;
    int from;
    size_t received; /* of an answer that is not whole yet */
};

static char frames[JOB_BYTES * WINDOW_MAX];
static char answers[ANSWER_BYTES * WINDOW_MAX];

static void write_whole(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n <= 0)
            exit(0); /* a child whose parent has measured enough */
        bytes += n;
        len -= (size_t)n;
    }
}

/* The child: an answer for each whole frame, those that came together in one write. */
static void echo(int from, int to)
{
    size_t have = 0;
    for (;;) {
        ssize_t n = read(from, frames + have, sizeof frames - have);
        if (n <= 0)
            _exit(0);
        have += (size_t)n;
        write_whole(to, answers, have / JOB_BYTES * ANSWER_BYTES);
        have %= JOB_BYTES;
    }
}

static void start_peer(struct peer *p)
{
    int down[2];
    int up[2];
    if (pipe(down) != 0 || pipe(up) != 0)
        bench_die("pipe", "no descriptors");
    pid_t pid = fork();
    if (pid < 0)
        bench_die("fork", "no process");
    if (pid == 0) {
        (void)close(down[1]);
        (void)close(up[0]);
        echo(down[0], up[1]);
    }
    (void)close(down[0]);
    (void)close(up[1]);
    *p = (struct peer){.to = down[1], .from = up[0]};
}

static uint64_t used_us(int who)
{
    struct rusage usage;
    (void)getrusage(who, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000U +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int bare(uint64_t duration_us, size_t window, size_t count)
{
    struct peer peers[PROCESSES_MAX];
    struct pollfd fds[PROCESSES_MAX];
    uint64_t done = 0;
    for (size_t i = 0; i < count; i++)
        start_peer(&peers[i]);
    uint64_t begin = clock_mono_us();
    for (size_t i = 0; i < count; i++) {
        write_whole(peers[i].to, frames, window * JOB_BYTES);
        fds[i] = (struct pollfd){.fd = peers[i].from, .events = POLLIN};
    }
    while (clock_mono_us() - begin < duration_us && poll(fds, count, 1000) > 0) {
        for (size_t i = 0; i < count; i++) {
            if ((fds[i].revents & POLLIN) == 0)
                continue;
            ssize_t n = read(fds[i].fd, answers, sizeof answers);
            if (n <= 0)
                bench_die("read", "the pipe is closed");
            peers[i].received += (size_t)n;
            size_t whole = peers[i].received / ANSWER_BYTES;
            peers[i].received %= ANSWER_BYTES;
            done += whole;
            write_whole(peers[i].to, frames, whole * JOB_BYTES);
        }
    }
    double seconds = (double)(clock_mono_us() - begin) / 1e6;
    for (size_t i = 0; i < count; i++) {
        (void)close(peers[i].to);
        (void)close(peers[i].from);
    }
    while (wait(NULL) > 0)
        ;
    double us = (double)(used_us(RUSAGE_SELF) + used_us(RUSAGE_CHILDREN));
    (void)printf("jobs_per_s=%.0f jobs=%llu process_us=%.1f\n", (double)done / seconds,
                 (unsigned long long)done, us / (double)done);
    return 0;
}

static void done(const struct outbox_worker_job *job, struct outbox_worker_reply *reply)
{
    (void)job; /* nothing said: it is done */
    (void)reply;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && strcmp(argv[1], "serve") == 0) {
        long window = argc > 2 ? bench_number(argv[2], 1, "WINDOW") : 1;
        const struct outbox_worker_options options = {.window = (unsigned)window};
        return outbox_worker_run(done, &options);
    }
    if (argc == 5 && strcmp(argv[1], "bare") == 0) {
        long seconds = bench_number(argv[2], 1, "SECONDS");
        long window = bench_number(argv[3], 1, "WINDOW");
        long count = bench_number(argv[4], 1, "PROCESSES");
        (void)signal(SIGPIPE, SIG_IGN);
        if (window <= WINDOW_MAX && count <= PROCESSES_MAX)
            return bare((uint64_t)seconds * 1000000U, (size_t)window, (size_t)count);
    }
    (void)fputs("usage: bench_worker serve [WINDOW] | bare SECONDS WINDOW PROCESSES\n", stderr);
    return 64;
}
