/* fuzz_config: a configuration from memory. Oracle: a refusal says why, and what was accepted
 * prints as a configuration that is accepted again and prints the same. */
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int load_and_print(const char *text, size_t len, struct buf *out, struct buf *errors)
{
    struct config *c = config_new();
    int err = config_load_text(c, "fuzz.yaml", text, len, errors);
    config_print(c, out);
    config_unref(c);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 16 * 1024)
        return 0;
    struct buf first;
    struct buf second;
    struct buf errors;
    buf_init(&first, 256 * 1024 * 1024);
    buf_init(&second, 256 * 1024 * 1024);
    buf_init(&errors, 1024 * 1024);
    int err = load_and_print((const char *)data, size, &first, &errors);
    ob_assert(err == 0 || (err == OB_ECONFIG && errors.len > 0));
    if (err == 0) {
        ob_assert(load_and_print(first.data, first.len, &second, &errors) == 0);
        ob_assert(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    }
    buf_deinit(&first);
    buf_deinit(&second);
    buf_deinit(&errors);
    return 0;
}
