/* config: what is accepted, and with which values; what is refused, word by word. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/config.h"
#include "ck_main.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static struct config *config;
static struct buf errors;

static void setup(void)
{
    config = config_new();
    buf_init(&errors, 1024 * 1024);
}

static void teardown(void)
{
    config_unref(config);
    buf_deinit(&errors);
}

static const char *messages(void)
{
    return errors.data != NULL ? errors.data : "";
}

/* Loads a copy that ends at an unreadable page. */
static int load(const char *text)
{
    size_t len = strlen(text);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (len + page - 1) / page * page;
    char *area =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(area, MAP_FAILED);
    ck_assert_int_eq(mprotect(area + room, page, PROT_NONE), 0);
    memcpy(area + room - len, text, len);
    int err = config_load_text(config, "f.yaml", area + room - len, len, &errors);
    ck_assert_int_eq(munmap(area, room + page), 0);
    return err;
}

static const struct task_config *task(const char *name)
{
    const struct task_config *t = config_find_task(config, name);
    ck_assert_ptr_nonnull(t);
    return t;
}

START_TEST(defaults_are_those_of_the_manual)
{
    ck_assert_int_eq(
        load("tasks:\n  s: {shell: x}\n  w: {webhook: \"http://h\"}\n  d: {discard: true}\n"
             "  r: {worker: [/srv/thumb]}\n"),
        0);
    ck_assert_int_eq(config_finish(config, &errors), 0);
    ck_assert_str_eq(messages(), "");
    ck_assert_ptr_null(config->database);
    ck_assert_ptr_null(config->name);
    ck_assert_ptr_null(config->lock_dir);
    ck_assert_uint_eq(config->concurrency, 16);
    ck_assert_uint_eq(config->lease_ms, 60000);
    ck_assert_uint_eq(config->stop_timeout_ms, 25000);
    ck_assert_uint_eq(config->poll_interval_ms, 1000);
    ck_assert_uint_eq(config->sweep_interval_ms, 60000);
    ck_assert_int_eq(config->log_level, LOG_INFO);
    ck_assert_int_eq(config->log_format, LOG_LOGFMT);
    const struct task_config *s = task("s");
    ck_assert_uint_eq(s->concurrency, 16);
    ck_assert_uint_eq(s->timeout_ms, 60000);
    ck_assert_uint_eq(s->max_attempts, 20);
    ck_assert_uint_eq(s->max_lost, 5);
    ck_assert(!s->payload_raw);
    ck_assert_uint_eq(s->backoff.base_ms, 5000);
    ck_assert_uint_eq(s->backoff.max_ms, 3600000);
    ck_assert_uint_eq(s->backoff.jitter_permille, 200);
    ck_assert_ptr_null(s->backoff.schedule_ms);
    ck_assert_int_eq(s->command.umask, -1);
    ck_assert_uint_eq(s->command.env_pass.count, 4);
    ck_assert_str_eq(s->command.env_pass.items[0], "PATH");
    ck_assert_str_eq(s->command.env_pass.items[3], "HOME");
    ck_assert_ptr_null(s->command.env_pass.items[4]);
    ck_assert_uint_eq(s->command.capture_head_bytes, 4096);
    ck_assert_uint_eq(s->command.capture_tail_bytes, 12288);
    for (unsigned i = 0; i < 256; i++)
        ck_assert_int_eq(s->command.dead_exit[i / 8] >> (i % 8) & 1, i == 65 || i == 100);
    const struct task_config *w = task("w");
    ck_assert_uint_eq(w->concurrency, 10);
    ck_assert_uint_eq(w->timeout_ms, 30000);
    ck_assert_str_eq(w->webhook.method, "POST");
    ck_assert_uint_eq(w->webhook.connect_timeout_ms, 5000);
    ck_assert(w->webhook.tls_verify);
    ck_assert(!w->webhook.idempotency_key);
    ck_assert_uint_eq(w->webhook.response_capture_bytes, 8192);
    ck_assert_uint_eq(w->webhook.response_drain_bytes, 65536);
    ck_assert_uint_eq(w->webhook.retry_after_max_ms, 86400000);
    ck_assert_uint_eq(task("d")->concurrency, 100);
    const struct task_config *r = task("r");
    ck_assert_uint_eq(r->worker.processes, (unsigned)sysconf(_SC_NPROCESSORS_ONLN));
    ck_assert_uint_eq(r->concurrency, r->worker.processes);
    ck_assert_uint_eq(r->worker.startup, 1);
    ck_assert_uint_eq(r->worker.idle_timeout_ms, 60000);
    ck_assert_uint_eq(r->worker.max_jobs, 1000);
    ck_assert_uint_eq(r->worker.max_lifetime_ms, 0);
    ck_assert_uint_eq(r->worker.window, 1);
    ck_assert_uint_eq(r->worker.start_timeout_ms, 10000);
    ck_assert_uint_eq(r->worker.restart_backoff_ms, 1000);
    ck_assert_uint_eq(r->timeout_ms, 60000);
}
END_TEST

