// Where each architecture keeps a syscall's number and arguments, and how it tells a program of another ABI.
#pragma once

#include "kernel.h"
#include "record.h"

#ifdef __TARGET_ARCH_x86

#define TS_COMPAT 2
#define X32_BIT 0x40000000

static __always_inline u32 foreign_abi(struct task_struct *task, struct pt_regs *regs, long nr)
{
    return task->thread_info.status & TS_COMPAT ? MARK_IA32 : nr & X32_BIT && nr > 0 ? MARK_X32 : 0;
}

static __always_inline void read_arguments(u64 *arguments, struct pt_regs *regs)
{
    arguments[0] = regs->di;
    arguments[1] = regs->si;
    arguments[2] = regs->dx;
    arguments[3] = regs->r10;
    arguments[4] = regs->r8;
    arguments[5] = regs->r9;
}

static __always_inline s32 number_at_exit(struct pt_regs *regs)
{
    return regs->orig_ax;
}

// At the end of a call: nobody has changed the arguments since.
static __always_inline u64 first_at_exit(struct pt_regs *regs)
{
    return regs->di;
}

static __always_inline u64 second_argument(struct pt_regs *regs)
{
    return regs->si;
}

static __always_inline u64 third_argument(struct pt_regs *regs)
{
    return regs->dx;
}

#else

// Bit of the processor's own state: the program runs 32-bit instructions.
#define PSR_MODE32_BIT 0x10

static __always_inline u32 foreign_abi(struct task_struct *task, struct pt_regs *regs, long nr)
{
    return regs->pstate & PSR_MODE32_BIT ? MARK_AARCH32 : 0;
}

// The first one as the tracer of the call left it; the result takes its place only when the call ends.
static __always_inline void read_arguments(u64 *arguments, struct pt_regs *regs)
{
    arguments[0] = regs->regs[0];
    arguments[1] = regs->regs[1];
    arguments[2] = regs->regs[2];
    arguments[3] = regs->regs[3];
    arguments[4] = regs->regs[4];
    arguments[5] = regs->regs[5];
}

static __always_inline s32 number_at_exit(struct pt_regs *regs)
{
    return regs->syscallno;
}

// At the end of a call the result stands where the first argument was; the kernel keeps that one for restarts.
static __always_inline u64 first_at_exit(struct pt_regs *regs)
{
    return regs->orig_x0;
}

static __always_inline u64 second_argument(struct pt_regs *regs)
{
    return regs->regs[1];
}

static __always_inline u64 third_argument(struct pt_regs *regs)
{
    return regs->regs[2];
}

#endif
