//! Numbers of syscalls on both architectures: the catalogue against the kernel's headers, and the kernel programs' own table against the
//! catalogue.

use assay_gates::capture::catalogue::{self, Syscall};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// What arm64 asks of the generic table.
const ASKED: [&str; 6] =
    ["RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3", "MEMFD_SECRET"];
/// Of the header alone: where the syscalls of one architecture may begin, and how many there are.
const NO_SYSCALLS: [&str; 2] = ["arch_specific_syscall", "syscalls"];

/// Syscalls that got a number between older ones.
const LATE: [&str; 2] = ["uretprobe", "uprobe"];

type Number = fn(&Syscall) -> Option<i32>;

/// Number of each syscall that a header defines, as the preprocessor sees it.
fn of_header(header: &str, flags: &[String]) -> BTreeMap<String, i32> {
    let mut preprocessor = Command::new("cc")
        .args(["-E", "-dM", "-x", "c", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(preprocessor.stdin.take().unwrap(), "#include <{header}>").unwrap();
    let output = preprocessor.wait_with_output().unwrap();
    assert!(output.status.success(), "{header}");
    let text = String::from_utf8(output.stdout).unwrap();
    let defined: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' ')).collect();
    let mut calls = BTreeMap::new();
    for (name, value) in &defined {
        let mut value = *value;
        while let Some(behind) = defined.get(value) {
            value = behind;
        }
        let name = name.strip_prefix("__NR_").filter(|name| !NO_SYSCALLS.contains(name));
        if let (Some(name), Ok(number)) = (name, value.parse()) {
            calls.insert(name.to_owned(), number);
        }
    }
    calls
}

fn of_catalogue(number: Number) -> BTreeMap<String, i32> {
    let rows = catalogue::embedded().syscalls().iter();
    rows.filter_map(|row| Some((row.name.clone(), number(row)?))).collect()
}

#[test]
fn the_numbers_of_the_headers_are_those_of_the_catalogue() {
    let asked: Vec<String> = ASKED.iter().map(|what| format!("-D__ARCH_WANT_{what}")).collect();
    let generic = [asked, vec!["-D__BITS_PER_LONG=64".into()]].concat();
    let native: Number = Syscall::number;
    for (header, flags, number) in
        [("asm/unistd.h", Vec::new(), native), ("asm-generic/unistd.h", generic, |row| row.generic)]
    {
        let (theirs, mut ours) = (of_header(header, &flags), of_catalogue(number));
        assert!(theirs.len() > 300, "{header}: {}", theirs.len());
        // What came after the kernel whose headers these are: numbers only grow since Linux 5.1, but for those named.
        let newest = *theirs.values().max().unwrap();
        ours.retain(|name, number| {
            *number <= newest && (!LATE.contains(&name.as_str()) || theirs.contains_key(name))
        });
        assert_eq!(ours, theirs, "{header}");
    }
}

/// `ebpf/numbers.h`.
fn table() -> String {
    let mut text = "// Numbers of the syscalls of src/capture/catalogue.yaml, on each architecture. Generated from there: a test compares both, and writes \
                    this file\n// anew where UPDATE_NUMBERS is set.\n#pragma once\n"
        .to_owned();
    let tables: [(&str, Number); 2] = [("x86", |row| row.x86_64), ("arm64", |row| row.generic)];
    for (architecture, number) in tables {
        let mut rows: Vec<(i32, String)> =
            of_catalogue(number).into_iter().map(|(name, number)| (number, name)).collect();
        rows.sort();
        text += &format!("\n#ifdef __TARGET_ARCH_{architecture}\n");
        rows.iter().for_each(|(number, name)| text += &format!("#define NR_{name} {number}\n"));
        text += "#endif\n";
    }
    text
}

#[test]
fn the_numbers_that_the_kernel_programs_are_compiled_with_are_those_of_the_catalogue() {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf/numbers.h");
    if std::env::var_os("UPDATE_NUMBERS").is_some() {
        std::fs::write(place, table()).unwrap();
    }
    assert_eq!(include_str!("../../ebpf/numbers.h"), table(), "UPDATE_NUMBERS=1 writes it anew");
}
