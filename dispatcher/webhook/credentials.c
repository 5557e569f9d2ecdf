/* credentials.c - see credentials.h. */
#include "webhook/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/assert.h"
#include "base/mem.h"
#include "webhook/sign.h"

enum { SECRET_FILE_MAX = 4096, PEM_FILE_MAX = 1024 * 1024 };

struct secret {
    struct signer *signer;
    int64_t not_after_us;
};

struct credentials {
    struct secret *secrets;
    size_t secrets_count;
    struct pem ca;
    struct pem client_cert;
    struct pem client_key; /* empty: in client_cert */
};

static void pem_free(struct pem *p)
{
    if (p->data == NULL)
        return;
    OPENSSL_cleanse(p->data, p->len);
    ob_free(p->data);
    *p = (struct pem){0};
}

static void credentials_free(struct credentials *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->secrets_count; i++)
        signer_free(c->secrets[i].signer);
    ob_free(c->secrets);
    pem_free(&c->ca);
    pem_free(&c->client_cert);
    pem_free(&c->client_key);
    ob_free(c);
}

/* ---- files ---- */

/* "FILE:LINE: task 'NAME': KEY WHERE: TEXT". */
struct place {
    const struct task_config *task;
    struct buf *err;
    const char *key;
    const char *where; /* a path or a variable's name */
};

static int complain(const struct place *at, const char *text)
{
    buf_printf(at->err, "%s: task '%s': %s %s: %s\n", at->task->source, at->task->name, at->key,
               at->where, text);
    return OB_ECONFIG;
}

/* At most size bytes of a regular file (a pipe could not be read again at a reload, and might keep
 * us waiting). -1 after a message. */