START_TEST(every_key_sets_its_value)
{
    int err = load("database: host=/tmp dbname=shop\n"
                   "name: web-1\n"
                   "lock_dir: /run/x\n"
                   "concurrency: 3\n"
                   "lease: 5s\n"
                   "stop_timeout: 0\n"
                   "poll_interval: 250ms\n"
                   "log_level: debug\n"
                   "log_format: json\n"
                   "tasks:\n"
                   "  c:\n"
                   "    exec: [/bin/echo, \"{id}-{attempt}-{task}\", \"{ID} {} {x\"]\n"
                   "    concurrency: 7\n"
                   "    timeout: 2h\n"
                   "    max_attempts: 32767\n"
                   "    max_age: 36h\n"
                   "    max_lost: 1\n"
                   "    backoff_jitter: 0.05\n"
                   "    retry_schedule: [1s, 0, 7d]\n"
                   "    payload: raw\n"
                   "    cwd: /srv\n"
                   "    umask: 0027\n"
                   "    env: {A: \"1 2\", B_2: \"\", PGHOST: db}\n"
                   "    env_pass: [LANG]\n"
                   "    path: /opt/bin:/bin\n"
                   "    dead_exit: [1, 255]\n"
                   "    capture: always\n"
                   "    capture_head: 1KiB\n"
                   "    capture_tail: 0\n"
                   "  r:\n"
                   "    worker: [/srv/thumb, --fast]\n"
                   "    processes: 4\n"
                   "    startup: 0\n"
                   "    idle_timeout: 0\n"
                   "    max_jobs: 0\n"
                   "    max_lifetime: 1h\n"
                   "    window: 16\n"
                   "    start_timeout: 1m\n"
                   "    restart_backoff: 250ms\n"
                   "    umask: 0077\n"
                   "  w:\n"
                   "    webhook: https://[::1]:8443/hook?a=b\n"
                   "    backoff: 100ms\n"
                   "    backoff_max: 5m\n"
                   "    method: PUT\n"
                   "    headers: {X-A: \"b: c\", Authorization: Bearer x}\n"
                   "    content_type: text/plain\n"
                   "    connect_timeout: 1s\n"
                   "    idempotency_key: yes\n"
                   "    ca_file: /etc/ca.pem\n"
                   "    tls_verify: false\n"
                   "    proxy: http://p:3128\n"
                   "    response_capture: 0\n"
                   "    response_drain: 1MiB\n"
                   "    retry_after_max: 1h\n");
    ck_assert_str_eq(messages(), "");
    ck_assert_int_eq(err, 0);
    ck_assert_str_eq(config->database, "host=/tmp dbname=shop");
    ck_assert_str_eq(config->name, "web-1");
    ck_assert_str_eq(config->lock_dir, "/run/x");
    ck_assert_uint_eq(config->concurrency, 3);
    ck_assert_uint_eq(config->lease_ms, 5000);
    ck_assert_uint_eq(config->stop_timeout_ms, 0);
    ck_assert_uint_eq(config->poll_interval_ms, 250);
    ck_assert_int_eq(config->log_level, LOG_DEBUG);
    ck_assert_int_eq(config->log_format, LOG_JSON);
    const struct task_config *r = task("r");
    ck_assert_int_eq(r->kind, HANDLER_WORKER);
    ck_assert_str_eq(r->command.argv.items[1], "--fast");
    ck_assert_uint_eq(r->worker.processes, 4);
    ck_assert_uint_eq(r->worker.startup, 0);
    ck_assert_uint_eq(r->worker.idle_timeout_ms, 0);
    ck_assert_uint_eq(r->worker.max_jobs, 0);
    ck_assert_uint_eq(r->worker.max_lifetime_ms, 3600000);
    ck_assert_uint_eq(r->worker.window, 16);
    ck_assert_uint_eq(r->worker.start_timeout_ms, 60000);
    ck_assert_uint_eq(r->worker.restart_backoff_ms, 250);
    ck_assert_int_eq(r->command.umask, 077);
    const struct task_config *c = task("c");
    ck_assert_int_eq(c->kind, HANDLER_EXEC);
    ck_assert_str_eq(c->source, "f.yaml:11");
    ck_assert_uint_eq(c->command.argv.count, 3);
    ck_assert_str_eq(c->command.argv.items[2], "{ID} {} {x");
    ck_assert_ptr_null(c->command.argv.items[3]);
    ck_assert_uint_eq(c->concurrency, 7);
    ck_assert_uint_eq(c->timeout_ms, 7200000);
    ck_assert_uint_eq(c->max_attempts, 32767);
    ck_assert_uint_eq(c->max_age_ms, 36 * 3600 * 1000);
    ck_assert_uint_eq(c->max_lost, 1);
    ck_assert_uint_eq(c->backoff.jitter_permille, 50);
    ck_assert_uint_eq(c->backoff.schedule_count, 3);
    ck_assert_uint_eq(c->backoff.schedule_ms[0], 1000);
    ck_assert_uint_eq(c->backoff.schedule_ms[2], 604800000);
    ck_assert(c->payload_raw);
    ck_assert_str_eq(c->command.cwd, "/srv");
    ck_assert_int_eq(c->command.umask, 027);
    ck_assert_uint_eq(c->command.env.count, 3);
    ck_assert_str_eq(c->command.env.items[0], "A=1 2");
    ck_assert_str_eq(c->command.env.items[1], "B_2=");
    ck_assert_ptr_null(c->command.env.items[3]);
    ck_assert_uint_eq(c->command.env_pass.count, 1);
    ck_assert_str_eq(c->command.path, "/opt/bin:/bin");
    ck_assert_uint_eq(c->command.dead_exit[0], 2);
    ck_assert_uint_eq(c->command.dead_exit[65 / 8], 0);
    ck_assert_uint_eq(c->command.dead_exit[31], 128);
    ck_assert_int_eq(c->command.capture, CAPTURE_ALWAYS);
    ck_assert_uint_eq(c->command.capture_head_bytes, 1024);
    ck_assert_uint_eq(c->command.capture_tail_bytes, 0);
    const struct task_config *w = task("w");
    ck_assert_int_eq(w->kind, HANDLER_WEBHOOK);
    ck_assert_str_eq(w->webhook.url, "https://[::1]:8443/hook?a=b");
    ck_assert_uint_eq(w->backoff.base_ms, 100);
    ck_assert_uint_eq(w->backoff.max_ms, 300000);
    ck_assert_str_eq(w->webhook.method, "PUT");
    ck_assert_str_eq(w->webhook.headers.items[0], "X-A: b: c");
    ck_assert_str_eq(w->webhook.headers.items[1], "Authorization: Bearer x");
    ck_assert_str_eq(w->webhook.content_type, "text/plain");
    ck_assert_uint_eq(w->webhook.connect_timeout_ms, 1000);
    ck_assert(w->webhook.idempotency_key);
    ck_assert_str_eq(w->webhook.ca_file, "/etc/ca.pem");
    ck_assert(!w->webhook.tls_verify);
    ck_assert_str_eq(w->webhook.proxy, "http://p:3128");
    ck_assert_uint_eq(w->webhook.response_capture_bytes, 0);
    ck_assert_uint_eq(w->webhook.response_drain_bytes, 1048576);
    ck_assert_uint_eq(w->webhook.retry_after_max_ms, 3600000);
}
END_TEST

