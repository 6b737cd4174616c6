//! The one door: every program that is started, and every file that is opened by a path, goes through `Rights` or
//! `RootPath`, or is listed here with the reason why nobody but root has a say in it.

use crate::stage::{UID, refused, stage, succeeded, text};
use crate::support::need_root;
use std::path::{Path, PathBuf};

/// What starts programs, and what opens, makes, lists or removes by a path.
const CALLS: [&str; 6] =
    ["Command::new(", "std::fs::", "File::open(", "File::create(", "OpenOptions::new()", "fs::read"];

/// What the kernel itself answers.
const KERNELS: [&str; 4] = ["\"/proc", "\"/sys", "\"/dev", "(\"/\")"];

/// Files and folders of the source, with what they call beside the door and why that is nobody's border.
const EXCUSED: &[(&str, &[&str], &str)] = &[
    // No root half: `cli::has_root_half` gives root's rights up before the first file; see the test below.
    ("triage/", &[""], "runs as whoever called"),
    ("github/", &[""], "runs as whoever called"),
    ("lane/", &[""], "runs as whoever called"),
    ("judge/diff/input.rs", &[""], "runs as whoever called"),
    ("pack/attestation.rs", &[""], "runs as whoever called"),
    ("pack/merge.rs", &[""], "runs as whoever called"),
    ("pack/source.rs", &[""], "runs as whoever called"),
    ("policy/keeper.rs", &[""], "the proxy's, which runs as whoever called"),
    (
        "policy/proxy.rs",
        &["LogFile::open(&options.decision_log)"],
        "the proxy's, which runs as whoever called",
    ),
    ("cli/diff.rs", &[""], "runs as whoever called"),
    ("cli/generate.rs", &[""], "runs as whoever called"),
    ("cli/mcp_wrap.rs", &[""], "runs as whoever called"),
    ("cli/report.rs", &[""], "runs as whoever called"),
    ("cli/upload.rs", &[""], "runs as whoever called"),
    ("cli/verify.rs", &[""], "runs as whoever called"),
    (
        "contract_only.rs",
        &["std::fs::OpenOptions::new().write(true).create_new(true).open(log)"],
        "refused when somebody called sudo",
    ),
    (
        "evidence/effects.rs",
        &["std::fs::File::open(path)"],
        "the reader of `verify`; of what root itself wrote",
    ),
    (
        "evidence/archive/read.rs",
        &["std::fs::File::open(path)"],
        "the reader of `verify`; of what root itself wrote",
    ),
    ("files/digest.rs", &["std::fs::File::open(path)"], "the reader of `verify`; of root's own binaries"),
    // The door itself.
    ("host/rights.rs", &["Command::new(program)"], "the door"),
    ("files/beneath.rs", &["std::fs::create_dir_all(path)"], "the door, of a root's own folder"),
    ("files/beneath/portable.rs", &[""], "the door, where there is no root half"),
    // Within the rights of the caller, which the lines around them take.
    ("cli/gate.rs", &["std::fs::create_dir_all(&folder)"], "within the caller's rights"),
    (
        "cli/gate.rs",
        &["std::fs::read(path)", "std::fs::remove_file(&self.path)"],
        "within the caller's rights",
    ),
    ("gate/placement.rs", &[""], "within the caller's rights"),
    ("measure.rs", &["std::fs::OpenOptions::new()"], "within the caller's rights"),
    ("measure.rs", &["std::fs::read(&report.log)"], "the decider's own log, in root's spool"),
    ("host/program.rs", &["std::fs::File::open(path)"], "within the measured user's rights"),
    (
        "host/program.rs",
        &["std::fs::metadata(folder)", "std::fs::canonicalize(path)", "std::fs::metadata(&real)"],
        "within the measured user's rights",
    ),
    ("host/program.rs", &["std::fs::metadata(part)"], "modes alone, of folders"),
    (
        "evidence/redaction/key.rs",
        &["std::fs::read_to_string(path)", "std::fs::metadata(path)"],
        "within the caller's rights when a variable names it, else root's own",
    ),
    (
        "evidence/redaction/key.rs",
        &["std::fs::OpenOptions::new()", "std::fs::DirBuilder::new()"],
        "root's own; the variables of a user's home are gone",
    ),
    (
        "policy/path.rs",
        &["std::fs::canonicalize(root)", "std::fs::canonicalize(known)"],
        "in the measured program's view; opens nothing",
    ),
    // Programs of root's own.
    (
        "cli/built.rs",
        &["std::process::Command::new(&path)"],
        "of the store that root alone writes, by digest",
    ),
    ("host/launch.rs", &["Command::new(launcher)"], "this binary, as the init of a session"),
    // Files of root's own.
    ("host/cgroup.rs", &[""], "cgroups that root made"),
    ("host/cgroup/", &[""], "cgroups that root made"),
    ("capture/kernel/facts.rs", &["File::open(path)", "std::fs::read_to_string("], "cgroups that root made"),
    ("capture/kernel/btf.rs", &["std::fs::read(path)"], "types of the kernel"),
    (
        "host/cleanup/survey.rs",
        &["std::fs::read_to_string(cgroup.join(", "std::fs::read_dir(cgroup)"],
        "cgroups that root made",
    ),
    (
        "host/cleanup/survey.rs",
        &["std::fs::read_dir(folder)"],
        "names of what root may remove, by the host file of root's",
    ),
    ("host/cleanup/survey.rs", &["std::fs::read_link(process.path()"], "what the kernel says of a process"),
    ("host/cleanup/apply.rs", &["std::fs::remove_file(path)"], "a namespace's mount point in root's folder"),
    ("host/builds.rs", &["std::fs::read_to_string(process.join("], "what the kernel says of a process"),
    ("host/user.rs", &["std::fs::read_to_string(entry.path()"], "what the kernel says of a process"),
    ("host/user.rs", &["OpenOptions::new()"], "a lock in root's folder"),
    ("host/starter.rs", &["std::fs::read_link("], "systemd's own records, in root's folder"),
    ("host/starter.rs", &["std::fs::read_dir(UNITS)"], "systemd's own records, in root's folder"),
    ("host/state.rs", &[""], "state and spool, in root's folders"),
    ("host/doctor/leftovers.rs", &["std::fs::read_dir(state::spool("], "the spool, in root's folder"),
    ("host/doctor/kernel.rs", &["std::fs::metadata(path)"], "kernel file systems"),
    ("host/folder.rs", &["std::fs::create_dir(&made)"], "below root's state"),
    ("host/install.rs", &[""], "root's own files, of a command that is granted to nobody else"),
    ("host/calls/mod.rs", &[""], "the log and the socket of the decider, in root's spool"),
    (
        "host/calls/streams.rs",
        &["OpenOptions::new()"],
        "a descriptor that was passed, through the kernel's link to it",
    ),
    ("host/launcher/view.rs", &[""], "the view that init builds, in a mount namespace of its own"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn every_spawn_and_every_open_of_the_tree_goes_through_the_door_or_is_excused_with_its_reason() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let (mut beside, mut used) = (Vec::new(), vec![Vec::new(); EXCUSED.len()]);
    for file in files {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".rs") || name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = text.lines().collect();
        let end = code
            .windows(2)
            .position(|pair| pair[0].starts_with("#[cfg(") && pair[1].starts_with("mod tests {"));
        for (number, line) in code[..end.unwrap_or(code.len())].iter().enumerate() {
            let trimmed = line.trim_start();
            let calls = CALLS.iter().any(|call| line.contains(call));
            let names =
                trimmed.starts_with("//") || trimmed.starts_with("use ") || trimmed.starts_with("pub use ");
            // A type, or a value that only tells or sets something.
            let typed = [
                "std::fs::File>",
                "std::fs::File)",
                "std::fs::File,",
                "std::fs::File {",
                "std::fs::Metadata",
                "std::fs::Permissions",
                "std::fs::FileType",
            ];
            let only_typed = typed.iter().any(|name| line.contains(name))
                && line.matches("fs::").count() == 1
                && !line.contains("fs::set_permissions");
            let through = line.contains(".act(") || line.contains("InstallCommand::new(");
            if !calls || names || only_typed || through || KERNELS.iter().any(|path| line.contains(path)) {
                continue;
            }
            let excuse = EXCUSED.iter().position(|(at, calls, _)| {
                let here = if at.ends_with('/') { name.starts_with(at) } else { name == *at };
                here && calls.iter().any(|call| line.contains(call))
            });
            match excuse {
                Some(at) => used[at].push(number),
                None => beside.push(format!("src/{name}:{}: {trimmed}", number + 1)),
            }
        }
    }
    assert!(beside.is_empty(), "neither through `Rights` nor through `RootPath`:\n{}", beside.join("\n"));
    for ((at, calls, reason), used) in EXCUSED.iter().zip(used) {
        assert!(!reason.is_empty() && !used.is_empty(), "nothing is excused any more in {at}: {calls:?}");
    }
}

