/* check_name_lock.c - the lock file of a name: exclusive, the same token for ever, and not to be
 * had by way of what others put into a shared folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ck_main.h"
#include "core/name_lock.h"
#include "daemon.h"

static char dir[256];
static struct name_lock lock;

static void make_dir(void)
{
    (void)snprintf(dir, sizeof dir, "%s/locks", test_dir());
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    name_lock_init(&lock);
}

static void let_go(void)
{
    name_lock_close(&lock);
}

static const char *in_dir(const char *file)
{
    static char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    return path;
}

START_TEST(name_is_taken_once_per_database)
{
    struct name_lock same;
    struct name_lock other;
    name_lock_init(&same);
    name_lock_init(&other);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db1", "shop"), 0);
    ck_assert_int_eq(name_lock_take(&same, dir, "db1", "shop"), OB_EBUSY);
    ck_assert_int_eq(same.fd, -1);
    ck_assert_str_eq(same.path, lock.path);
    ck_assert_int_eq(name_lock_take(&other, dir, "db2", "shop"), 0);
    name_lock_close(&lock);
    ck_assert_int_eq(name_lock_take(&same, dir, "db1", "shop"), 0);
    ck_assert_str_ne(same.token, other.token);
    name_lock_close(&same);
    name_lock_close(&other);
}
END_TEST

START_TEST(token_belongs_to_the_file)
{
    char before[NAME_LOCK_TOKEN_SIZE];
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    ck_assert_uint_eq(strlen(lock.token), NAME_LOCK_TOKEN_SIZE - 1);
    (void)snprintf(before, sizeof before, "%s", lock.token);
    name_lock_close(&lock);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    ck_assert_str_eq(lock.token, before);
    name_lock_close(&lock);
    ck_assert_int_eq(unlink(lock.path), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    ck_assert_str_ne(lock.token, before);
}
END_TEST

/* What a crash while it was written has left. */
START_TEST(half_a_token_is_replaced)
{
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    name_lock_close(&lock);
    ck_assert_int_eq(truncate(lock.path, 7), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    struct stat st;
    ck_assert_int_eq(stat(lock.path, &st), 0);
    ck_assert_int_eq(st.st_size, NAME_LOCK_TOKEN_SIZE - 1);
    ck_assert_uint_eq(strspn(lock.token, "0123456789abcdef"), NAME_LOCK_TOKEN_SIZE - 1);
}
END_TEST

START_TEST(lock_is_held_as_long_as_any_duplicate)
{
    struct name_lock second;
    name_lock_init(&second);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    int copy = dup(lock.fd);
    name_lock_close(&lock);
    ck_assert_int_eq(name_lock_take(&second, dir, "db", "shop"), OB_EBUSY);
    (void)close(copy);
    ck_assert_int_eq(name_lock_take(&second, dir, "db", "shop"), 0);
    name_lock_close(&second);
}
END_TEST

START_TEST(name_makes_a_harmless_file_name)
{
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "../../x y/z"), 0);
    ck_assert_str_eq(lock.path, in_dir(".._.._x_y_z@db.lock"));
}
END_TEST

START_TEST(folder_is_made)
{
    char deeper[300];
    struct stat st;
    (void)snprintf(deeper, sizeof deeper, "%s/new", dir);
    ck_assert_int_eq(name_lock_take(&lock, deeper, "db", "shop"), 0);
    ck_assert_int_eq(stat(deeper, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0700);
}
END_TEST

START_TEST(what_is_too_long_is_refused_and_not_cut)
{
    char longer[400];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", longer), -ENAMETOOLONG);
    longer[0] = '/';
    ck_assert_int_eq(name_lock_take(&lock, longer, "db", "shop"), -ENAMETOOLONG);
}
END_TEST

START_TEST(symbolic_links_are_not_followed)
{
    char target[600];
    (void)snprintf(target, sizeof target, "%s", in_dir("elsewhere"));
    ck_assert_int_eq(symlink(target, in_dir("shop@db.lock")), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), -ELOOP);
    ck_assert_int_ne(access(in_dir("elsewhere"), F_OK), 0);
    char link[300];
    (void)snprintf(link, sizeof link, "%s-link", dir);
    ck_assert_int_eq(symlink(dir, link), 0);
    ck_assert_int_eq(name_lock_take(&lock, link, "db", "other"), -ENOTDIR);
}
END_TEST

