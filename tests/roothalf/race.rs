//! Somebody who can change the folder itself swaps what lies in it for links, while root writes there.

use assay_gates::files::RootPath;
use assay_gates::host::rights::Rights;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SWAPS: u64 = 10_000;

/// Exchanges two names in one step.
fn exchange(a: &Path, b: &Path) {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let _one_of_them_may_be_gone = renameat2(AT_FDCWD, a, AT_FDCWD, b, RenameFlags::RENAME_EXCHANGE);
}

#[test]
fn ten_thousand_swaps_of_a_folder_for_a_link_change_nothing_outside() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    std::fs::create_dir_all(outside.join("run-1")).unwrap();
    for name in ["verdict.json", "gate.log", "run-1/stdout.log"] {
        std::fs::write(outside.join(name), "keep").unwrap();
    }
    let root = RootPath::create(&home.path().join("root"), Rights::own()).unwrap();
    let (folder, link) = (home.path().join("root/gate"), home.path().join("root/link"));
    std::fs::create_dir(&folder).unwrap();
    symlink(&outside, &link).unwrap();
    let (over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let written = std::thread::scope(|scope| {
        scope.spawn(|| {
            while swaps.fetch_add(1, Ordering::Relaxed) < SWAPS {
                exchange(&folder, &link);
                let _there_again = std::fs::create_dir(&folder);
                let _there_again = symlink(&outside, &link);
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut written = [0_u64; 6];
        while !over.load(Ordering::Relaxed) {
            let gate = root.join("gate");
            let done = [
                gate.join("verdict.json").write(b"mine").is_ok(),
                gate.join("gate.log").append().is_ok_and(|mut log| log.write_all(b"mine").is_ok()),
                gate.join("run-1").create_folder().is_ok(),
                gate.join("run-1/stdout.log")
                    .create_file()
                    .is_ok_and(|mut log| log.write_all(b"mine").is_ok()),
                gate.join("run-1").remove().is_ok(),
                gate.join("verdict.json").read().is_ok_and(|text| text.is_none_or(|text| text == b"mine")),
            ];
            for (count, done) in written.iter_mut().zip(done) {
                *count += u64::from(done);
            }
        }
        written
    });
    assert!(swaps.load(Ordering::Relaxed) >= SWAPS);
    assert!(written.iter().all(|count| *count > 0), "the race was not run: {written:?}");
    let mut left: Vec<String> = walk(&outside);
    left.sort();
    assert_eq!(left, ["gate.log", "run-1", "run-1/stdout.log", "verdict.json"]);
    for name in ["verdict.json", "gate.log", "run-1/stdout.log"] {
        assert_eq!(std::fs::read_to_string(outside.join(name)).unwrap(), "keep", "{name}");
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next).unwrap().flatten() {
            names.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    names
}

/// The one door: where paths of a proof root are used, no file is opened in another way.
#[test]
fn no_module_of_the_root_half_opens_files_by_a_path_of_its_own() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules = [
        "run",
        "pack/root.rs",
        "pack/build.rs",
        "pack/zip_writer.rs",
        "evidence/assemble.rs",
        "evidence/effects.rs",
        "evidence/logs.rs",
        "host/output.rs",
        "cli/run/measuring.rs",
    ];
    // Each with the reason why it is no path of a root.
    let excused = [
        ("evidence/effects.rs", "std::fs::File::open(path)", "the reader of `verify` and of users' files"),
        ("run/unfinished.rs", "std::fs::read_to_string(\"/proc/stat\")", "the kernel's word, not a root's"),
        ("run/root.rs", "std::fs::read(&file)", "the policy of a fixture, read with the caller's rights"),
    ];
    let mut files = Vec::new();
    for module in modules {
        let path = source.join(module);
        match path.is_dir() {
            true => files.extend(walk(&path).into_iter().map(|name| format!("{module}/{name}"))),
            false => files.push(module.to_owned()),
        }
    }
    for file in files.iter().filter(|file| !file.ends_with("tests.rs") && !source.join(file).is_dir()) {
        let text = std::fs::read_to_string(source.join(file)).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in text.lines().enumerate() {
            let by_path = [
                "std::fs::",
                "File::open",
                "File::create",
                "OpenOptions",
                "tempfile::",
                " write_atomic(",
                " write_json(",
            ]
            .iter()
            .any(|call| line.contains(call));
            let harmless = line.contains("std::fs::File>") || line.trim_start().starts_with("//");
            let excuse = excused.iter().any(|(at, call, _)| file == at && line.contains(call));
            assert!(!by_path || harmless || excuse, "src/{file}:{}: {line}", number + 1);
        }
    }
}