/* Each is a whole file; the message is the whole of what is said. */
static const struct {
    const char *text;
    const char *message;
} wrong[] = {
    /* the file */
    {"a: [}", "f.yaml:1: not YAML: while parsing a flow node, did not find expected node content"},
    {"\n\tx: 1",
     "f.yaml:2: not YAML: while scanning for the next token, found character that cannot start any "
     "token"},
    {"a: 1\nb: \xff", "f.yaml:2: not YAML: invalid leading UTF-8 octet"},
    {"[1]", "f.yaml:1: not a map; expected a map of keys such as database and tasks"},
    {"lease: 5s\n---\nlease: 6s", "f.yaml:3: a second YAML document; expected one document a file"},
    {"{[a]: b}", "f.yaml:1: a key is a list; expected a name"},
    /* the top level */
    {"leese: 5s", "f.yaml:1: unknown key 'leese' (did you mean 'lease'?)"},
    {"Database: x", "f.yaml:1: unknown key 'Database' (did you mean 'database'?)"},
    {"nonsense: 5s", "f.yaml:1: unknown key 'nonsense'"},
    {"timeout: 5s", "f.yaml:1: unknown key 'timeout', which belongs to a task"},
    {"lease: 5s\n\nlease: 6s", "f.yaml:3: lease is given twice, first in line 1"},
    {"lease:", "f.yaml:1: lease has no value"},
    {"lease: [5s]", "f.yaml:1: lease is a list; expected a duration such as 250ms, 30s, 5m, 2h or "
                    "7d, from 5s to 1h"},
    {"lease: 5", "f.yaml:1: bad lease '5'; expected a duration such as 250ms, 30s, 5m, 2h or 7d, "
                 "from 5s to 1h"},
    {"lease: 4s", "f.yaml:1: lease '4s' is out of range; expected a duration such as 250ms, 30s, "
                  "5m, 2h or 7d, from "
                  "5s to 1h"},
    {"lease: 61m",
     "f.yaml:1: lease '61m' is out of range; expected a duration such as 250ms, 30s, 5m, 2h or 7d, "
     "from 5s to 1h"},
    {"concurrency: 0",
     "f.yaml:1: concurrency '0' is out of range; expected a whole number, from 1 to 10000"},
    {"concurrency: -1", "f.yaml:1: bad concurrency '-1'; expected a whole number, from 1 to 10000"},
    {"log_level: loud", "f.yaml:1: bad log_level 'loud'; expected one of error, warn, info, debug"},
    {"name: a/b", "f.yaml:1: bad name 'a/b'; expected 1 to 64 letters, digits, '.', '_' and '-', "
                  "beginning with a "
                  "letter, a digit or '_'"},
    {"lock_dir: run", "f.yaml:1: bad lock_dir 'run'; expected an absolute path"},
    {"database: secretpassword",
     "f.yaml:1: bad database; expected a connection string such as postgresql:///shop or "
     "'host=/run/postgresql dbname=shop'"},
    {"database: \"a=\\0\"", "f.yaml:1: database contains a NUL byte; expected a text"},
    {"name: !secret x", "f.yaml:1: name has a YAML tag; expected a text"},
    /* tasks and handlers */
    {"tasks: 7", "f.yaml:1: tasks is not a map; expected a map of task names"},
    {"tasks: {a b: {discard: true}}",
     "f.yaml:1: bad task name 'a b'; expected 1 to 128 of A-Z a-z 0-9 . _ : -, "
     "beginning with a letter, a digit or _"},
    {"tasks:\n  a: x",
     "f.yaml:2: task 'a' is not a map; expected a map such as {shell: /usr/local/bin/send-mail}"},
    {"tasks:\n  a: {shell: x}\n  a: {shell: y}",
     "f.yaml:3: task 'a' is given twice, first in f.yaml:2"},
    {"tasks:\n  a: {timeout: 5s}",
     "f.yaml:2: task 'a' has no handler; expected exactly one of shell, exec, worker, "
     "webhook, discard"},
    {"tasks:\n  a: {shell: x, webhook: \"http://h\"}",
     "f.yaml:2: task 'a' has the handlers shell and webhook; expected exactly one of shell, exec, "
     "worker, webhook, "
     "discard"},
    {"tasks:\n  a:\n    shell: x\n    timout: 5s",
     "f.yaml:4: unknown key 'timout' (did you mean 'timeout'?)"},
    {"tasks:\n  a: {shell: x, lease: 5s}",
     "f.yaml:2: unknown key 'lease', which does not belong to a task but to the top level"},
    {"tasks:\n  a:\n    shell: x\n    umask: 0\n    umask: 1",
     "f.yaml:5: umask is given twice, first in line 4"},
    {"tasks: {a: {worker: [/bin/x], processes: 2, startup: 3}}",
     "f.yaml:1: startup 3 is more than processes 2"},
    {"tasks: {a: {worker: [/bin/x, \"--job={id}\"]}}",
     "f.yaml:1: {id} in a worker, which is one process for many jobs; expected arguments without "
     "placeholders"},
    {"tasks: {a: {worker: [/bin/x], window: 0}}",
     "f.yaml:1: window '0' is out of range; expected a whole number, from 1 to 1000"},
    {"tasks: {a: {worker: [/bin/x], capture: never}}",
     "f.yaml:1: capture is for shell and exec, this task is worker"},
    {"tasks: {a: {shell: x, headers: {A: b}}}",
     "f.yaml:1: headers is for webhook, this task is shell"},
    {"tasks: {a: {shell: x, secret_file: /x}}",
     "f.yaml:1: secret_file is for webhook, this task is shell"},
    {"tasks: {a: {webhook: \"http://h\", capture: never}}",
     "f.yaml:1: capture is for shell and exec, this task is webhook"},
    {"tasks: {a: {discard: true, cwd: /}}",
     "f.yaml:1: cwd is for shell, exec and worker, this task is discard"},
    {"tasks: {a: {shell: x, processes: 4}}",
     "f.yaml:1: processes is for worker, this task is shell"},
    {"tasks: {a: {discard: false}}", "f.yaml:1: bad discard; expected true"},
    /* values of a task */
    {"tasks: {a: {shell: \"\"}}", "f.yaml:1: bad shell ''; expected a text that is not empty"},
    {"tasks: {a: {exec: /bin/x}}", "f.yaml:1: exec is not a list; expected a list of program and "
                                   "arguments such as [/bin/cp, -p, a, b]"},
    {"tasks: {a: {exec: []}}", "f.yaml:1: exec is empty; expected a list of program and arguments "
                               "such as [/bin/cp, -p, a, b]"},
    {"tasks: {a: {exec: [bin/x]}}", "f.yaml:1: bad item 'bin/x' in exec; expected an absolute "
                                    "path, or a bare name to be found in path"},
    {"tasks: {a: {exec: [\"/bin/{id}\"]}}", "f.yaml:1: bad item '/bin/{id}' in exec; expected a "
                                            "program without placeholders: they are for arguments"},
    {"tasks: {a: {exec: [/bin/x, \"{id} {payload}\"]}}",
     "f.yaml:1: bad item '{id} {payload}' in exec; expected no placeholder but {id}, {attempt} and "
     "{task}"},
    {"tasks: {a: {shell: x, timeout: 0}}",
     "f.yaml:1: timeout '0' is out of range; expected a duration such as 250ms, 30s, 5m, 2h or 7d, "
     "from 1ms to 365d"},
    {"tasks: {a: {shell: x, max_attempts: 32768}}",
     "f.yaml:1: max_attempts '32768' is out of range; expected a whole number, from 1 to 32767"},
    {"tasks: {a: {shell: x, backoff_jitter: 1.1}}",
     "f.yaml:1: bad backoff_jitter '1.1'; expected a fraction from 0 to 1, such as 0.2"},
    {"tasks: {a: {shell: x, backoff: 2h}}", "f.yaml:1: backoff 2h is longer than backoff_max 1h"},
    {"tasks:\n  a:\n    shell: x\n    retry_schedule: [1s]\n    backoff: 1s",
     "f.yaml:5: backoff has no effect beside retry_schedule (line 4)"},
    {"tasks: {a: {shell: x, retry_schedule: []}}",
     "f.yaml:1: retry_schedule is empty; expected a list of delays such as [10s, 1m, 10m]"},
    {"tasks: {a: {shell: x, payload: xml}}",
     "f.yaml:1: bad payload 'xml'; expected one of json, raw"},
    {"tasks: {a: {shell: x, umask: 0888}}",
     "f.yaml:1: bad umask '0888'; expected an octal mask from 0000 to 0777, such as 0027"},
    {"tasks: {a: {shell: x, env: {A: 1, A: 2}}}", "f.yaml:1: 'A' is given twice"},
    {"tasks: {a: {shell: x, env: {A: }}}",
     "f.yaml:1: A has no value; expected a text, in quotes if it is empty"},
    {"tasks: {a: {shell: x, env: {OUTBOX_JOB_ID: 1}}}",
     "f.yaml:1: bad name 'OUTBOX_JOB_ID' in env; expected another name: those beginning with "
     "OUTBOX_ are set by the "
     "dispatcher"},
    {"tasks: {a: {shell: x, env: {\"A=B\": 1}}}",
     "f.yaml:1: bad name 'A=B' in env; expected a variable name: letters, digits and _, not "
     "beginning with a digit"},
    {"tasks: {a: {shell: x, env_pass: [PGPASSWORD]}}",
     "f.yaml:1: bad item 'PGPASSWORD' in env_pass; expected no PG* variable: they are the "
     "dispatcher's own; set what "
     "the command needs with env"},
    {"tasks: {a: {shell: x, path: \"/bin:.\"}}",
     "f.yaml:1: bad path '/bin:.'; expected absolute folders with ':' between them"},
    {"tasks: {a: {shell: x, dead_exit: [0]}}",
     "f.yaml:1: bad item '0' in dead_exit; expected a list of exit codes from 1 to 255 such as "
     "[65, 100]"},
    {"tasks: {a: {shell: x, capture_head: 2MiB}}",
     "f.yaml:1: capture_head '2MiB' is out of range; expected a size such as 512, 64KiB or 1MiB, "
     "from 0 to 1MiB"},
    /* webhooks */
    {"tasks: {a: {webhook: \"ftp://h\"}}",
     "f.yaml:1: bad webhook 'ftp://h'; expected a URL that begins with http:// or https://"},
    {"tasks: {a: {webhook: \"http://u:p@h/\"}}",
     "f.yaml:1: bad webhook; expected a URL without user and password; use headers: "
     "{Authorization: ...}"},
    {"tasks: {a: {webhook: \"http://h/#x\"}}",
     "f.yaml:1: bad webhook 'http://h/#x'; expected a URL without a fragment (#...), which would "
     "not be sent"},
    {"tasks: {a: {webhook: \"http://h:0/\"}}", "f.yaml:1: bad webhook 'http://h:0/'; expected a "
                                               "host, and a port from 1 to 65535 if there is one"},
    {"tasks: {a: {webhook: \"http://h/a b\"}}",
     "f.yaml:1: bad webhook 'http://h/a b'; expected a URL with other characters percent-encoded"},
    {"tasks: {a: {webhook: \"http://h\", method: GET}}",
     "f.yaml:1: bad method 'GET'; expected POST, PUT, PATCH or DELETE"},
    {"tasks: {a: {webhook: \"http://h\", headers: {hOsT: x}}}",
     "f.yaml:1: bad name 'hOsT' in headers; expected another header: this one is set by the "
     "dispatcher"},
    {"tasks: {a: {webhook: \"http://h\", headers: {Webhook-Id: x}}}",
     "f.yaml:1: bad name 'Webhook-Id' in headers; expected another header: webhook-* are set by "
     "the dispatcher"},
    {"tasks: {a: {webhook: \"http://h\", headers: {content-type: x}}}",
     "f.yaml:1: bad name 'content-type' in headers; expected the key content_type instead"},
    {"tasks: {a: {webhook: \"http://h\", headers: {\"A b\": x}}}",
     "f.yaml:1: bad name 'A b' in headers; expected a header name: letters, digits and -"},
    {"tasks: {a: {webhook: \"http://h\", headers: {A: \"x\\r\\nEvil: y\"}}}",
     "f.yaml:1: bad value of 'A' in headers; expected a value without line breaks and other "
     "control characters"},
    {"tasks: {a: {webhook: \"http://h\", headers: {A: x, a: y}}}", "f.yaml:1: 'a' is given twice"},
    {"tasks: {a: {webhook: \"http://h\", tls_verify: maybe}}",
     "f.yaml:1: bad tls_verify 'maybe'; expected one of false, true, no, yes"},
    {"tasks: {a: {webhook: \"http://h\", proxy: h:1}}",
     "f.yaml:1: bad proxy; expected a proxy such as http://proxy.example.com:3128 or "
     "socks5h://127.0.0.1:1080"},
};

