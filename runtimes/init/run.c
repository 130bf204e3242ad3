/* POST /run: a program for one request. Its stdin is the body, its stdout the answer, its stderr the log. */
#include "init.h"

enum {
    ROUNDS = 16,                   /* pieces of stdin or stdout before others have their turn */
    SWEEP_MS = 1000,               /* for killed processes to be gone */
};

struct run {
    struct slot *slot;             /* NULL once the gateway has gone */
    struct slot *lost;             /* then it is this, which dials anew when all is dead */
    int pid, status;
    bool over, swept, told;        /* it has ended; what it left is dead; its last chunk has been sent */
    u64 began, took;               /* microseconds */
    struct watch in, out;
    struct outbox stdin;
    u64 left;                      /* bytes of stdout from before its end */
    struct source err;
    struct mark mark;
    struct timer sweep;
    struct run *next;
};

u32 runs_now, runs_ever;
static struct run *runs;

static void run_pump(struct run *run);

static void slot_pump(struct slot *slot) { run_pump(slot->work); }

static void slot_lost(struct slot *slot)
{
    struct run *run = slot->work;
    run->slot = NULL;
    run->lost = slot;
    slot_hang_up(slot);
    program_kill(run->pid);
    run_pump(run);
}

static const struct verb run_verb = {slot_pump, slot_lost};

static void in_ready(struct watch *watch, u32 events)
{
    struct run *run = OWNER(watch, struct run, in);
    if (events & (EPOLLERR | EPOLLHUP))
        run->stdin.broken = true; /* The program has closed its stdin. */
    run_pump(run);
}

static void out_ready(struct watch *watch, u32 events)
{
    (void)events;
    run_pump(OWNER(watch, struct run, out));
}

static void mark_passed(struct mark *mark) { run_pump(OWNER(mark, struct run, mark)); }

static void sweep_over(struct timer *timer)
{
    struct run *run = OWNER(timer, struct run, sweep);
    run->swept = true;
    run_pump(run);
}

/* ---- the end ---- */

static void end_run(struct run *run)
{
    struct run **place = &runs;
    struct slot *slot = run->slot, *lost = run->lost;
    int status = exit_status(run->status);
    while (*place != run)
        place = &(*place)->next;
    *place = run->next;
    output_forget(&run->mark);
    output_remove(&run->err);
    outbox_clear(&run->stdin);
    loop_close(&run->in);
    loop_close(&run->out);
    loop_clear_timer(&run->sweep);
    pages_drop(run, sizeof *run);
    runs_now--;
    if (slot)
        slot_done(slot);
    if (lost)
        slot_redial(lost);
    if (flags.once)
        init_end(status);
}

static void send_last_chunk(struct run *run)
{
    static struct line line;
    int signal = run->status & 0x7f;
    line.size = 0;
    put(&line, signal ? "0\r\nx-hearth-signal: " : "0\r\nx-hearth-status: ");
    put_number(&line, (u64)(signal ? signal : run->status >> 8 & 0xff));
    put(&line, "\r\nx-hearth-exec: ");
    put_number(&line, run->took / 1000000);
    put(&line, ".");
    for (u64 digit = 100000; digit; digit /= 10)
        put_number(&line, run->took / digit % 10);
    put(&line, "\r\n\r\n");
    outbox_send(&run->slot->out, line.data, line.size);
}

/* Kill what the run has left. Return whether it is gone. */
static bool sweep(struct run *run)
{
    if (run->swept)
        return true;
    program_kill(run->pid);
    if (runs_now == 1 && main_pid <= 0) {
        kill_everything();
        if (program_reap() && sys_getpid() == 1) {
            if (!run->sweep.set)
                loop_set_timer(&run->sweep, SWEEP_MS, sweep_over);
            return false;
        }
    }
    loop_clear_timer(&run->sweep);
    run->swept = true;
    return true;
}

bool run_ended(int pid, int status)
{
    struct run *run = runs;
    while (run && (run->pid != pid || run->over))
        run = run->next;
    if (!run)
        return false;
    run->over = true;
    run->status = status;
    run->took = loop_microseconds() - run->began;
    int printed = 0;
    SYS(NR_IOCTL, run->out.fd, FIONREAD, &printed);
    run->left = (u64)(printed > 0 ? printed : 0);
    /* From the loop: whoever reaps may be in the middle of another run. */
    loop_again(&run->out);
    return true;
}

/* ---- what passes ---- */

static void pass_stdin(struct run *run)
{
    struct slot *slot = run->slot;
    for (int round = 0; slot && !run->over && run->in.fd >= 0 && outbox_flush(&run->stdin); round++) {
        if (round == ROUNDS) {
            loop_again(&run->in);
            return;
        }
        struct text part = slot_body(slot);
        enum body_state state = slot->head.body.state;
        if (part.size > 0)
            outbox_send(&run->stdin, part.at, (u32)part.size);
        if (state == BODY_DONE && outbox_flush(&run->stdin))
            loop_close(&run->in);
        if (state == BODY_BAD)
            program_kill(run->pid);
        if (part.size == 0)
            break;
    }
}

