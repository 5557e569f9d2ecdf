/* sign.h - Standard Webhooks 1.0.0, signatures of the kind v1: HMAC-SHA256 over
 * "id.timestamp.body". The cryptography and the base64 are OpenSSL's. Pure; keeps keys only inside
 * OpenSSL's contexts, which clear them when they are freed. */
#ifndef OB_WEBHOOK_SIGN_H
#define OB_WEBHOOK_SIGN_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { SECRET_KEY_MIN = 24, SECRET_KEY_MAX = 64 };

/* "whsec_" and the base64 of 24 to 64 bytes, with padding; blanks and line ends around it do not
 * count. On failure OB_ESYNTAX, ret_key is cleared, and reterr_why says what is wrong without a
 * word of the text. */
int secret_parse(const char *text, size_t len, unsigned char ret_key[SECRET_KEY_MAX],
                 size_t *ret_len, const char **reterr_why) OB_MUST_CHECK;

struct signer;
/* Ready to sign with the key, which is not needed afterwards. OB_ENOMEM. */
int signer_new(const unsigned char *key, size_t len, struct signer **ret_signer) OB_MUST_CHECK;
void signer_free(struct signer *s); /* NULL is fine */

/* "v1," and the base64 of 32 bytes. */
enum { SIGNATURE_SIZE = 3 + 44 + 1 };
/* OB_ENOMEM. */
int signer_sign(struct signer *s, const char *id, uint64_t timestamp_s, const void *body,
                size_t body_len, char ret_text[SIGNATURE_SIZE]) OB_MUST_CHECK;

#endif
