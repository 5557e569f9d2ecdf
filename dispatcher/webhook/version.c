/* version.c - see version.h. */
#include "webhook/version.h"

#include <curl/curl.h>

const char *webhook_curl_version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}
