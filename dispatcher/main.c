/* main.c - the program's entry: forks the spawner for the commands that run handlers, then hands
 * over to the command table (cmd/cmd.c). No logic of its own. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cmd/cmd.h"
#include "exec/spawner.h"

int main(int argc, char **argv)
{
    const struct command *command = argc > 1 ? cmd_find(argv[1]) : NULL;
    if (command == NULL || !command->needs_spawner)
        return cmd_main(argc, argv, NULL);

    /* Before any connection, thread or large allocation: see exec/spawner.h. */
    struct spawner spawner;
    int err = spawner_fork(&spawner);
    if (err != 0) {
        (void)fprintf(stderr, "outbox: could not start the spawner process: %s\n",
                      ob_strerror(err));
        return OB_EXIT_FAILED;
    }
    /* A peer that hangs up (the server, a webhook's, a child that closed its input) is an error of
     * that one write, not the end of the program. */
    struct sigaction ignore;
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &ignore, NULL);
    return cmd_main(argc, argv, &spawner);
}