static ssize_t read_whole(const struct place *at, char *bytes, size_t size)
{
    struct stat st;
    size_t len = 0;
    int fd = open(at->where, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n = fd >= 0 ? fstat(fd, &st) : -1;
    if (n == 0 && !S_ISREG(st.st_mode)) {
        (void)close(fd);
        (void)complain(at, "not a regular file");
        return -1;
    }
    while (n >= 0 && len < size) {
        n = read(fd, bytes + len, size - len);
        if (n == 0)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    if (n < 0)
        (void)complain(at, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return n < 0 ? -1 : (ssize_t)len;
}

/* ---- secrets ---- */

static int add_secret(struct credentials *c, const struct place *at, const char *text, size_t len,
                      int64_t not_after_us)
{
    unsigned char key[SECRET_KEY_MAX];
    size_t key_len = 0;
    const char *why = NULL;
    struct secret *secret = &c->secrets[c->secrets_count];
    if (secret_parse(text, len, key, &key_len, &why) != 0) {
        char message[160];
        (void)snprintf(message, sizeof message,
                       "not a secret: %s; expected whsec_ and the base64 of 24 to 64 bytes", why);
        return complain(at, message);
    }
    int err = signer_new(key, key_len, &secret->signer);
    OPENSSL_cleanse(key, sizeof key);
    if (err != 0)
        return err;
    secret->not_after_us = not_after_us;
    c->secrets_count++;
    return 0;
}

static int read_secret(struct credentials *c, struct place *at, const struct webhook_secret *s)
{
    char text[SECRET_FILE_MAX + 1];
    at->where = s->file != NULL ? s->file : s->env;
    if (s->file == NULL) {
        const char *value = getenv(s->env);
        if (value == NULL)
            return complain(at, "the variable is not set");
        return add_secret(c, at, value, strlen(value), s->not_after_us);
    }
    ssize_t n = read_whole(at, text, sizeof text);
    int err = OB_ECONFIG;
    if (n > SECRET_FILE_MAX)
        err = complain(at, "not a secret: the file is larger than 4 KiB");
    else if (n >= 0)
        err = add_secret(c, at, text, (size_t)n, s->not_after_us);
    OPENSSL_cleanse(text, sizeof text);
    return err;
}

static int read_secrets(struct credentials *c, struct place *at)
{
    const struct webhook_config *w = &at->task->webhook;
    struct webhook_secret single = {
        .file = w->secret_file, .env = w->secret_env, .not_after_us = INT64_MAX};
    bool is_single = single.file != NULL || single.env != NULL;
    const struct webhook_secret *from = is_single ? &single : w->secrets.items;
    size_t count = is_single ? 1 : w->secrets.count;
    int result = 0;
    if (count == 0)
        return 0;
    at->key = single.file != NULL ? "secret_file" : single.env != NULL ? "secret_env" : "secrets";
    c->secrets = ob_calloc(count, sizeof *c->secrets);
    if (c->secrets == NULL)
        return OB_ENOMEM;
    for (size_t i = 0; i < count && result != OB_ENOMEM; i++) {
        int err = read_secret(c, at, &from[i]);
        result = err != 0 ? err : result;
    }
    return result;
}

/* ---- certificates ---- */

static int read_pem(struct place *at, const char *key, const char *path, struct pem *ret_pem)
{
    at->key = key;
    at->where = path;
    char *bytes = ob_malloc(PEM_FILE_MAX + 1);
    if (bytes == NULL)
        return OB_ENOMEM;
    ssize_t n = read_whole(at, bytes, PEM_FILE_MAX + 1);
    int err = n < 0 ? OB_ECONFIG : 0;
    if (n > PEM_FILE_MAX)
        err = complain(at, "larger than 1 MiB");
    if (err == 0) {
        ret_pem->len = (size_t)n;
        ret_pem->data = ob_strndup(bytes, (size_t)n);
        err = ret_pem->data == NULL ? OB_ENOMEM : 0;
    }
    OPENSSL_cleanse(bytes, PEM_FILE_MAX + 1);
    ob_free(bytes);
    return err;
}

/* No passphrase, and no question on the terminal. The signature is OpenSSL's. */
// NOLINTNEXTLINE(readability-non-const-parameter)
static int no_passphrase(char *text, int size, int for_writing, void *arg)
{
    (void)text;
    (void)size;
    (void)for_writing;
    (void)arg;
    return -1;
}

/* How many certificates; the first, if anybody wants it. */
static size_t parse_certificates(const struct pem *pem, X509 **ret_first)
{
    size_t count = 0;
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    X509 *x = bio != NULL ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    for (; x != NULL; x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)) {
        if (count++ == 0 && ret_first != NULL)
            *ret_first = x;
        else
            X509_free(x);
    }
    BIO_free(bio);
    ERR_clear_error(); /* the end of the file is one */
    return count;
}

static EVP_PKEY *parse_key(const struct pem *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static int read_client(struct credentials *c, struct place *at)
{
    const struct webhook_config *w = &at->task->webhook;
    const struct pem *key_pem = &c->client_cert;
    X509 *certificate = NULL;
    int err = read_pem(at, "client_cert", w->client_cert, &c->client_cert);
    if (err != 0)
        return err;
    if (parse_certificates(&c->client_cert, &certificate) == 0)
        return complain(at, "no certificate (PEM) in it");
    if (w->client_key != NULL) {
        err = read_pem(at, "client_key", w->client_key, &c->client_key);
        key_pem = &c->client_key;
    }
    EVP_PKEY *key = err == 0 ? parse_key(key_pem) : NULL;
    if (err == 0 && key == NULL)
        err = complain(at, w->client_key != NULL
                               ? "no private key (PEM, without a passphrase) in it"
                               : "no private key (PEM, without a passphrase) beside the "
                                 "certificate; name one with client_key");
    else if (err == 0 && X509_check_private_key(certificate, key) != 1)
        err = complain(at, "the private key is not the certificate's");
    EVP_PKEY_free(key);
    X509_free(certificate);
    ERR_clear_error();
    return err;
}

static int read_ca(struct credentials *c, struct place *at)
{
    int err = read_pem(at, "ca_file", at->task->webhook.ca_file, &c->ca);
    if (err == 0 && parse_certificates(&c->ca, NULL) == 0)
        err = complain(at, "no certificate (PEM) in it");
    return err;
}

/* ---- the whole ---- */

int credentials_read_task(struct task_config *t, struct buf *reterr)
{
    struct webhook_config *w = &t->webhook;
    struct place at = {.task = t, .err = reterr};
    ob_assert(t->kind == HANDLER_WEBHOOK);
    ob_assert(w->credentials == NULL);
    struct credentials *c = ob_calloc(1, sizeof *c);
    if (c == NULL)
        return OB_ENOMEM;
    w->credentials = c; /* freed with the configuration, whatever comes */
    w->credentials_free = credentials_free;
    int errors[3] = {read_secrets(c, &at), 0, 0};
    if (w->ca_file != NULL)
        errors[1] = read_ca(c, &at);
    if (w->client_cert != NULL)
        errors[2] = read_client(c, &at);
    int result = 0;
    for (size_t i = 0; i < 3; i++)
        result = result == OB_ENOMEM || errors[i] == 0 ? result : errors[i];
    return result;
}

static bool is_secret_variable(const struct webhook_config *w, const char *name)
{
    bool found = w->secret_env != NULL && strcmp(w->secret_env, name) == 0;
    for (size_t i = 0; i < w->secrets.count; i++) {
        const char *env = w->secrets.items[i].env;
        found = found || (env != NULL && strcmp(env, name) == 0);
    }
    return found;
}

/* No secret of ours reaches a child, not even by the operator's oversight. */
static int check_env_pass(const struct config *c, const struct task_config *t, struct buf *reterr)
{
    struct place at = {.task = t, .err = reterr, .key = "env_pass"};
    int result = 0;
    for (size_t i = 0; i < t->command.env_pass.count; i++) {
        at.where = t->command.env_pass.items[i];
        for (size_t k = 0; k < c->tasks_count; k++) {
            char text[192];
            if (!is_secret_variable(&c->tasks[k].webhook, at.where))
                continue;
            (void)snprintf(text, sizeof text, "it holds a secret of task '%s'", c->tasks[k].name);
            result = complain(&at, text);
        }
    }
    return result;
}

int credentials_read(struct config *c, struct buf *reterr)
{
    int result = 0;
    for (size_t i = 0; i < c->tasks_count && result != OB_ENOMEM; i++) {
        int err = 0;
        if (c->tasks[i].kind == HANDLER_WEBHOOK)
            err = credentials_read_task(&c->tasks[i], reterr);
        else
            err = check_env_pass(c, &c->tasks[i], reterr);
        result = err != 0 ? err : result;
    }
    return result;
}

bool credentials_can_sign(const struct credentials *c)
{
    return c != NULL && c->secrets_count > 0;
}

int credentials_sign(const struct credentials *c, const char *id, uint64_t timestamp_s,
                     const void *body, size_t body_len, struct buf *out)
{
    const char *separator = "";
    ob_assert(credentials_can_sign(c));
    for (size_t i = 0; i < c->secrets_count; i++) {
        char signature[SIGNATURE_SIZE];
        if (c->secrets[i].not_after_us / 1000000 < (int64_t)timestamp_s)
            continue;
        int err = signer_sign(c->secrets[i].signer, id, timestamp_s, body, body_len, signature);
        if (err != 0)
            return err;
        buf_puts(out, separator);
        buf_puts(out, signature);
        separator = " ";
    }
    ob_assert(separator[0] != '\0'); /* one secret of each task has no end */
    return out->err;
}

static const struct pem *pem_or_null(const struct pem *p)
{
    return p->data != NULL ? p : NULL;
}

const struct pem *credentials_ca(const struct credentials *c)
{
    return c != NULL ? pem_or_null(&c->ca) : NULL;
}

const struct pem *credentials_client_cert(const struct credentials *c)
{
    return c != NULL ? pem_or_null(&c->client_cert) : NULL;
}

const struct pem *credentials_client_key(const struct credentials *c)
{
    if (c == NULL || c->client_cert.data == NULL)
        return NULL;
    return c->client_key.data != NULL ? &c->client_key : &c->client_cert;
}
