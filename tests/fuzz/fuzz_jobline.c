/* fuzz_jobline: a line of `outbox enqueue --file`. Oracle: what is accepted is a JSON object, also
 * with the defaults in it; its members are as many as jansson finds; every refusal says why. */
#include <stdint.h>
#include <string.h>

#include <jansson.h>

#include "base/assert.h"
#include "base/payload.h"
#include "cmd/jobline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Members, counted; jansson keeps one of each name, so that it may have fewer. */
static void check_members(const char *text, size_t size)
{
    struct payload_member m;
    size_t count = 0;
    for (size_t pos = 0; payload_next_member(text, size, &pos, &m); count++)
        ob_assert(m.name > text && m.value_len > 0 && m.value + m.value_len <= text + size);
    json_t *object = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    ob_assert(object == NULL || count >= json_object_size(object));
    ob_assert(object == NULL || (count == 0) == (json_object_size(object) == 0));
    json_decref(object);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct jobline_defaults defaults[2];
    struct admin_job job;
    if (size > 64 * 1024)
        return 0;
    memset(&job, 0, sizeof job);
    for (int i = 0; i < 2; i++) {
        char why[JOBLINE_ERROR_SIZE] = "";
        char error[PAYLOAD_ERROR_SIZE];
        struct buf out;
        job.task = i == 0 ? NULL : "t";
        job.delay = i == 0 ? NULL : "1 second";
        ob_assert(jobline_defaults_init(&defaults[i], &job) == 0);
        buf_init(&out, 256 * 1024);
        int err = jobline_append(text, size, &defaults[i], &out, why);
        ob_assert((err == 0) == (why[0] == '\0'));
        if (err == 0) {
            ob_assert(out.err == 0 && payload_check_jsonb(out.data, out.len, error) == 0);
            ob_assert(out.data[0] == '{');
            check_members(text, size);
            check_members(out.data, out.len);
        }
        buf_deinit(&out);
        jobline_defaults_deinit(&defaults[i]);
    }
    return 0;
}
