/* config: files and tasks.d, handlers of the command line, and what depends on the whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "base/mem.h"
#include "ck_main.h"

#define ROWS(table) ((int)(sizeof(table) / sizeof(table)[0]))

static struct config *config;
static struct buf errors;
static char dir[] = "/tmp/obcfgXXXXXX";
static char path[256];

static void setup(void)
{
    config = config_new();
    buf_init(&errors, 1024 * 1024);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/outbox.yaml", dir);
}

static void write_file(const char *name, const char *contents, mode_t mode)
{
    char file[300];
    (void)snprintf(file, sizeof file, "%s/%s", dir, name);
    FILE *f = fopen(file, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_ge(fputs(contents, f), 0);
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(chmod(file, mode), 0);
}

static void make_folder(const char *name)
{
    char folder[300];
    (void)snprintf(folder, sizeof folder, "%s/%s", dir, name);
    ck_assert_int_eq(mkdir(folder, 0755), 0);
}

static void teardown(void)
{
    static const char *const names[] = {
        "tasks.d/a.yaml", "tasks.d/b.yaml", "tasks.d/.c.yaml", "tasks.d/d.yml", "tasks.d/README",
        "tasks.d",        "outbox.yaml",    "bin/tool",        "bin/plain",     "bin",
        "later/tool",     "later"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char file[300];
        (void)snprintf(file, sizeof file, "%s/%s", dir, names[i]);
        (void)remove(file); /* most do not exist */
    }
    ck_assert_int_eq(rmdir(dir), 0);
    config_unref(config);
    buf_deinit(&errors);
}

static const char *messages(void)
{
    return errors.data != NULL ? errors.data : "";
}

/* The messages with the test's folder left out. */
static const char *messages_without_dir(void)
{
    static char text[4096];
    size_t out = 0;
    const char *p = messages();
    while (*p != '\0' && out + 1 < sizeof text) {
        if (strncmp(p, dir, strlen(dir)) == 0)
            p += strlen(dir) + 1;
        else
            text[out++] = *p++;
    }
    text[out] = '\0';
    return text;
}

START_TEST(files_of_tasks_d_are_read_in_name_order)
{
    make_folder("tasks.d");
    write_file("outbox.yaml", "lease: 10s\ntasks: {m: {shell: x}}\n", 0644);
    write_file("tasks.d/b.yaml", "tasks: {b: {shell: x}}\n", 0644);
    write_file("tasks.d/a.yaml", "\ntasks:\n  a: {shell: x}\n", 0644);
    write_file("tasks.d/.c.yaml", "not: read\n", 0644);
    write_file("tasks.d/README", "not: [read\n", 0644);
    ck_assert_int_eq(config_load(config, path, &errors), 0);
    ck_assert_str_eq(messages(), "");
    ck_assert_uint_eq(config->lease_ms, 10000);
    ck_assert_uint_eq(config->tasks_count, 3);
    char source[300];
    (void)snprintf(source, sizeof source, "%s/tasks.d/a.yaml:3", dir);
    ck_assert_str_eq(config->tasks[0].source, source);
}
END_TEST

START_TEST(a_task_of_two_files_names_both)
{
    make_folder("tasks.d");
    write_file("outbox.yaml", "tasks:\n  m: {shell: x}\n", 0644);
    write_file("tasks.d/b.yaml", "tasks: {m: {shell: x}}\n", 0644);
    write_file("tasks.d/a.yaml", "lease: 10s\n", 0644);
    ck_assert_int_eq(config_load(config, path, &errors), OB_ECONFIG);
    ck_assert_str_eq(
        messages_without_dir(),
        "tasks.d/a.yaml:1: lease belongs in the main file; expected nothing but tasks in a "
        "file of tasks.d\n"
        "tasks.d/b.yaml:1: task 'm' is given twice, first in outbox.yaml:2\n");
}
END_TEST

