//! What both sides believe of the same bytes: Rust and the object of the records, the object and the kernel of the kernel's types.

use crate::btf::Btf;
use assay_gates::capture::embedded;
use assay_gates::capture::raw::{Counters, HOOKS, Header};
use std::mem::offset_of;

#[test]
fn records_have_the_same_layout_in_rust_and_in_the_object() {
    let object = Btf::of_object(embedded().unwrap().bytes);
    let (size, members) = object.composite("record").unwrap();
    assert_eq!(size as usize, size_of::<Header>());
    macro_rules! header {
        ($($field:ident),*) => { [$((stringify!($field), offset_of!(Header, $field))),*] };
    }
    let ours =
        header!(size, kind, hook, time_ns, cgroup_id, call, pid, tid, serial, seq, nr, marks, ret, a, b, c);
    assert_eq!(members.len(), ours.len());
    for (name, offset) in ours {
        assert_eq!(members[name] as usize, offset, "record.{name}");
    }

    let (size, members) = object.composite("counters").unwrap();
    assert_eq!(size as usize, size_of::<Counters>());
    macro_rules! counters {
        ($($field:ident),*) => { [$((stringify!($field), offset_of!(Counters, $field))),*] };
    }
    let ours = counters!(
        emitted,
        dropped,
        bytes,
        enters,
        exits,
        births,
        deaths,
        storage_fail,
        map_fail,
        read_fault,
        truncated,
        unknown_state,
        sendto_no_peer,
        sendmsg_no_peer,
        sendto_non_ip,
        sendmsg_non_ip
    );
    assert_eq!(members.len(), ours.len());
    for (name, offset) in ours {
        assert_eq!(members[name] as usize, offset, "counters.{name}");
    }
}

#[test]
fn constants_are_the_same_in_rust_and_in_the_header() {
    use assay_gates::capture::raw::{kind, mark, segment, state};
    let header = include_str!("../../ebpf/record.h");
    let value = |name: &str| -> u64 {
        let line = header
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{name} =")))
            .unwrap_or_else(|| panic!("{name}"));
        let expression = line.split('=').nth(1).unwrap().split(',').next().unwrap().trim();
        match expression.split_once(" << ") {
            Some((one, bits)) => one.parse::<u64>().unwrap() << bits.parse::<u64>().unwrap(),
            None => expression.parse().unwrap(),
        }
    };
    macro_rules! same {
        ($prefix:literal, $module:ident, $($name:ident),*) => {
            $(assert_eq!(u64::from($module::$name), value(concat!($prefix, stringify!($name))));)*
        };
    }
    same!(
        "RECORD_",
        kind,
        SYSCALL,
        BIRTH,
        EXEC,
        EXIT,
        ATTACH,
        ADDRESS,
        URING_SUBMIT,
        URING_COMPLETE,
        EXIT_ONLY,
        ENTER_TWICE,
        FOREIGN
    );
    same!(
        "MARK_", mark, TOCTOU, SHARED_FDS, FD_GONE, IN_SYSCALL, OUTSIDE, ROOT, IA32, X32, READ_FAULT,
        NO_STORAGE, SCRIPT, AARCH32
    );
    same!("SEGMENT_", segment, FILE, BASE, REQUESTED, BASE2, REQUESTED2, ADDRESS, INTERPRETER);
    same!("STATE_", state, DELETED, DETACHED, FOREIGN, TRUNCATED, ANONYMOUS, FAULT);
    let hooks: Vec<&str> =
        header.lines().filter_map(|line| line.trim().strip_prefix("HOOK_")?.strip_suffix(',')).collect();
    assert_eq!(
        hooks.iter().map(|hook| hook.to_lowercase()).collect::<Vec<_>>(),
        HOOKS.map(|hook| hook.replace("io_uring", "uring"))
    );
}

/// `struct name { member, member }` of ebpf/kernel.h, by its own text.
fn kernel_types() -> Vec<(String, Vec<String>)> {
    let mut types = Vec::new();
    let mut open: Option<(String, Vec<String>)> = None;
    let here = if cfg!(target_arch = "x86_64") { "__TARGET_ARCH_x86" } else { "__TARGET_ARCH_arm64" };
    let mut elsewhere = false;
    for line in include_str!("../../ebpf/kernel.h").lines() {
        let words = line.trim();
        if words.starts_with("#if ") || words.starts_with("#elif ") {
            elsewhere = !words.contains(here);
        } else if words == "#endif" {
            elsewhere = false;
        }
        if elsewhere {
            continue;
        }
        if let Some(name) = words.strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {")) {
            open = Some((name.to_owned(), Vec::new()));
        } else if words == "typedef struct {" {
            open = Some((String::new(), Vec::new()));
        } else if let Some(name) =
            words.strip_prefix("} ").or(words.strip_prefix('}')).and_then(|rest| rest.strip_suffix(';'))
        {
            let (mut found, members) = open.take().unwrap();
            if found.is_empty() {
                found = name.to_owned();
            }
            types.push((found, members));
        } else if let (Some((_, members)), Some(declaration)) = (&mut open, words.strip_suffix(';')) {
            let names = declaration.split(',').map(|part| {
                part.trim().rsplit([' ', '*']).next().unwrap().split('[').next().unwrap().to_owned()
            });
            members.extend(names);
        }
    }
    types
}

#[test]
fn every_kernel_member_that_the_programs_name_exists_in_this_kernel() {
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return assert!(!crate::support::need_root(), "root on a kernel without BTF");
    }
    let kernel = Btf::of_kernel();
    let types = kernel_types();
    assert!(types.len() > 25, "{types:?}");
    let delayed = kernel.composite("delayed_filename").is_some();
    for (name, members) in types {
        // One of two forms: which of them a kernel has is decided at load.
        let (name, form) = name.split_once("___").unwrap_or((&name, ""));
        if !delayed && (form == "delayed" || name == "delayed_filename") {
            continue;
        }
        let (_, found) = kernel.composite(name).unwrap_or_else(|| panic!("the kernel has no {name}"));
        for member in members {
            assert!(found.contains_key(&member), "the kernel's {name} has no {member}");
        }
    }
}
