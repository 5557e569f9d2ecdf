#include "ck_main.h"

#include <stdio.h>
#include <stdlib.h>

#include "child.h"

void test_skip_all(const char *why)
{
    (void)printf("skipped: %s\n", why);
    (void)fflush(stdout);
    exit(77);
}

int main(void)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    scratch_init();
    SRunner *runner = srunner_create(test_suite());
    (void)fflush(NULL);
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    scratch_remove();
    /* scripts/test adds these lines up. */
    (void)printf("checks: %d passed, %d failed\n", run - failed, failed);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