START_TEST(wrong_values_are_refused_with_place_and_expectation)
{
    char wanted[512];
    ck_assert_int_eq(load(wrong[_i].text), OB_ECONFIG);
    (void)snprintf(wanted, sizeof wanted, "%s\n", wrong[_i].message);
    ck_assert_str_eq(messages(), wanted);
}
END_TEST

START_TEST(all_errors_of_a_file_are_told_at_once)
{
    ck_assert_int_eq(load("lease: 1\nbad: 2\ntasks:\n  a: {shell: x, timeout: z}\n  b: {}\n"),
                     OB_ECONFIG);
    ck_assert_ptr_nonnull(strstr(messages(), "f.yaml:1: bad lease"));
    ck_assert_ptr_nonnull(strstr(messages(), "\nf.yaml:2: unknown key"));
    ck_assert_ptr_nonnull(strstr(messages(), "\nf.yaml:4: bad timeout"));
    ck_assert_ptr_nonnull(strstr(messages(), "\nf.yaml:5: task 'b' has no handler"));
}
END_TEST

START_TEST(a_flood_of_errors_is_cut_and_counted)
{
    struct buf text;
    buf_init(&text, 1024 * 1024);
    for (int i = 0; i < 1000; i++)
        buf_printf(&text, "wrong%d: 1\n", i);
    ck_assert_int_eq(load(text.data), OB_ECONFIG);
    ck_assert_ptr_nonnull(strstr(messages(), "\nf.yaml: and 950 more errors\n"));
    buf_deinit(&text);
}
END_TEST

