/* version.h - which libcurl this is, for `outbox --version`. Defined in multi.c. */
#ifndef OB_WEBHOOK_VERSION_H
#define OB_WEBHOOK_VERSION_H

/* "7.88.1"; static storage. Of the library that is loaded, without initialising it. */
const char *webhook_curl_version(void);

#endif
