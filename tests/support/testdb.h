/* testdb.h - what pgcluster.c and testdb.c share; tests include pgcluster.h. */
#ifndef OB_TEST_TESTDB_H
#define OB_TEST_TESTDB_H

/* The database template_outbox, with the schema. */
void testdb_make_template(void);
/* A test that failed did not come to its testdb_drop: prints what the server logged since it began.
 */
void testdb_report_failed(void);
void pgcluster_show_log(long from);
long pgcluster_log_size(void);

#endif