/// What needs no root gives it up first: it reads and writes for the user what the user could.
#[test]
fn what_needs_no_root_is_done_as_the_user_who_called_sudo() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "no-root", &[("one", "", "echo hi > out.txt")]);
    succeeded(&stage.run_gate(&holder, &at, "one", "431-1"));
    succeeded(&stage.root(
        &holder,
        "mkdir -p /srv/roots && chmod 700 /srv/roots && echo '{\"secret\": \"hunter2\"}' > /srv/roots/secret && \
         cp -a /var/lib/assay-gates/proof/431-1 /srv/roots/",
    ));
    let called = format!(
        "env -i PATH=/usr/bin:/bin SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner /usr/local/bin/assay-gates"
    );
    for words in [
        "pack --root /srv/roots/431-1 --out made",
        "pack --root /var/lib/assay-gates/proof/431-1 --out /srv/roots/made",
        "pack --root /var/lib/assay-gates/proof/431-1 --out made2 --zip /srv/roots/made.zip",
        "verify /srv/roots/secret",
        "verify /srv/roots/431-1/gates/one/run-1/runner-x.tar.gz",
        "diff /srv/roots/secret /srv/roots/secret",
        "triage /srv/roots/431-1",
        "triage /srv/roots/secret",
        "policy check /srv/roots/secret",
        "policy explain /srv/roots/secret",
        "lane --lanes /srv/roots/secret --repository . --base HEAD --head HEAD",
        "lane --repository /srv/roots --base HEAD --head HEAD",
        "mcp-wrap --policy /srv/roots/secret --decision-log log -- true",
        "mcp-wrap --policy gates/one/gate.yaml --decision-log /srv/roots/log -- true",
        "man --out /srv/roots/man",
        "clean --phase before-run --host-file /srv/roots/secret",
        "record --policy /srv/roots/secret -- true",
    ] {
        let ran = stage.root(&holder, &format!("cd {at} && {called} {words}"));
        let said = refused(&ran);
        assert!(!said.contains("hunter2") && !said.contains("secret\":"), "{words}: {said}");
        assert!(!said.contains("panicked") && !said.contains("unexpected argument"), "{words}: {said}");
    }
    let left = stage.root(&holder, &format!("ls -A /srv/roots; find {at} -user root"));
    assert_eq!(text(&left), "431-1\nsecret\n", "written as root");
}