START_TEST(file_that_is_none_or_everybodys_is_refused)
{
    ck_assert_int_eq(mkfifo(in_dir("fifo@db.lock"), 0600), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "fifo"), -EPERM);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
    name_lock_close(&lock);
    ck_assert_int_eq(chmod(lock.path, 0666), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), -EPERM);
}
END_TEST

START_TEST(folder_where_everybody_can_replace_files_is_refused)
{
    ck_assert_int_eq(chmod(dir, 0777), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), -EPERM);
    ck_assert_int_eq(chmod(dir, 01777), 0);
    ck_assert_int_eq(name_lock_take(&lock, dir, "db", "shop"), 0);
}
END_TEST

/* As another user: a folder, or a file in a shared folder, that a third one has put there. */
START_TEST(what_another_user_has_put_there_is_refused)
{
    if (geteuid() != 0)
        return;
    enum { MALLORY = 65533, ALICE = 65532 };
    char shared[64];
    char theirs[300];
    (void)snprintf(shared, sizeof shared, "/tmp/obl%d", (int)getpid());
    (void)snprintf(theirs, sizeof theirs, "%s/theirs", shared);
    ck_assert_int_eq(mkdir(shared, 0700), 0);
    ck_assert_int_eq(chmod(shared, 01777), 0);
    ck_assert_int_eq(mkdir(theirs, 0700), 0);
    ck_assert_int_eq(chmod(theirs, 01777), 0);
    ck_assert_int_eq(chown(theirs, MALLORY, MALLORY), 0);
    pid_t child = fork();
    if (child == 0) {
        struct name_lock l;
        name_lock_init(&l);
        if (seteuid(MALLORY) != 0 || name_lock_take(&l, shared, "db", "shop") != 0)
            _exit(1);
        name_lock_close(&l); /* released: it is not the lock that refuses */
        if (seteuid(0) != 0 || seteuid(ALICE) != 0)
            _exit(2);
        int file_err = name_lock_take(&l, shared, "db", "shop");
        int dir_err = name_lock_take(&l, theirs, "db", "shop");
        int own_err = name_lock_take(&l, shared, "db", "alice");
        _exit(file_err == -EACCES && dir_err == -EACCES && own_err == 0 ? 0 : 3);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    (void)snprintf(dir, sizeof dir, "%s",
                   shared); /* removed here: it is not in the test's folder */
    (void)unlink(in_dir("shop@db.lock"));
    (void)unlink(in_dir("alice@db.lock"));
    ck_assert_int_eq(rmdir(theirs), 0);
    ck_assert_int_eq(rmdir(shared), 0);
    ck_assert_int_eq(status, 0);
}
END_TEST

Suite *test_suite(void)
{
    Suite *s = suite_create("name_lock");
    TCase *tc = tcase_create("lock file");
    tcase_add_checked_fixture(tc, make_dir, let_go);
    tcase_add_test(tc, name_is_taken_once_per_database);
    tcase_add_test(tc, token_belongs_to_the_file);
    tcase_add_test(tc, half_a_token_is_replaced);
    tcase_add_test(tc, lock_is_held_as_long_as_any_duplicate);
    tcase_add_test(tc, name_makes_a_harmless_file_name);
    tcase_add_test(tc, folder_is_made);
    tcase_add_test(tc, what_is_too_long_is_refused_and_not_cut);
    tcase_add_test(tc, symbolic_links_are_not_followed);
    tcase_add_test(tc, file_that_is_none_or_everybodys_is_refused);
    tcase_add_test(tc, folder_where_everybody_can_replace_files_is_refused);
    tcase_add_test(tc, what_another_user_has_put_there_is_refused);
    suite_add_tcase(s, tc);
    return s;
}
