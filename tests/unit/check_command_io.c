/* What a command reads, writes and is told: standard input, output capture, environment, arguments.
 */
#include "ck_main.h"
#include "command_fixture.h"

#include "exec/capture.h"

enum { SIXTEEN_MIB = 16 * 1024 * 1024 };

START_TEST(the_payload_is_standard_input_and_ends)
{
    const struct run_record *r = run_shell("cat; echo; cat", ", capture: always", "{\"n\": 1}");
    expect(r, OUTCOME_DONE, "");
    ck_assert_str_eq(r->head, "{\"n\": 1}\n");
    ck_assert_uint_eq(r->outcome.output_bytes, 9);
}
END_TEST

START_TEST(without_a_payload_standard_input_is_empty)
{
    const struct run_record *r =
        run_shell("cat; readlink /proc/self/fd/0", ", capture: always", "");
    ck_assert_str_eq(r->head, "/dev/null\n");
}
END_TEST

/* It is memory that the dispatcher has let go of, but several children may never share or change
 * it. */
START_TEST(standard_input_can_not_be_written)
{
    const struct run_record *r = run_shell("echo x >&0; echo $?; cat", ", capture: always", "{}");
    ck_assert_msg(strstr(r->head, "1\n{}") != NULL, "%s", r->head);
}
END_TEST

static void run_large(struct run_record *r, const char *task)
{
    char *body = malloc(SIXTEEN_MIB);
    ck_assert_ptr_nonnull(body);
    memset(body, 'x', SIXTEEN_MIB);
    run_begin(r, task, body, SIXTEEN_MIB);
    pump_until(r->is_done, 30000);
    free(body);
}

START_TEST(sixteen_mib_of_input_arrive_whole)
{
    static struct run_record r;
    configure("  t: { shell: 'cat | wc -c', capture: always }");
    run_large(&r, "t");
    expect(&r, OUTCOME_DONE, "");
    ck_assert_str_eq(r.head, "16777216\n");
}
END_TEST

START_TEST(sixteen_mib_of_input_may_be_left_unread_or_closed)
{
    static struct run_record r;
    configure("  t: { shell: 'exit 0' }\n  closes: { shell: 'exec 0<&-; sleep 0.05; exit 5' }");
    run_large(&r, "t");
    expect(&r, OUTCOME_DONE, "");
    run_large(&r, "closes");
    expect(&r, OUTCOME_RETRY, "exit 5");
}
END_TEST

START_TEST(output_of_both_streams_is_kept_in_order)
{
    const struct run_record *r =
        run_shell("echo 1; echo 2 >&2; echo 3; echo 4 >&2; exit 1", "", "");
    ck_assert_str_eq(r->head, "1\n2\n3\n4\n");
}
END_TEST

START_TEST(capture_follows_its_setting)
{
    const struct run_record *r = run_shell("echo x", ", capture: always", "");
    ck_assert_str_eq(r->head, "x\n");
    r = run_shell("echo x; exit 1", ", capture: never", "");
    expect(r, OUTCOME_RETRY, "exit 1");
    ck_assert_uint_eq(r->outcome.head_len, 0);
    ck_assert_uint_eq(r->outcome.output_bytes, 0);
    r = run_shell("echo x; exit 1", ", capture: on_failure", "");
    ck_assert_str_eq(r->head, "x\n");
}
END_TEST

