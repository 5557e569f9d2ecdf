/* Configurations of tests, see testconfig.h. */
#include "testconfig.h"

#include <string.h>

#include "base/buf.h"
#include "ck_main.h"

struct config *testconfig_load(const char *yaml)
{
    struct config *c = config_new();
    struct buf errors;
    buf_init(&errors, 65536);
    int err = config_load_text(c, "f.yaml", yaml, strlen(yaml), &errors);
    if (err == 0)
        err = config_finish(c, &errors);
    ck_assert_msg(err == 0, "%s", errors.data != NULL ? errors.data : "");
    buf_deinit(&errors);
    return c;
}