START_TEST(a_yml_file_is_not_passed_over_in_silence)
{
    make_folder("tasks.d");
    write_file("outbox.yaml", "", 0644);
    write_file("tasks.d/d.yml", "tasks: {}\n", 0644);
    ck_assert_int_eq(config_load(config, path, &errors), OB_ECONFIG);
    ck_assert_str_eq(messages_without_dir(),
                     "tasks.d: d.yml is not read; expected a name that ends in .yaml\n");
}
END_TEST

START_TEST(a_missing_file_is_an_error)
{
    ck_assert_int_eq(config_load(config, path, &errors), OB_ECONFIG);
    ck_assert_str_eq(messages_without_dir(),
                     "outbox.yaml: cannot be read: No such file or directory\n");
}
END_TEST

START_TEST(a_folder_is_not_a_file)
{
    ck_assert_int_eq(config_load(config, dir, &errors), OB_ECONFIG);
    ck_assert_ptr_nonnull(strstr(messages(), "cannot be read: Is a directory"));
}
END_TEST

START_TEST(a_huge_file_is_refused)
{
    char *text = ob_xcalloc(1024 * 1024 + 2, 1);
    memset(text, '#', 1024 * 1024 + 1);
    write_file("outbox.yaml", text, 0644);
    ob_free(text);
    ck_assert_int_eq(config_load(config, path, &errors), OB_ECONFIG);
    ck_assert_str_eq(messages_without_dir(), "outbox.yaml: larger than 1048576 bytes\n");
}
END_TEST

/* Neither libyaml's time nor its stack: the time limit of the test is the judge. */
START_TEST(a_file_of_nothing_but_brackets_is_refused_at_once)
{
    static const char *const openings[] = {"[", "- ", "{a: "};
    enum { SIZE = 1000 * 1000 };
    size_t n = strlen(openings[_i]);
    char *text = ob_xcalloc(SIZE + 1, 1);
    for (size_t at = 0; at + n <= SIZE; at += n)
        memcpy(text + at, openings[_i], n);
    write_file("outbox.yaml", text, 0644);
    ob_free(text);
    ck_assert_int_eq(config_load(config, path, &errors), OB_ECONFIG);
    ck_assert_str_eq(messages_without_dir(),
                     "outbox.yaml:1: lists and maps nested deeper than 32\n");
}
END_TEST

/* --- the command line --- */

static const struct {
    enum handler_kind kind;
    const char *spec;
    const char *message;
} specs[] = {
    {HANDLER_SHELL, "a", "--shell: no '=' in 'a'; expected NAME=COMMAND\n"},
    {HANDLER_WEBHOOK, "a", "--webhook: no '=' in 'a'; expected NAME=URL\n"},
    {HANDLER_SHELL, "a=", "--shell: bad shell ''; expected a text that is not empty\n"},
    {HANDLER_EXEC, "a=bin/x",
     "--exec: bad exec 'bin/x'; expected an absolute path, or a bare name to be found in path\n"},
    {HANDLER_WEBHOOK, "a=h",
     "--webhook: bad webhook 'h'; expected a URL that begins with http:// or https://\n"},
    {HANDLER_WEBHOOK, "a=http://u:secret@h",
     "--webhook: bad webhook; expected a URL without user and password; use headers: "
     "{Authorization: ...}\n"},
    {HANDLER_DISCARD, "a b",
     "--discard: bad task name in 'a b'; expected 1 to 128 of A-Z a-z 0-9 . _ : -, beginning with "
     "a "
     "letter, a digit or _\n"},
    {HANDLER_SHELL, "=x",
     "--shell: bad task name in '=x'; expected 1 to 128 of A-Z a-z 0-9 . _ : -, beginning with a "
     "letter, a digit or _\n"},
    {HANDLER_WORKER, "a=bin/x",
     "--worker: bad worker 'bin/x'; expected an absolute path, or a bare name to be found in "
     "path\n"},
    {HANDLER_DISCARD, "taken", "--discard: task 'taken' is given twice, first in --shell\n"},
};