/* Numbered lines, so that a wrong byte anywhere is seen. */
START_TEST(only_head_and_tail_of_large_output_are_kept)
{
    const struct run_record *r =
        run_shell("seq 1 1000000; exit 1", ", capture_head: 20, capture_tail: 20", "");
    expect(r, OUTCOME_RETRY, "exit 1");
    ck_assert_uint_eq(r->outcome.output_bytes, 6888896);
    ck_assert_str_eq(r->head, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10");
    ck_assert_str_eq(r->tail, "9998\n999999\n1000000\n");
}
END_TEST

static long resident_kib(void)
{
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    const char *line = strstr(fd_text(fd), "VmRSS:");
    (void)close(fd);
    ck_assert_ptr_nonnull(line);
    return strtol(line + 6, NULL, 10);
}

START_TEST(a_hundred_megabytes_of_output_take_no_memory)
{
    (void)run_shell("exit 1", "", "");
    long before = resident_kib();
    const struct run_record *r = run_shell("head -c 104857600 /dev/zero; exit 1", "", "");
    expect(r, OUTCOME_RETRY, "exit 1");
    ck_assert_uint_eq(r->outcome.output_bytes, 104857600);
    ck_assert_uint_eq(r->outcome.head_len, 4096);
    ck_assert_uint_eq(r->outcome.tail_len, 12288);
    ck_assert_int_lt(resident_kib() - before, 4096);
}
END_TEST

/* The pipe holds more than one turn of the loop reads, and the exit is told in that turn. */
START_TEST(output_that_is_in_the_pipe_at_the_exit_is_kept)
{
    static struct run_record r;
    configure("  t: { shell: 'sleep 0.3; head -c 1000000 /dev/zero; exit 1' }");
    run_begin(&r, "t", "", 0);
    for (int fd = 3; fd < 256; fd++)
        (void)fcntl(fd, F_SETPIPE_SZ, 1024 * 1024); /* of whatever is a pipe */
    ck_assert(wait_until(spawner_has_children(), 5000));
    ck_assert(wait_until(!spawner_has_children(), 5000)); /* meanwhile the loop does not run */
    pump_until(r.is_done, 5000);
    expect(&r, OUTCOME_RETRY, "exit 1");
    ck_assert_uint_eq(r.outcome.output_bytes, 1000000);
}
END_TEST

/* The survivor has a session of its own and keeps the pipe open: the job is over all the same. */
START_TEST(a_survivor_that_holds_the_output_does_not_hold_the_job)
{
    const struct run_record *r = run_shell(
        "setsid sh -c \"echo survivor; sleep 1000\" & sleep 0.2; echo leader; exit 3", "", "");
    expect(r, OUTCOME_RETRY, "exit 3");
    ck_assert_str_eq(r->head, "survivor\nleader\n");
    /* run_fixture_close: it does not outlive the spawner */
}
END_TEST

START_TEST(closed_output_does_not_end_the_job)
{
    expect(run_shell("echo x; exec >&- 2>&-; sleep 0.1; exit 4", "", ""), OUTCOME_RETRY, "exit 4");
}
END_TEST

/* The daemon's own environment, which must not get through. */
static void set_daemon_environment(void)
{
    (void)clearenv();
    (void)setenv("PATH", "/usr/bin:/bin", 1);
    (void)setenv("LANG", "C", 1);
    (void)setenv("HOME", "/root", 1);
    (void)setenv("SECRET", "s3cret", 1);
    (void)setenv("PGPASSWORD", "s3cret", 1);
    (void)setenv("OUTBOX_DATABASE", "postgresql://u:s3cret@h/d", 1);
    (void)setenv("LD_PRELOAD_NOT", "x", 1);
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines of text in order, joined again; changes text. Static storage. */
static const char *sorted_lines(char *text)
{
    static char out[16384];
    char *lines[128] = {NULL};
    size_t count = 0;
    char *save = NULL;
    for (char *l = strtok_r(text, "\n", &save); l != NULL && count < 128;
         l = strtok_r(NULL, "\n", &save))
        lines[count++] = l;
    qsort(lines, count, sizeof lines[0], compare_lines);
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s\n", lines[i]);
    return out;
}

START_TEST(the_environment_is_exactly_what_is_documented)
{
    static struct run_record r;
    set_daemon_environment();
    configure("  t: { exec: [/usr/bin/env], capture: always, timeout: 90s,"
              " env: { COLOUR: dark blue, LANG: de_DE.UTF-8 } }");
    run_prepare(&r, "t", "{}", 2);
    r.job.key = "user-42";
    r.job.lost = 3;
    r.job.headers = "{\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}";
    struct outcome refused;
    ck_assert_int_eq(run_start(&r.run, &refused), 0);
    uint64_t deadline = (r.run.started_unix_us / 1000 + 90000) / 1000;
    pump_until(r.is_done, 10000);
    char expected[4096];
    (void)snprintf(expected, sizeof expected,
                   "COLOUR=dark blue\nHOME=/root\nLANG=de_DE.UTF-8\nOUTBOX_ATTEMPT=2\n"
                   "OUTBOX_CONTENT_TYPE=application/json\n"
                   "OUTBOX_CREATED_AT=2026-01-02T03:04:05.678901Z\nOUTBOX_DEADLINE=%llu\n"
                   "OUTBOX_HEADERS={\"traceparent\":"
                   "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}\n"
                   "OUTBOX_IDEMPOTENCY_KEY=42-hegv80bkg5\nOUTBOX_JOB_ID=42\nOUTBOX_KEY=user-42\n"
                   "OUTBOX_LOST=3\nOUTBOX_MAX_ATTEMPTS=20\nOUTBOX_TASK=t\nPATH=/usr/bin:/bin\n"
                   "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
                   (unsigned long long)deadline);
    char key[JOB_IDEMPOTENCY_KEY_SIZE];
    job_idempotency_key(&r.job, key);
    char *at = strstr(expected, "42-hegv80bkg5");
    ck_assert_ptr_nonnull(at);
    ck_assert_uint_eq(strlen(key), strlen("42-hegv80bkg5"));
    memcpy(at, key, strlen(key));
    ck_assert_str_eq(sorted_lines(r.head), expected);
}
END_TEST

START_TEST(what_a_job_does_not_have_is_not_in_the_environment)
{
    set_daemon_environment();
    configure("  t: { exec: [/usr/bin/env], capture: always }");
    struct run_record *r = run_task("t", "{}");
    ck_assert_ptr_null(strstr(r->head, "TRACEPARENT"));
    ck_assert_ptr_null(strstr(r->head, "OUTBOX_KEY"));
    ck_assert_ptr_null(strstr(r->head, "OUTBOX_HEADERS"));
    ck_assert_ptr_null(strstr(r->head, "s3cret"));
}
END_TEST

START_TEST(variables_are_passed_on_only_by_name)
{
    set_daemon_environment();
    configure("  t: { exec: [/usr/bin/env], capture: always, env_pass: [SECRET, NOT_SET] }");
    struct run_record *r = run_task("t", "{}");
    ck_assert_ptr_nonnull(strstr(r->head, "SECRET=s3cret\n"));
    ck_assert_ptr_null(strstr(r->head, "HOME="));
    ck_assert_ptr_null(strstr(r->head, "NOT_SET"));
    ck_assert_ptr_nonnull(strstr(r->head, "PATH=")); /* there is always one */
}
END_TEST

/* The loader refuses these names; the executor does not pass them on even so. */
START_TEST(the_daemons_connection_is_never_passed_on)
{
    set_daemon_environment();
    configure("  t: { exec: [/usr/bin/env], capture: always, env_pass: [PATH, AAAAAAAAAA] }");
    struct task_config *task = &config->tasks[0];
    memcpy(task->command.env_pass.items[1], "PGPASSWORD", 10);
    struct run_record *r = run_task("t", "{}");
    ck_assert_ptr_null(strstr(r->head, "s3cret"));
}
END_TEST

START_TEST(path_of_the_configuration_wins)
{
    set_daemon_environment();
    struct run_record *r = run_shell("echo $PATH", ", path: /opt/tools:/bin, capture: always", "");
    ck_assert_str_eq(r->head, "/opt/tools:/bin\n");
}
END_TEST

START_TEST(arguments_hold_id_attempt_and_task)
{
    configure(
        "  a.b-c: { exec: [/usr/bin/printf, '%s|', '{id}', 'x{attempt}y{task}z', '{}', '{ID}', "
        "'{id', '', '{id}{id}'], capture: always }");
    struct run_record *r = run_task("a.b-c", "{}");
    ck_assert_str_eq(r->head, "42|x2ya.b-cz|{}|{ID}|{id||4242|");
}
END_TEST

START_TEST(a_shells_text_is_taken_as_it_stands)
{
    struct run_record *r =
        run_shell("echo \"{id} {task} $OUTBOX_JOB_ID\"", ", capture: always", "");
    ck_assert_str_eq(r->head, "{id} {task} 42\n");
}
END_TEST

START_TEST(folder_and_umask_are_those_of_the_configuration)
{
    struct run_record *r =
        run_shell("pwd; umask", ", cwd: /usr, umask: \"0027\", capture: always", "");
    ck_assert_str_eq(r->head, "/usr\n0027\n");
}
END_TEST

/* Against a plain copy, for every way in which pieces can fall on head and ring. */
START_TEST(capture_keeps_the_right_bytes_for_any_pieces)
{
    char text[64];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('0' + i);
    for (size_t piece = 1; piece <= 20; piece++) {
        for (size_t total = 0; total <= sizeof text; total++) {
            struct capture c;
            capture_init(&c, 5, 7);
            for (size_t at = 0; at < total; at += piece)
                capture_add(&c, text + at, total - at < piece ? total - at : piece);
            capture_finish(&c);
            size_t head = total < 5 ? total : 5;
            size_t tail = total - head < 7 ? total - head : 7;
            ck_assert_uint_eq(c.bytes_seen, total);
            ck_assert_uint_eq(c.head_len, head);
            ck_assert_uint_eq(c.tail_len, tail);
            ck_assert(head == 0 || memcmp(c.head, text, head) == 0);
            ck_assert(tail == 0 || memcmp(c.tail, text + total - tail, tail) == 0);
            capture_deinit(&c);
        }
    }
}
END_TEST

START_TEST(capture_of_nothing_only_counts)
{
    struct capture c;
    capture_init(&c, 0, 0);
    capture_add(&c, "abc", 3);
    capture_finish(&c);
    ck_assert_uint_eq(c.bytes_seen, 3);
    ck_assert_uint_eq(c.head_len + c.tail_len, 0);
    capture_deinit(&c);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("command_io");
    TCase *io = tcase_create("input and output");
    tcase_set_timeout(io, 60);
    tcase_add_checked_fixture(io, command_fixture_open, run_fixture_close);
    tcase_add_test(io, the_payload_is_standard_input_and_ends);
    tcase_add_test(io, without_a_payload_standard_input_is_empty);
    tcase_add_test(io, standard_input_can_not_be_written);
    tcase_add_test(io, sixteen_mib_of_input_arrive_whole);
    tcase_add_test(io, sixteen_mib_of_input_may_be_left_unread_or_closed);
    tcase_add_test(io, output_of_both_streams_is_kept_in_order);
    tcase_add_test(io, capture_follows_its_setting);
    tcase_add_test(io, only_head_and_tail_of_large_output_are_kept);
    tcase_add_test(io, a_hundred_megabytes_of_output_take_no_memory);
    tcase_add_test(io, output_that_is_in_the_pipe_at_the_exit_is_kept);
    tcase_add_test(io, a_survivor_that_holds_the_output_does_not_hold_the_job);
    tcase_add_test(io, closed_output_does_not_end_the_job);
    suite_add_tcase(s, io);
    TCase *env = tcase_create("environment and arguments");
    tcase_set_timeout(env, 60);
    tcase_add_checked_fixture(env, command_fixture_open, run_fixture_close);
    tcase_add_test(env, the_environment_is_exactly_what_is_documented);
    tcase_add_test(env, what_a_job_does_not_have_is_not_in_the_environment);
    tcase_add_test(env, variables_are_passed_on_only_by_name);
    tcase_add_test(env, the_daemons_connection_is_never_passed_on);
    tcase_add_test(env, path_of_the_configuration_wins);
    tcase_add_test(env, arguments_hold_id_attempt_and_task);
    tcase_add_test(env, a_shells_text_is_taken_as_it_stands);
    tcase_add_test(env, folder_and_umask_are_those_of_the_configuration);
    suite_add_tcase(s, env);
    TCase *capture = tcase_create("capture");
    tcase_add_test(capture, capture_keeps_the_right_bytes_for_any_pieces);
    tcase_add_test(capture, capture_of_nothing_only_counts);
    suite_add_tcase(s, capture);
    return s;
}
