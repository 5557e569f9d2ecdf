/* sign.c - see sign.h. Called by credentials.c. */
#include "webhook/sign.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "base/assert.h"
#include "base/mem.h"

enum { BASE64_MAX = 88, DIGEST_BYTES = 32 };
_Static_assert(BASE64_MAX == (SECRET_KEY_MAX + 2) / 3 * 4, "as long as the longest key's base64");

struct signer {
    EVP_MAC_CTX *mac; /* initialised with the key; each signature begins from there */
};

/* ---- secrets ---- */

static const char *trim(const char *text, size_t *len)
{
    while (*len > 0 && strchr(" \t\r\n", text[0]) != NULL && text[0] != '\0') {
        text++;
        (*len)--;
    }
    while (*len > 0 && strchr(" \t\r\n", text[*len - 1]) != NULL && text[*len - 1] != '\0')
        (*len)--;
    return text;
}

/* EVP_DecodeBlock passes over blanks and odd ends: what it makes must encode to the same text. */
static const char *decode(const char *text, size_t len, unsigned char *ret_key, size_t *ret_len)
{
    unsigned char bytes[BASE64_MAX / 4 * 3 + 1];
    unsigned char again[BASE64_MAX + 1];
    const char *why = NULL;
    if (len > BASE64_MAX)
        return "it has more than 64 bytes";
    int n = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)len);
    if (n > 0 && text[len - 1] == '=')
        n -= text[len - 2] == '=' ? 2 : 1;
    if (n < 0 || len % 4 != 0 || EVP_EncodeBlock(again, bytes, n) != (int)len ||
        CRYPTO_memcmp(again, text, len) != 0)
        why = "what follows whsec_ is not base64 with its padding";
    else if (n < SECRET_KEY_MIN)
        why = "it has fewer than 24 bytes";
    else if (n > SECRET_KEY_MAX)
        why = "it has more than 64 bytes";
    if (why == NULL) {
        memcpy(ret_key, bytes, (size_t)n);
        *ret_len = (size_t)n;
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    OPENSSL_cleanse(again, sizeof again);
    return why;
}

int secret_parse(const char *text, size_t len, unsigned char ret_key[SECRET_KEY_MAX],
                 size_t *ret_len, const char **reterr_why)
{
    static const char prefix[] = "whsec_";
    enum { PREFIX = sizeof prefix - 1 };
    text = trim(text, &len);
    if (len == 0)
        *reterr_why = "it is empty";
    else if (len < PREFIX || memcmp(text, prefix, PREFIX) != 0)
        *reterr_why = "it does not begin with whsec_";
    else
        *reterr_why = decode(text + PREFIX, len - PREFIX, ret_key, ret_len);
    if (*reterr_why == NULL)
        return 0;
    OPENSSL_cleanse(ret_key, SECRET_KEY_MAX);
    *ret_len = 0;
    return OB_ESYNTAX;
}

/* ---- signatures ---- */

int signer_new(const unsigned char *key, size_t len, struct signer **ret_signer)
{
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_END};
    struct signer *s = ob_calloc(1, sizeof *s);
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (s != NULL && hmac != NULL)
        s->mac = EVP_MAC_CTX_new(hmac);
    EVP_MAC_free(hmac); /* the context holds its own reference */
    if (s == NULL || s->mac == NULL || EVP_MAC_init(s->mac, key, len, params) != 1) {
        signer_free(s);
        return OB_ENOMEM;
    }
    *ret_signer = s;
    return 0;
}

void signer_free(struct signer *s)
{
    if (s == NULL)
        return;
    EVP_MAC_CTX_free(s->mac); /* clears the key */
    ob_free(s);
}

int signer_sign(struct signer *s, const char *id, uint64_t timestamp_s, const void *body,
                size_t body_len, char ret_text[SIGNATURE_SIZE])
{
    char head[128];
    unsigned char digest[DIGEST_BYTES];
    size_t digest_len = 0;
    int n = snprintf(head, sizeof head, "%s.%" PRIu64 ".", id, timestamp_s);
    ob_assert(n > 0);
    ob_assert((size_t)n < sizeof head);
    if (EVP_MAC_init(s->mac, NULL, 0, NULL) != 1 ||
        EVP_MAC_update(s->mac, (const unsigned char *)head, (size_t)n) != 1 ||
        (body_len > 0 && EVP_MAC_update(s->mac, body, body_len) != 1) ||
        EVP_MAC_final(s->mac, digest, &digest_len, sizeof digest) != 1)
        return OB_ENOMEM;
    ob_assert(digest_len == sizeof digest);
    ret_text[0] = 'v';
    ret_text[1] = '1';
    ret_text[2] = ',';
    (void)EVP_EncodeBlock((unsigned char *)ret_text + 3, digest, DIGEST_BYTES);
    return 0;
}
