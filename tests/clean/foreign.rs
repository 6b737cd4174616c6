//! What the runner's user could not remove or use itself, and what stands there afterwards.

use crate::host::Host;
use crate::support::need_root;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The runner of the host file, `nobody`.
const RUNNER: (u32, u32) = (65_534, 65_534);

fn owned(path: &Path, mode: u32, owner: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Everything below the runner's folder is the runner's.
fn all_of_the_runner(host: &Host) {
    std::fs::set_permissions(host.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let mut pending = vec![host.path("runner")];
    while let Some(path) = pending.pop() {
        let found = path.symlink_metadata().unwrap();
        owned(&path, if found.is_dir() { 0o755 } else { 0o644 }, RUNNER.0);
        if found.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// The runner's user removes the folder as its next job would.
fn the_runner_removes(path: &Path) -> bool {
    let mut command = Command::new("rm");
    command.arg("-r").arg(path).uid(RUNNER.0).gid(RUNNER.1).stdin(std::process::Stdio::null());
    command.output().unwrap().status.success()
}

fn before_download(host: &Host) -> String {
    let output = host.clean("before-download", &["--apply"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_entry_of_temp_goes_exactly_when_the_runner_could_not_remove_it() {
    if !need_root() {
        return;
    }
    // What is done to a tree a/b/c with the file f in it, at any depth.
    type Change = fn(&Path);
    let cases: [(&str, Change); 12] = [
        ("nothing", |_| {}),
        ("a file of root's in a folder of the runner's", |a| owned(&a.join("b/c/f"), 0o600, 0)),
        ("a folder of root's at the top", |a| owned(a, 0o755, 0)),
        ("a folder of root's in the middle", |a| owned(&a.join("b"), 0o755, 0)),
        ("a folder of root's at the bottom", |a| owned(&a.join("b/c"), 0o755, 0)),
        ("a folder of root's that all may write", |a| owned(&a.join("b/c"), 0o777, 0)),
        ("a sticky folder with a file of root's", |a| {
            owned(&a.join("b/c"), 0o1777, 0);
            owned(&a.join("b/c/f"), 0o644, 0);
        }),
        ("a sticky folder with a file of the runner's", |a| owned(&a.join("b/c"), 0o1777, 0)),
        ("an empty folder of root's", |a| {
            std::fs::remove_file(a.join("b/c/f")).unwrap();
            owned(&a.join("b/c"), 0o755, 0);
        }),
        ("a folder of the runner's without rights", |a| owned(&a.join("b"), 0o000, RUNNER.0)),
        ("a folder of the runner's that is read-only", |a| owned(&a.join("b/c"), 0o555, RUNNER.0)),
        ("a folder of a group of the runner's", |a| {
            chown(a.join("b/c"), Some(0), Some(RUNNER.1)).unwrap();
            std::fs::set_permissions(a.join("b/c"), PermissionsExt::from_mode(0o775)).unwrap();
        }),
    ];
    for (name, change) in cases {
        let host = Host::new();
        host.write("runner/_work/_temp/a/b/c/f", "x");
        host.write("runner/_work/_temp/beside", "x");
        all_of_the_runner(&host);
        let entry = host.path("runner/_work/_temp/a");
        change(&entry);
        let plan = before_download(&host);
        let planned = plan.contains("_temp/a ");
        assert_eq!(planned, !entry.exists(), "{name}: {plan}");
        // The runner itself is asked: a fresh tree of the same kind, without a cleanup.
        let fresh = Host::new();
        fresh.write("runner/_work/_temp/a/b/c/f", "x");
        all_of_the_runner(&fresh);
        let same = fresh.path("runner/_work/_temp/a");
        change(&same);
        assert_eq!(planned, !the_runner_removes(&same), "{name}: {plan}");
        assert!(host.path("runner/_work/_temp/beside").exists(), "{name}: what is the runner's stays");
    }
}

#[test]
fn every_folder_of_the_runner_is_usable_afterwards() {
    if !need_root() {
        return;
    }
    for folder in ["", "app", "app/app", "_temp", "_tool"] {
        for (mode, owner) in [(0o755, 0), (0o000, RUNNER.0), (0o555, RUNNER.0), (0o700, 12_345)] {
            for phase in ["before-download", "before-run", "after-run"] {
                let host = Host::new();
                for file in ["app/app/f", "_temp/f", "_tool/x/1/f"] {
                    host.write(&format!("runner/_work/{file}"), "x");
                }
                all_of_the_runner(&host);
                let at = host.path("runner/_work").join(folder);
                owned(&at, mode, owner);
                let output = host.clean(phase, &["--apply"]);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let found = at.metadata().unwrap();
                assert_eq!(
                    (found.uid(), found.mode() & 0o700),
                    (RUNNER.0, 0o700),
                    "{folder} {mode:o} {owner} {phase}"
                );
            }
        }
    }
}

#[test]
fn of_the_tools_only_the_versions_go_that_the_runner_could_not_replace() {
    if !need_root() {
        return;
    }
    let host = Host::new();
    for file in ["node/22/x64/node", "Python/3.12/x64/python", "Python/3.13/x64/python", "go/1.24/go"] {
        host.write(&format!("runner/_work/_tool/{file}"), "x");
    }
    all_of_the_runner(&host);
    owned(&host.path("runner/_work/_tool/Python/3.12/x64"), 0o755, 0);
    owned(&host.path("runner/_work/_tool/go"), 0o755, 0);
    before_download(&host);
    for (name, there) in
        [("node/22/x64/node", true), ("Python/3.12", false), ("Python/3.13/x64/python", true), ("go", false)]
    {
        assert_eq!(host.path("runner/_work/_tool").join(name).exists(), there, "{name}");
    }
}

#[test]
fn a_linked_work_folder_is_refused_with_the_key_that_names_where_it_leads() {
    let host = Host::new();
    std::fs::rename(host.path("runner/_work"), host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), host.path("runner/_work")).unwrap();
    let output = host.clean("before-run", &["--apply"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("hint:") && told.contains("runner: {work: /PATH}"), "{told}");
}