/* Terminals obey control characters: messages hold none, whatever the file has. */
START_TEST(messages_hold_no_control_characters)
{
    ck_assert_int_eq(load("\"\\e[31m\\n\\x9b\": 1\ntasks: {\"\\n\": {}}\nname: \"\\r\\x7f\"\n"),
                     OB_ECONFIG);
    ck_assert_ptr_nonnull(strstr(messages(), "unknown key '?[31m"));
    for (const char *p = messages(); *p != '\0'; p++)
        ck_assert(*p == '\n' || (*p >= 0x20 && *p < 0x7f));
}
END_TEST

/* 200 aliases of one long list would be 200 copies: the whole is bounded. */
START_TEST(aliases_cannot_multiply_memory)
{
    struct buf text;
    buf_init(&text, 1024 * 1024);
    buf_puts(&text, "tasks:\n  t: {shell: x, env: &e {A: ");
    for (int i = 0; i < 60000; i++)
        buf_putc(&text, 'x');
    buf_puts(&text, "}}\n");
    for (int i = 0; i < 200; i++)
        buf_printf(&text, "  t%d: {shell: x, env: *e}\n", i);
    ck_assert_int_eq(load(text.data), OB_ECONFIG);
    ck_assert_str_eq(messages(), "f.yaml: too large: more than 8388608 bytes of values\n");
    buf_deinit(&text);
}
END_TEST