/* Pass on stdout. Return whether all of it has been, as far as the run wrote it before its end. */
static bool pass_stdout(struct run *run)
{
    for (int round = 0; run->slot && outbox_flush(&run->slot->out); round++) {
        u64 size = run->over && run->left < PIECE ? run->left : PIECE;
        if (round == ROUNDS) {
            loop_again(&run->out);
            return false;
        }
        long count = size ? sys_read(run->out.fd, piece + CHUNK_HEAD, size) : 0;
        if (count == -EAGAIN && !run->over)
            return false;
        if (count <= 0)
            return true;
        run->left -= run->over ? (u64)count : 0;
        send_piece(run->slot, (u32)count);
    }
    return run->slot == NULL;
}

static void run_pump(struct run *run)
{
    pass_stdin(run);
    bool passed = pass_stdout(run);
    if (!run->over || !sweep(run) || !passed)
        return;
    if (run->slot && run->mark.waits)
        return;
    if (run->slot && !run->told) {
        run->told = true;
        if (!output_mark(&run->mark, &run->err, mark_passed))
            return;
    }
    if (run->slot)
        send_last_chunk(run);
    end_run(run);
}

/* ---- the start ---- */

static void refuse(struct slot *slot, struct order *order, struct launch failure)
{
    static struct line line;
    line.size = 0;
    put(&line, "cannot run ");
    put(&line, order->program.arguments[0]);
    if (failure.folder_failed) {
        put(&line, " in the folder ");
        put(&line, order->program.folder);
    }
    put(&line, ": ");
    put(&line, error_text(failure.pid));
    line.data[line.size < sizeof line.data ? line.size : sizeof line.data - 1] = 0;
    order_drop(order);
    slot_answer(slot, 500, "not-runnable", "NotRunnable", line.data);
}

/* Make the pipes of a run and start it. The program's ends are closed again here. */
static struct launch start(struct run *run, struct program *program)
{
    struct launch launch = {0, false};
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    int err = output_add(&run->err, flags.log_limit);
    long failed = err < 0 ? err : SYS(NR_PIPE2, in, O_CLOEXEC);
    if (failed >= 0)
        failed = SYS(NR_PIPE2, out, O_CLOEXEC);
    if (failed >= 0) {
        SYS(NR_FCNTL, in[1], F_SETFL, O_NONBLOCK);
        SYS(NR_FCNTL, out[0], F_SETFL, O_NONBLOCK);
        program->in = in[0];
        program->out = out[1];
        program->err = err;
        run->began = loop_microseconds();
        launch = program_start(program);
        failed = launch.pid;
    }
    const int theirs[] = {in[0], out[1], err}, ours[] = {in[1], out[0]};
    for (int i = 0; i < 3; i++)
        if (theirs[i] >= 0)
            sys_close(theirs[i]);
    for (int i = 0; i < 2; i++)
        if (failed < 0 && ours[i] >= 0)
            sys_close(ours[i]);
    launch.pid = (int)failed;
    if (failed < 0)
        return launch;
    loop_add(&run->in, in[1], in_ready);
    loop_add(&run->out, out[0], out_ready);
    return launch;
}

void run_begin(struct slot *slot)
{
    static const char head[] = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
                               "trailer: x-hearth-status, x-hearth-signal, x-hearth-exec\r\n\r\n";
    struct order order;
    const char *mistake = order_read(&order, &slot->head);
    struct run *run = mistake ? NULL : pages_get(sizeof *run);
    if (!run) {
        order_drop(&order);
        slot_answer(slot, 400, "bad-request", "BadRequest", mistake ? mistake : "no memory");
        return;
    }
    run->in.fd = run->out.fd = run->err.watch.fd = -1;
    run->stdin.watch = &run->in;
    struct launch launch = start(run, &order.program);
    if (launch.pid < 0) {
        output_remove(&run->err);
        pages_drop(run, sizeof *run);
        refuse(slot, &order, launch);
        return;
    }
    order_drop(&order);
    run->pid = launch.pid;
    run->slot = slot;
    run->next = runs;
    runs = run;
    runs_now++;
    runs_ever++;
    slot->verb = &run_verb;
    slot->work = run;
    outbox_send(&slot->out, head, sizeof head - 1);
    run_pump(run);
}

void runs_swept(void)
{
    for (struct run *run = runs; run; run = run->next)
        if (run->over && !run->swept)
            loop_again(&run->out);
}

u32 runs_signal(int signal)
{
    for (struct run *run = runs; run; run = run->next)
        if (!run->over)
            SYS(NR_KILL, -run->pid, signal);
    return runs_now;
}
