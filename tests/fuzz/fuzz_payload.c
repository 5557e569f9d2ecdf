/* fuzz_payload: msgpack -> JSON. Oracle: what was converted is JSON, and every refusal says why.
 * The same input is then checked as JSON text: what jansson takes, our check takes. */
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "base/payload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64 * 1024)
        return 0;
    char error[PAYLOAD_ERROR_SIZE];
    struct buf out;
    buf_init(&out, 64 * 1024 * 1024);
    int err = payload_msgpack_to_json(data, size, &out, error);
    if (err == 0) {
        ob_assert(error[0] == '\0');
        ob_assert(payload_check_json(out.data, out.len, error) == 0);
    } else {
        ob_assert(err == OB_ESYNTAX || err == OB_ETOOBIG);
        ob_assert(error[0] != '\0' && strlen(error) < PAYLOAD_ERROR_SIZE);
    }
    buf_deinit(&out);
    json_t *value = json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    err = payload_check_json((const char *)data, size, error);
    /* jansson takes a NUL byte behind the value for the end of the text */
    ob_assert(value == NULL || err == 0 || memchr(data, '\0', size) != NULL);
    ob_assert((err == 0) == (error[0] == '\0'));
    json_decref(value);
    return 0;
}
