//! The catalogue: against the kernel that runs, and each recorded operation against a program that does it.

use crate::btf::Btf;
use crate::session::{Session, complete, program, record};
use crate::support;
use assay_gates::capture::catalogue::{self, Syscall};
use assay_gates::capture::{Effect, Operation, PathState};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

#[test]
fn every_syscall_of_the_running_kernel_is_in_the_catalogue() {
    let btf = Btf::of_kernel();
    let prefix = if cfg!(target_arch = "x86_64") { "__x64_sys_" } else { "__arm64_sys_" };
    let native: Vec<&str> = btf.functions.iter().filter_map(|name| name.strip_prefix(prefix)).collect();
    assert!(native.len() > 280, "{}", native.len());
    let missing: Vec<&str> = native.into_iter().filter(|name| !catalogue::embedded().knows(name)).collect();
    assert_eq!(missing, [] as [&str; 0], "neither in the catalogue nor one of its other names");
}

#[test]
fn every_ring_operation_and_socket_family_of_headers_and_kernel_is_in_the_catalogue() {
    let rings: BTreeMap<String, i32> = catalogue::embedded()
        .io_uring()
        .iter()
        .map(|row| (format!("IORING_OP_{}", row.name), row.opcode))
        .collect();
    let btf = Btf::of_kernel();
    let theirs: Vec<(&String, &i32)> = btf
        .enumerators
        .iter()
        .filter(|(name, _)| name.starts_with("IORING_OP_") && *name != "IORING_OP_LAST")
        .collect();
    assert!(theirs.len() > 40);
    for (name, opcode) in theirs {
        assert_eq!(rings.get(name), Some(opcode), "{name}");
    }
    let families: BTreeSet<i32> = catalogue::embedded().families().iter().map(|row| row.family).collect();
    let header = format!("/usr/include/{}-linux-gnu/bits/socket.h", std::env::consts::ARCH);
    let header = std::fs::read_to_string(header).unwrap();
    let theirs: Vec<i32> = header
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("#define")?.split_whitespace();
            let name = words.next()?;
            (name.starts_with("PF_") && name != "PF_MAX").then(|| words.next()?.parse().ok())?
        })
        .collect();
    assert!(theirs.len() > 40);
    for family in theirs {
        assert!(families.contains(&family), "family {family}");
    }
}

/// `operation syscall path (state) -> target endpoint [detail] = result`.
fn said(effect: &Effect) -> String {
    let mut text = format!("{} {}", effect.operation.name(), effect.syscall);
    if let Some(path) = &effect.path {
        text += &format!(" {}", path.value);
        if path.state != PathState::Resolved {
            text += &format!(" ({})", serde_json::to_value(path.state).unwrap().as_str().unwrap());
        }
    }
    if let Some(target) = &effect.target {
        text += &format!(" -> {}", target.value);
    }
    if let Some(endpoint) = &effect.endpoint {
        text += &format!(" {endpoint}");
    }
    if let Some(detail) = &effect.detail {
        text += &format!(" [{detail}]");
    }
    format!("{text} = {}", effect.return_value.unwrap())
}

#[test]
fn every_operation_beyond_files_and_peers_is_recorded_as_what_it_is() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, include_str!("programs/beyond.c"), &["-static"]);
    let (recording, mut expected) = record(&session, &mut Command::new(&image));
    assert_eq!(recording.summary.outcome.exit_code, Some(0), "{expected:?}");
    let effects = complete(&recording);
    let tasks = [Operation::Fork, Operation::Exit, Operation::CgroupAttach, Operation::Exec];
    let found: Vec<String> =
        effects.iter().filter(|effect| !tasks.contains(&effect.operation)).map(said).collect();
    expected.retain(|line| !line.is_empty());
    assert_eq!(found, expected);
}

/// Successful as root, whatever their arguments; or without a record when there is no address to read.
const NOT_TRIED: [&str; 4] = ["vhangup", "sendto", "sendmsg", "sendmmsg"];

/// A program that makes each of them once, with arguments that none of them takes; the same text for every architecture.
pub fn one_call_of_each() -> String {
    let calls = |number: fn(&Syscall) -> Option<i32>| -> String {
        let recorded = catalogue::embedded()
            .syscalls()
            .iter()
            .filter(|row| row.treatment.operation.is_some() && row.treatment.hook.is_none())
            .filter(|row| !NOT_TRIED.contains(&row.name.as_str()));
        let call = |row: &Syscall| {
            Some(format!("CALL(\"{}\", {}, -1, -1, -1, -1, -1, -1);\n", row.name, number(row)?))
        };
        recorded.filter_map(call).collect()
    };
    let (x86_64, generic) = (calls(|row| row.x86_64), calls(|row| row.generic));
    format!(
        "#include \"say.h\"\nint main(void)\n{{\n#ifdef __x86_64__\n{x86_64}#else\n{generic}#endif\nreturn 0;\n}}\n"
    )
}

#[test]
fn every_syscall_that_the_catalogue_calls_recorded_leaves_exactly_one_effect() {
    if !support::need_root() {
        return;
    }
    let session = Session::new();
    let image = program(&session, &one_call_of_each(), &["-static"]);
    let (recording, expected) = record(&session, &mut Command::new(&image));
    assert_eq!(recording.summary.outcome.exit_code, Some(0), "{expected:?}");
    let tasks = [Operation::Fork, Operation::Exit, Operation::CgroupAttach];
    let found: Vec<String> = complete(&recording)
        .iter()
        .filter(|effect| !tasks.contains(&effect.operation))
        .skip(1) // the program's own exec
        .map(|effect| format!("{} = {}", effect.syscall, effect.return_value.unwrap()))
        .collect();
    assert!(expected.len() > 100, "{}", expected.len());
    assert_eq!(found, expected);
}
