/* The version as numbers, as one number, as a string, and as CMake reads it (argv[1]). */
#include <outbox/outbox.h>

#if OUTBOX_VERSION_NUM !=                                                                          \
    OUTBOX_VERSION_MAJOR * 1000000 + OUTBOX_VERSION_MINOR * 1000 + OUTBOX_VERSION_PATCH
#error "OUTBOX_VERSION_NUM is not made of the parts"
#endif
#if !OUTBOX_AT_LEAST(OUTBOX_VERSION_MAJOR, OUTBOX_VERSION_MINOR, OUTBOX_VERSION_PATCH) ||          \
    !OUTBOX_AT_LEAST(0, 0, 0)
#error "OUTBOX_AT_LEAST refuses this version or an older one"
#endif
#if OUTBOX_AT_LEAST(OUTBOX_VERSION_MAJOR, OUTBOX_VERSION_MINOR, OUTBOX_VERSION_PATCH + 1) ||       \
    OUTBOX_AT_LEAST(OUTBOX_VERSION_MAJOR + 1, 0, 0)
#error "OUTBOX_AT_LEAST accepts a newer version"
#endif

int main(int argc, char **argv)
{
    char numbers[64];

    (void)snprintf(numbers, sizeof numbers, "%d.%d.%d", OUTBOX_VERSION_MAJOR, OUTBOX_VERSION_MINOR,
                   OUTBOX_VERSION_PATCH);
    if (argc != 2 || strcmp(numbers, OUTBOX_VERSION_STRING) != 0 ||
        strcmp(argv[1], OUTBOX_VERSION_STRING) != 0) {
        fprintf(stderr, "header %s = %s, build system %s\n", OUTBOX_VERSION_STRING, numbers,
                argc == 2 ? argv[1] : "?");
        return 1;
    }
    return 0;
}
