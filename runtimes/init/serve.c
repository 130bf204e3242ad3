/* --serve: the main program, with which init begins and ends. */
#include "init.h"

enum { NOT_RUNNABLE = 126, NOT_FOUND = 127 };  /* statuses of shells */

struct source main_output = {.watch = {.fd = -1}};
int main_pid;

void serve_start(void)
{
    struct program program = {flags.program, flags.environment, NULL, -1, -1, -1};
    struct launch launch = {0, false};
    program.out = program.err = output_add(&main_output, ~(u64)0);
    program.in = (int)sys_open("/dev/null", O_RDONLY, 0);
    if (program.in < 0) {
        /* An image may have no /dev/null: the end of an empty pipe reads the same. */
        int ends[2] = {-1, -1};
        SYS(NR_PIPE2, ends, O_CLOEXEC);
        sys_close(ends[1]);
        program.in = ends[0];
    }
    launch = program_start(&program);
    sys_close(program.in);
    sys_close(program.out);
    if (launch.pid > 0) {
        main_pid = launch.pid;
        return;
    }
    init_say("cannot run ", flags.program[0], error_text(launch.pid));
    init_end(launch.pid == -ENOENT ? NOT_FOUND : NOT_RUNNABLE);
}

void serve_ended(int status)
{
    program_kill(main_pid);
    main_pid = 0;
    init_end(exit_status(status));
}
