/* noop.c - the least that a command can do which was given a job: reads it, and ends with 0. */
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    static char bytes[65536];
    ssize_t n = 1;
    while (n > 0)
        n = read(STDIN_FILENO, bytes, sizeof bytes);
    return n == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
