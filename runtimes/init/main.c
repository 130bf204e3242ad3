/* How init begins and ends, and its flags. */
#include "init.h"

enum { USAGE = 125, END_STEP_MS = 10, END_STEPS = 100 };

struct flags flags = {.log_limit = 262144, .folder = "/run/hearth"};
static int end_status = -1;
static struct timer end_timer;
static u32 end_steps;

void init_say(const char *what, const char *name, const char *why)
{
    static struct line line;
    line.size = 0;
    put(&line, "hearth init: ");
    put(&line, what);
    if (name)
        put(&line, name);
    if (why) {
        put(&line, ": ");
        put(&line, why);
    }
    put(&line, "\n");
    output_line(line.data, line.size);
}

void misused(const char *flag, const char *why)
{
    static struct line line;
    put(&line, "hearth init: ");
    put(&line, flag);
    put(&line, ": ");
    put(&line, why);
    put(&line, "\n");
    sys_write(2, line.data, line.size);
    sys_exit(USAGE);
}

/* Leave, unless something still has to be sent and a second has not passed. */
static void try_end(struct timer *timer)
{
    (void)timer;
    bool children = program_reap();
    bool settled = output_settled() && slots_settled() && tunnels_settled() && relay_settled();
    if ((settled && !children) || ++end_steps == END_STEPS)
        sys_exit(end_status);
    loop_set_timer(&end_timer, END_STEP_MS, try_end);
}

void init_end(int status)
{
    if (end_status < 0) {
        kill_everything();
        end_status = status;
        loop_set_timer(&end_timer, 0, try_end);
    }
}

static u64 number_of(const char *flag, char *value)
{
    u64 number;
    if (!text_number((struct text){value, length(value)}, &number))
        misused(flag, "needs a number");
    return number;
}

/* Read the flags before `--`. Those of one word have no value. */
static void read_flags(char **arguments)
{
    while (*arguments && !same(*arguments, "--")) {
        const char *flag = *arguments++;
        if (same(flag, "--serve")) {
            flags.serve = true;
        } else if (same(flag, "--wait")) {
            flags.wait = true;
        } else if (same(flag, "--once")) {
            flags.once = true;
        } else if (same(flag, "--relay")) {
            flags.relay = true;
        } else {
            char *value = *arguments;
            if (!value || same(value, "--"))
                misused(flag, "is unknown, or needs a value");
            arguments++;
            if (same(flag, "--calls"))
                flags.calls = (u32)number_of(flag, value);
            else if (same(flag, "--log-limit"))
                flags.log_limit = number_of(flag, value);
            else if (!same(flag, "--copy") && !same(flag, "--listen"))
                misused(flag, "is unknown");
        }
    }
    static char *nothing[] = {NULL};
    flags.program = *arguments ? arguments + 1 : nothing;
    if (flags.serve == flags.wait)
        misused("init", "give either --serve or --wait");
    if (flags.serve && !*flags.program)
        misused("--serve", "needs -- PROGRAM");
}

/* Take what is for init only out of the environment, in place. */
static void read_environment(char **environment)
{
    char **kept = environment;
    flags.environment = environment;
    for (; *environment; environment++) {
        if (starts(*environment, "HEARTH_SOCKET_DIR="))
            flags.folder = *environment + 18;
        else
            *kept++ = *environment;
    }
    *kept = NULL;
}

/* Do what flags with a value order: each may be given more than once. */
static void each_flag(char **arguments, const char *wanted, void (*order)(char *))
{
    for (; *arguments && !same(*arguments, "--"); arguments++)
        if (same(*arguments, wanted))
            order(*++arguments);
}

static void open_listener(char *value)
{
    const char *mistake = listen_open(value);
    if (mistake)
        misused("--listen", mistake);
}

int init_main(int count, char **arguments, char **environment)
{
    /* First of all: nobody but the machine's root may look into init, or open its descriptors through /proc. */
    SYS(NR_PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0);
    SYS(NR_CLOSE_RANGE, 3, ~0u, CLOSE_RANGE_CLOEXEC);
    arguments += count > 0;
    read_flags(arguments);
    read_environment(environment);
    loop_open();
    signals_open();
    if (flags.relay)
        relay_open();
    output_open();
    each_flag(arguments, "--copy", copy_folder);
    each_flag(arguments, "--listen", open_listener);
    if (flags.serve)
        serve_start();
    slots_open(flags.calls);
    for (;;)
        loop_turn();
}