START_TEST(tasks_are_found_by_name)
{
    ck_assert_int_eq(load("tasks: {b: {shell: x}, c: {shell: x}, a: {shell: x}, a.b: {shell: x}}"),
                     0);
    ck_assert_uint_eq(config->tasks_count, 4);
    ck_assert_str_eq(config->tasks[0].name, "a");
    ck_assert_str_eq(config->tasks[3].name, "c");
    ck_assert_str_eq(task("a.b")->name, "a.b");
    ck_assert_ptr_null(config_find_task(config, "d"));
    ck_assert_ptr_null(config_find_task(config, ""));
}
END_TEST

START_TEST(empty_files_and_empty_tasks_are_fine)
{
    ck_assert_int_eq(load(""), 0);
    ck_assert_int_eq(load("# nothing\n"), 0);
    ck_assert_int_eq(load("tasks:\n#  a: {shell: x}\n"), 0);
    ck_assert_int_eq(config_finish(config, &errors), 0);
    ck_assert_str_eq(messages(), "");
    ck_assert_ptr_null(config_find_task(config, "a"));
}
END_TEST

START_TEST(a_configuration_lives_until_its_last_reference)
{
    struct config *c = config_new();
    ck_assert_ptr_eq(config_ref(c), c);
    config_unref(c);
    ck_assert_uint_eq(c->refs, 1);
    config_unref(c);
    config_unref(NULL);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("config");
    TCase *good = tcase_create("accepted");
    tcase_add_checked_fixture(good, setup, teardown);
    tcase_add_test(good, defaults_are_those_of_the_manual);
    tcase_add_test(good, every_key_sets_its_value);
    tcase_add_test(good, tasks_are_found_by_name);
    tcase_add_test(good, empty_files_and_empty_tasks_are_fine);
    tcase_add_test(good, a_configuration_lives_until_its_last_reference);
    suite_add_tcase(suite, good);
    TCase *bad = tcase_create("refused");
    tcase_add_checked_fixture(bad, setup, teardown);
    tcase_add_loop_test(bad, wrong_values_are_refused_with_place_and_expectation, 0, ROWS(wrong));
    tcase_add_test(bad, all_errors_of_a_file_are_told_at_once);
    tcase_add_test(bad, a_flood_of_errors_is_cut_and_counted);
    tcase_add_test(bad, messages_hold_no_control_characters);
    tcase_add_test(bad, aliases_cannot_multiply_memory);
    suite_add_tcase(suite, bad);
    return suite;
}
