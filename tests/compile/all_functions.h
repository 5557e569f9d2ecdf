/* Uses every public function, type and macro of outbox.h, so that each is compiled and linked. C99
 * and C++11. */
#ifndef OB_TEST_ALL_FUNCTIONS_H
#define OB_TEST_ALL_FUNCTIONS_H

static int build_payload(struct outbox_payload *p)
{
    static const char raw[] = "\x93\x01\x02\x03";

    outbox_payload_init(p);
    (void)outbox_put_int(p, "int", -7);
    (void)outbox_put_uint(p, "uint", 7u);
    (void)outbox_put_bool(p, "bool", true);
    (void)outbox_put_double(p, "double", 0.5);
    (void)outbox_put_str(p, "str", "text");
    (void)outbox_put_strn(p, "strn", "text", 2);
    (void)outbox_put_bin(p, "bin", "\0\1", 2);
    (void)outbox_put_null(p, "null");
    (void)outbox_put_timestamp(p, "timestamp", 1700000000, 5u);
    (void)outbox_put_msgpack(p, "msgpack", raw, 4);
    (void)outbox_begin_map(p, "map");
    (void)outbox_begin_array(p, "array");
    (void)outbox_put_int(p, NULL, 1);
    (void)outbox_end(p);
    (void)outbox_end(p);
    return outbox_payload_error(p);
}

/* 0 if all is well. No server is needed: every call on a missing connection is refused. */
static int use_all_functions(void)
{
    struct outbox_payload p;
    struct outbox_job job = OUTBOX_JOB("task");
    struct outbox_job jobs[2] = {OUTBOX_JOB("a"), OUTBOX_JOB("b")};
    struct outbox_query q;
    struct outbox_error err;
    int64_t ids[2];
    size_t len = 0;
    int bad = 0;

    bad += build_payload(&p) != OUTBOX_OK;
    job.payload = &p;
    bad += outbox_query_init(&q, &job, &err) != OUTBOX_OK || q.nparams != 3;
    outbox_query_free(&q);
    bad += outbox_query_init_many(&q, jobs, 2, 0, &err) != OUTBOX_OK || q.nparams != 2;
    outbox_query_free(&q);
    bad += outbox_query_result(NULL, &job, 1, ids, &err) != OUTBOX_EDB;
    bad += outbox_enqueue(NULL, &job, ids, &err) != OUTBOX_EINVAL;
    bad += outbox_enqueue_many(NULL, jobs, 2, ids, &err) != OUTBOX_EINVAL;
    bad += outbox_check_schema(NULL, &err) != OUTBOX_EINVAL;
    bad += outbox_payload_bytes(&p, &len) == NULL || len == 0;
    outbox_payload_clear(&p);
    bad += outbox_payload_set_json(&p, "[]", 2) != OUTBOX_OK;
    outbox_payload_free(&p);
    bad += strcmp(outbox_strerror(OUTBOX_ENOTX), outbox_strerror(OUTBOX_OK)) == 0;
    return bad;
}

#endif
