/* outbox.h - enqueue jobs in PostgreSQL inside your own transaction. */
#ifndef OUTBOX_H
#define OUTBOX_H
#define OUTBOX_VERSION_MAJOR 0
#define OUTBOX_VERSION_MINOR 1
#define OUTBOX_VERSION_PATCH 0
#define OUTBOX_SCHEMA_VERSION 1
#endif
