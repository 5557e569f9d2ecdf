/* err.c - texts and exit codes of enum ob_err. Called by everyone; logs nothing. */
#include "base/err.h"

#include <stddef.h>
#include <string.h>

#include <uv.h>

static const struct {
    int err;
    int exit_code;
    const char *text;
} table[] = {
    {OB_OK, OB_EXIT_OK, "success"},
    {OB_ENOMEM, OB_EXIT_FAILED, "out of memory"},
    {OB_EINVAL, OB_EXIT_FAILED, "invalid value"},
    {OB_ECONFIG, OB_EXIT_CONFIG, "invalid configuration"},
    {OB_ECONN, OB_EXIT_TRY_AGAIN, "no connection to the database"},
    {OB_EDB, OB_EXIT_FAILED, "the database refused the statement"},
    {OB_ESCHEMA, OB_EXIT_INCOMPATIBLE,
     "the schema outbox is absent or too old: run `outbox migrate`"},
    {OB_EINCOMPAT, OB_EXIT_INCOMPATIBLE, "the schema outbox needs a newer version of this program"},
    {OB_EPRIVILEGE, OB_EXIT_FAILED, "permission denied: see `outbox grant --help`"},
    {OB_ETOOBIG, OB_EXIT_FAILED, "too large"},
    {OB_ENOTFOUND, OB_EXIT_FAILED, "not found"},
    {OB_EBUSY, OB_EXIT_TRY_AGAIN, "in use by another process"},
    {OB_ESPAWN, OB_EXIT_FAILED, "could not start a process"},
    {OB_ESYNTAX, OB_EXIT_FAILED, "malformed data"},
    {OB_EUSAGE, OB_EXIT_USAGE, "wrong usage"},
};

const char *ob_strerror(int err)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].err == err)
            return table[i].text;
    }
    /* uv_strerror allocates, and forgets, the text of a code it does not know. */
    char name[32];
    (void)uv_err_name_r(err, name, sizeof name);
    if (strncmp(name, "Unknown", 7) != 0)
        return uv_strerror(err);
    return err < 0 && err > OB_ENOMEM ? strerror(-err) : "unknown error";
}

int ob_exit_code(int err)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].err == err)
            return table[i].exit_code;
    }
    return OB_EXIT_FAILED;
}