START_TEST(wrong_handlers_of_the_command_line_are_refused)
{
    ck_assert_int_eq(config_add_task(config, HANDLER_SHELL, "taken=x", &errors), 0);
    ck_assert_int_eq(config_add_task(config, specs[_i].kind, specs[_i].spec, &errors), OB_ECONFIG);
    ck_assert_str_eq(messages(), specs[_i].message);
    ck_assert_uint_eq(config->tasks_count, 1);
}
END_TEST

START_TEST(handlers_of_the_command_line_have_the_defaults)
{
    ck_assert_int_eq(config_add_task(config, HANDLER_SHELL, "s=cat > /tmp/x; a=b", &errors), 0);
    ck_assert_int_eq(config_add_task(config, HANDLER_EXEC, "e=/bin/true", &errors), 0);
    ck_assert_int_eq(config_add_task(config, HANDLER_WEBHOOK, "w=http://h/?a=b", &errors), 0);
    ck_assert_int_eq(config_add_task(config, HANDLER_DISCARD, "d", &errors), 0);
    ck_assert_int_eq(config_finish(config, &errors), 0);
    ck_assert_str_eq(messages(), "");
    const struct task_config *s = config_find_task(config, "s");
    ck_assert_str_eq(s->command.shell, "cat > /tmp/x; a=b");
    ck_assert_str_eq(s->source, "--shell");
    ck_assert_uint_eq(s->concurrency, 16);
    ck_assert_uint_eq(s->timeout_ms, 60000);
    const struct task_config *e = config_find_task(config, "e");
    ck_assert_uint_eq(e->command.argv.count, 1);
    ck_assert_str_eq(e->command.argv.items[0], "/bin/true");
    const struct task_config *w = config_find_task(config, "w");
    ck_assert_str_eq(w->webhook.url, "http://h/?a=b");
    ck_assert_uint_eq(w->timeout_ms, 30000);
    ck_assert_int_eq(config_find_task(config, "d")->kind, HANDLER_DISCARD);
}
END_TEST

/* --- the whole --- */

static int load(const char *text)
{
    int err = config_load_text(config, "f.yaml", text, strlen(text), &errors);
    return err != 0 ? err : config_finish(config, &errors);
}

START_TEST(concurrency_defaults_depend_on_the_handler)
{
    ck_assert_int_eq(load("concurrency: 3\ntasks: {s: {shell: x}, t: {shell: x, concurrency: 9}, "
                          "w: {webhook: \"http://h\"}, d: {discard: true}}"),
                     0);
    ck_assert_uint_eq(config_find_task(config, "s")->concurrency, 3);
    ck_assert_uint_eq(config_find_task(config, "t")->concurrency, 9);
    ck_assert_uint_eq(config_find_task(config, "w")->concurrency, 10);
    ck_assert_uint_eq(config_find_task(config, "d")->concurrency, 100);
}
END_TEST

START_TEST(options_put_into_the_struct_follow_the_rules_of_the_file)
{
    config->name = ob_xstrdup("a/b");
    config->lock_dir = ob_xstrdup("here");
    config->lease_ms = 1000;
    ck_assert_int_eq(config_finish(config, &errors), OB_EUSAGE);
    ck_assert_str_eq(messages(), "command line: bad name 'a/b'; expected 1 to 64 letters, digits, "
                                 "'.', '_' and '-', beginning "
                                 "with a letter, a digit or '_'\n"
                                 "command line: bad lock_dir 'here'; expected an absolute path\n"
                                 "command line: lease 1s is out of range; expected 5s to 1h\n");
}
END_TEST

/* The first folder that has an executable file of that name: not the plain file, not the folder. */
START_TEST(a_bare_program_is_found_in_path)
{
    char text[600];
    char wanted[300];
    make_folder("bin");
    make_folder("later");
    write_file("bin/plain", "", 0644);
    write_file("bin/tool", "#!/bin/sh\n", 0755);
    write_file("later/tool", "#!/bin/sh\n", 0755);
    (void)snprintf(text, sizeof text,
                   "tasks: {a: {exec: [tool, x], path: \"/nowhere:%s/bin:%s/later\"}}", dir, dir);
    (void)snprintf(wanted, sizeof wanted, "%s/bin/tool", dir);
    ck_assert_int_eq(load(text), 0);
    const struct strings *argv = &config_find_task(config, "a")->command.argv;
    ck_assert_str_eq(argv->items[0], wanted);
    ck_assert_str_eq(argv->items[1], "x");
    ck_assert_ptr_null(argv->items[2]);
}
END_TEST

