//! Every row of the catalogue of unit properties, put on as systemd does, is refused by its name with the line that mends
//! it; and what is not in the catalogue is not needed.

use crate::support::need_root;
use assay_gates::host::cgroup::Parent;
use assay_gates::host::units::{Row, capability, catalogue, family, namespace, syscall};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// The tool, in mounts of its own that `prepare` changed first.
fn tool(prepare: &str, gate: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-e", "-c"]);
    command
        .arg(format!("{prepare}\nexec \"$@\""))
        .arg("sh")
        .arg(env!("CARGO_BIN_EXE_assay-gates"))
        .args(gate);
    command
}

fn filter(action: SeccompAction, rules: BTreeMap<i64, Vec<SeccompRule>>) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap().try_into().unwrap()
}

fn behind(command: &mut Command, program: BpfProgram) {
    let set = move || seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into());
    // SAFETY: two system calls with memory that was made before the fork.
    unsafe { command.pre_exec(set) };
}

fn argument(index: u8, op: SeccompCmpOp, value: u64) -> Vec<SeccompRule> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value).unwrap();
    vec![SeccompRule::new(vec![condition]).unwrap()]
}

/// One way to put the row on for each thing by which it is seen.
fn put_on(row: &Row, arguments: &[&str]) -> Vec<(String, Command)> {
    let seen = &row.seen;
    let mut ways: Vec<(String, Command)> = Vec::new();
    let mut with = |name: &str, prepare: &str| ways.push((name.to_owned(), tool(prepare, arguments)));
    for path in &seen.read_only {
        let path = match path.to_str() {
            Some("/sys/fs/cgroup") => Parent::find().unwrap().mount,
            _ => path.clone(),
        };
        let there = path.ancestors().find(|path| path.exists()).unwrap().display().to_string();
        // The top is not made read-only here: the tests' own machine stands on it.
        if there == "/var/lib/assay" {
            // A host that has no key yet.
            with(&there, &format!("unset ASSAY_REDACTION_KEY_FILE; mount -t tmpfs -o ro none {there}"));
        } else if there != "/" && there != "/var/lib" {
            with(&there, &format!("mount --bind {there} {there} && mount -o remount,bind,ro {there}"));
        }
    }
    for file in &seen.missing {
        with(&file.display().to_string(), "mount -t tmpfs none /proc/sys");
    }
    if seen.no_cgroup2 {
        let mount = Parent::find().unwrap().mount;
        // A hierarchy of version 1 goes with the last mount of it, which ends with this one's mounts.
        let version_1 =
            "mount -t tmpfs none /mnt; mkdir /mnt/v1; mount -t cgroup -o none,name=agunits none /mnt/v1";
        with("cgroup", &format!("{version_1}; umount -R {0} || umount -l {0}", mount.display()));
    }
    if seen.own_users {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", env!("CARGO_BIN_EXE_assay-gates")]).args(arguments);
        ways.push(("users".to_owned(), command));
    }
    for name in &seen.capabilities {
        let number = capability(name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
        command.args(arguments);
        // SAFETY: one system call with integers.
        unsafe {
            command.pre_exec(move || match libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        ways.push((name.clone(), command));
    }
    let mut filters: Vec<(String, BpfProgram)> = Vec::new();
    let errno = |errno: i32| SeccompAction::Errno(errno as u32);
    for name in &seen.syscalls {
        for action in [SeccompAction::KillProcess, errno(libc::EPERM)] {
            // An error of unshare alone is how RestrictNamespaces looks.
            if name == "unshare" && action != SeccompAction::KillProcess {
                continue;
            }
            filters.push((name.clone(), filter(action, [(syscall(name).unwrap(), Vec::new())].into())));
        }
    }
    for name in &seen.namespaces {
        let flag = namespace(name).unwrap() as u64;
        let rules = argument(0, SeccompCmpOp::MaskedEq(flag), flag);
        filters.push((name.clone(), filter(errno(libc::EPERM), [(libc::SYS_unshare, rules)].into())));
    }
    for name in &seen.families {
        let rules = argument(0, SeccompCmpOp::Eq, family(name).unwrap() as u64);
        filters.push((name.clone(), filter(errno(libc::EAFNOSUPPORT), [(libc::SYS_socket, rules)].into())));
    }
    if seen.executable {
        let both = (libc::PROT_WRITE | libc::PROT_EXEC) as u64;
        let rules = argument(2, SeccompCmpOp::MaskedEq(both), both);
        filters.push(("memory".to_owned(), filter(errno(libc::EPERM), [(libc::SYS_mmap, rules)].into())));
    }
    for (name, program) in filters {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
        command.args(arguments);
        behind(&mut command, program);
        ways.push((name, command));
    }
    ways
}

fn measure(root: &Path) -> Vec<String> {
    ["run", "--gate", "kernel-only", "--runs", "1", "--no-pack", "--root"]
        .into_iter()
        .map(str::to_owned)
        .chain([root.join("root").display().to_string()])
        .collect()
}

fn output(mut command: Command, folder: &Path) -> Output {
    command.env("ASSAY_GATES_STATE_DIR", folder.join("state")).env_remove("GITHUB_ACTIONS").output().unwrap()
}

#[test]
fn every_refused_property_ends_with_40_its_name_and_the_line_that_mends_it() {
    if !need_root() {
        return;
    }
    for row in catalogue().unwrap().refused {
        let folder = tempfile::tempdir().unwrap();
        let arguments = measure(folder.path());
        let ways = put_on(&row, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!ways.is_empty(), "{}: no way to put it on", row.property);
        for (name, command) in ways {
            let output = output(command, folder.path());
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.code(),
                Some(40),
                "{} ({name}): {:?} {told}",
                row.property,
                output.status
            );
            let hint = format!("  hint: in the systemd unit: {}\n", row.write);
            assert!(
                told.contains(&row.property) && told.contains(&hint),
                "{} ({name}): {told}",
                row.property
            );
        }
    }
}

/// With all the rest taken away it measures: the catalogue asks for nothing that is not needed.
#[test]
fn no_other_capability_is_needed() {
    if !need_root() {
        return;
    }
    let needed: Vec<u32> = catalogue()
        .unwrap()
        .refused
        .iter()
        .flat_map(|row| row.seen.capabilities.iter().filter_map(|name| capability(name)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay-gates"));
    command.args(measure(folder.path()));
    // SAFETY: system calls with integers.
    unsafe {
        command.pre_exec(move || {
            for number in (0..64).filter(|number| !needed.contains(number)) {
                // Numbers behind the last one are refused, and nothing is lost.
                let _behind_the_last = libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0);
            }
            Ok(())
        });
    }
    let output = output(command, folder.path());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("kernel-only run 1:") && told.contains("0 lost, complete"), "{told}");
}
