//! The fence around system calls.
//!
//! What no agent has business with is refused with an error, and the refusal is an effect: the call never begins, but
//! its end is recorded. `clone3` passes its flags in memory, which a filter can't read: it is answered as by a kernel
//! without it, so that libc falls back to `clone`, whose flags are checked. Calls of another instruction set (ia32, 32-bit
//! arm) end the program; those of x32 are answered as unknown.

use crate::error::{Code, Error, Result};
use crate::gate::Allowance;
use nix::libc;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule};
use std::collections::BTreeMap;

/// `open_tree_attr`, Linux 6.15, the same number everywhere.
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// Refused to everybody.
const NEVER: [i64; 11] = [
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
];
const IO_URING: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
const MOUNTS: [i64; 13] = [
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
];
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Of the clock; among the flags of `clone` its bit belongs to the signal.
const CLONE_NEWTIME: libc::c_int = 0x80;
const NETLINK_ROUTE: u64 = 0;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiled before the process that it fences exists.
pub(super) struct Filter {
    programs: Vec<BpfProgram>,
}

impl Filter {
    /// Everything that is refused, but for what is allowed.
    pub(super) fn new(allowed: &[Allowance]) -> Result<Self> {
        Self::compile(allowed).map_err(|error| failed(&error))
    }

    fn compile(allowed: &[Allowance]) -> Result<Self, seccompiler::BackendError> {
        let mut refused: Rules = NEVER.iter().map(|nr| (*nr, Vec::new())).collect();
        let mut programs = Vec::new();
        if !allowed.contains(&Allowance::IoUring) {
            refused.extend(IO_URING.iter().map(|nr| (*nr, Vec::new())));
        }
        if !allowed.contains(&Allowance::Namespaces) {
            refused.extend(MOUNTS.iter().map(|nr| (*nr, Vec::new())));
            refused.insert(libc::SYS_clone, any_of(&NAMESPACES)?);
            refused.insert(libc::SYS_unshare, any_of(&[&NAMESPACES[..], &[CLONE_NEWTIME]].concat())?);
            programs.push(program([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)?);
        }
        programs.push(program(refused, libc::EPERM)?);
        let sockets = [libc::SYS_socket, libc::SYS_socketpair];
        let families = sockets.into_iter().map(|nr| Ok((nr, other_families()?))).collect::<Result<_, _>>()?;
        programs.push(program(families, libc::EAFNOSUPPORT)?);
        Ok(Self { programs })
    }

    /// Puts it around this process for good.
    pub(super) fn apply(&self) -> Result<()> {
        self.programs
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program).map_err(|e| failed(&e)))
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::new(Code::SandboxFailed, format!("cannot build the sandbox (seccomp): {error}"))
}

fn program(rules: Rules, errno: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, std::env::consts::ARCH.try_into()?)?;
    let compiled: BpfProgram = filter.try_into()?;
    Ok(without_x32(compiled))
}

/// x32 calls have numbers of their own under the same architecture, so no rule knows them.
fn without_x32(compiled: BpfProgram) -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let mut all = Vec::new();
    if cfg!(target_arch = "x86_64") {
        let step = |code: u32, jf, k| seccompiler::sock_filter { code: code as u16, jt: 0, jf, k };
        all.push(step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0));
        all.push(step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32));
        all.push(step(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ));
    }
    all.extend(compiled);
    all
}

/// One rule for each bit of the first argument.
fn any_of(flags: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let one = |flag: &libc::c_int| {
        let bit = u64::from(flag.cast_unsigned());
        SeccompRule::new(vec![SeccompCondition::new(0, Dword, MaskedEq(bit), bit)?])
    };
    flags.iter().map(one).collect()
}

/// Every family but unix, inet, inet6 and the routes of netlink.
fn other_families() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let is_not = |family: libc::c_int| SeccompCondition::new(0, Dword, Ne, u64::from(family.cast_unsigned()));
    let netlink = SeccompCondition::new(0, Dword, Eq, u64::from(libc::AF_NETLINK.cast_unsigned()))?;
    Ok(vec![
        SeccompRule::new(known.into_iter().map(is_not).collect::<Result<_, _>>()?)?,
        SeccompRule::new(vec![netlink, SeccompCondition::new(2, Dword, Ne, NETLINK_ROUTE)?])?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::catalogue::FENCED;

    #[test]
    fn evidence_knows_every_call_that_is_refused_by_name() {
        let mut ours: Vec<i64> = [&NEVER[..], &IO_URING, &MOUNTS].concat();
        ours.extend([libc::SYS_clone, libc::SYS_unshare, libc::SYS_socket, libc::SYS_socketpair]);
        ours.sort_unstable();
        assert_eq!(FENCED.iter().map(|(nr, _)| i64::from(*nr)).collect::<Vec<_>>(), ours);
    }

    #[test]
    fn every_combination_of_allowances_compiles() {
        let all = [Allowance::IoUring, Allowance::Namespaces];
        for allowed in [&[][..], &all[..1], &all[1..], &all] {
            Filter::new(allowed).unwrap();
        }
    }
}