START_TEST(a_program_that_path_does_not_have_is_an_error)
{
    char text[600];
    make_folder("bin");
    write_file("bin/plain", "", 0644);
    (void)snprintf(text, sizeof text,
                   "tasks:\n  a: {exec: [plain], path: %s/bin}\n  b: {exec: [bin], path: %s}", dir,
                   dir);
    ck_assert_int_eq(load(text), OB_ECONFIG);
    (void)snprintf(text, sizeof text,
                   "f.yaml:2: task 'a': no program 'plain' in %s/bin; expected an absolute path, "
                   "or a folder in path\n"
                   "f.yaml:3: task 'b': no program 'bin' in %s; expected an absolute path, or a "
                   "folder in path\n",
                   dir, dir);
    ck_assert_str_eq(messages(), text);
}
END_TEST

/* It may be installed later: running it says so then. */
START_TEST(an_absolute_program_may_be_missing)
{
    ck_assert_int_eq(load("tasks: {a: {exec: [/nowhere/tool]}}"), 0);
    ck_assert_str_eq(config_find_task(config, "a")->command.argv.items[0], "/nowhere/tool");
}
END_TEST

START_TEST(without_a_path_the_daemons_is_searched_but_not_relative_folders)
{
    make_folder("bin");
    write_file("bin/tool", "#!/bin/sh\n", 0755);
    ck_assert_int_eq(chdir(dir), 0);
    ck_assert_int_eq(setenv("PATH", "bin::.", 1), 0);
    ck_assert_int_eq(load("tasks: {a: {exec: [tool]}}"), OB_ECONFIG);
    ck_assert_int_eq(setenv("PATH", "/usr/bin:/bin", 1), 0);
    ck_assert_int_eq(load("tasks: {b: {exec: [sh], path: /bin}}"),
                     OB_ECONFIG); /* a is still wrong */
    ck_assert_str_eq(config_find_task(config, "b")->command.argv.items[0], "/bin/sh");
    ck_assert_int_eq(chdir("/"), 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *suite = suite_create("config files");
    TCase *files = tcase_create("files");
    tcase_add_checked_fixture(files, setup, teardown);
    tcase_add_test(files, files_of_tasks_d_are_read_in_name_order);
    tcase_add_test(files, a_task_of_two_files_names_both);
    tcase_add_test(files, a_yml_file_is_not_passed_over_in_silence);
    tcase_add_test(files, a_missing_file_is_an_error);
    tcase_add_test(files, a_folder_is_not_a_file);
    tcase_add_test(files, a_huge_file_is_refused);
    tcase_add_loop_test(files, a_file_of_nothing_but_brackets_is_refused_at_once, 0, 3);
    suite_add_tcase(suite, files);
    TCase *line = tcase_create("command line");
    tcase_add_checked_fixture(line, setup, teardown);
    tcase_add_loop_test(line, wrong_handlers_of_the_command_line_are_refused, 0, ROWS(specs));
    tcase_add_test(line, handlers_of_the_command_line_have_the_defaults);
    suite_add_tcase(suite, line);
    TCase *whole = tcase_create("the whole");
    tcase_add_checked_fixture(whole, setup, teardown);
    tcase_add_test(whole, concurrency_defaults_depend_on_the_handler);
    tcase_add_test(whole, options_put_into_the_struct_follow_the_rules_of_the_file);
    tcase_add_test(whole, a_bare_program_is_found_in_path);
    tcase_add_test(whole, a_program_that_path_does_not_have_is_an_error);
    tcase_add_test(whole, an_absolute_program_may_be_missing);
    tcase_add_test(whole, without_a_path_the_daemons_is_searched_but_not_relative_folders);
    suite_add_tcase(suite, whole);
    return suite;
}
