//! A host after `host install`, in a mount namespace: its own `/etc`, `/usr/local/bin`, state and results, and a user
//! `runner` who may call what the sudoers drop-in grants.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The user's id: one that no host has.
pub const UID: u32 = 61_021;
/// The user's home, which only exists in the namespace.
pub const HOME: &str = "/srv/home";

const SET_UP: &str = r#"
set -eu
mount --make-rprivate /
cp -a /etc "$STAGE/etc"
mkdir -p "$STAGE/bin" "$STAGE/var"
mount --bind "$STAGE/etc" /etc
mount --bind "$STAGE/bin" /usr/local/bin
mkdir -p /var/lib/assay-gates
mount --bind "$STAGE/var" /var/lib/assay-gates
chmod 755 /var/lib/assay-gates
mount -t tmpfs -o mode=755 none /srv
# What is cleaned up here is nobody else's.
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=1777 none /dev/shm
# No service manager of the host's hears of what is installed here.
mount -t tmpfs none /run/systemd 2>/dev/null || true
mkdir -p /run/assay-gates-state
mount -t tmpfs -o mode=700 none /run/assay-gates-state
rm -rf /etc/sudoers.d/assay-gates /etc/assay-gates
echo "runner:x:$RUNNER:$RUNNER::/srv/home:/bin/bash" >> /etc/passwd
echo "runner:x:$RUNNER:" >> /etc/group
echo "runner:!:20000::::::" >> /etc/shadow
mkdir -p /srv/home /srv/runner
chown runner:runner /srv/home
"$BINARY" host install --user runner --runner-root /srv/runner >&2
sed -i "s/^prefix: .*/prefix: agroothalf-$$/" /etc/assay-gates/host.yaml
echo ready
read -r _end
"#;

pub struct Stage {
    holder: Mutex<Child>,
    folder: tempfile::TempDir,
}

/// The one stage of this test binary. One test at a time: a host measures one run at a time.
pub fn stage() -> (&'static Stage, MutexGuard<'static, Child>) {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let stage = STAGE.get_or_init(Stage::new);
    (stage, stage.holder.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("roothalf-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", SET_UP])
            .env("STAGE", folder.path())
            .env("RUNNER", UID.to_string())
            .env("BINARY", env!("CARGO_BIN_EXE_assay-gates"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let out = holder.stdout.as_mut().unwrap();
        while !said.ends_with("ready\n") {
            let mut byte = [0];
            let count = std::io::Read::read(out, &mut byte).unwrap();
            assert_eq!(count, 1, "the stage could not be set up: {said}");
            said.push(char::from(byte[0]));
        }
        Self { holder: Mutex::new(holder), folder }
    }

    fn inside(&self, holder: &Child) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", holder.id())).stdin(Stdio::null());
        command.arg("--wd=/").env("STAGE_FOLDER", self.folder.path());
        command
    }

    /// A shell of root's, outside of sudo.
    pub fn root(&self, holder: &Child, script: &str) -> Output {
        self.inside(holder).args(["bash", "-c", script]).output().unwrap()
    }

    /// A shell of the user's in `folder`, with a login's environment.
    pub fn user(&self, holder: &Child, folder: &str, script: &str) -> Output {
        self.user_command(holder, folder, script).output().unwrap()
    }

    pub fn user_command(&self, holder: &Child, folder: &str, script: &str) -> Command {
        let mut command = self.inside(holder);
        let uid = UID.to_string();
        command
            .args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "env", "-i"])
            .args(["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/srv/home", "LANG=C.UTF-8"])
            .args(["bash", "-c", &format!("cd {folder} && {script}")]);
        command
    }

    /// A checkout of the user's with these gates, each a name, further lines of its definition, and its script.
    pub fn checkout(&self, holder: &Child, name: &str, gates: &[(&str, &str, &str)]) -> String {
        let at = format!("{HOME}/{name}");
        succeeded(&self.user(holder, HOME, &format!("mkdir -p {at} && cd {at} && git init -q -b main .")));
        for (gate, lines, script) in gates {
            let text = definition(gate, lines, script);
            let written = format!("mkdir -p gates/{gate} && cat > gates/{gate}/gate.yaml <<'END'\n{text}END");
            succeeded(&self.user(holder, &at, &written));
        }
        succeeded(&self.user(
            holder,
            &at,
            "git add -A && git -c user.name=u -c user.email=u@example.org commit -q --allow-empty -m all",
        ));
        at
    }

    /// What a workflow's step calls, as the user, in a checkout.
    pub fn run_gate(&self, holder: &Child, checkout: &str, gate: &str, root: &str) -> Output {
        self.user(holder, checkout, &format!("sudo -n assay-gates {}", run_form(gate, root)))
    }
}

/// The arguments that the drop-in grants.
pub fn run_form(gate: &str, root: &str) -> String {
    format!("run --gate {gate} --root {} --no-pack --format github", proof(root).display())
}

pub fn proof(root: &str) -> PathBuf {
    Path::new("/var/lib/assay-gates/proof").join(root)
}

pub fn definition(gate: &str, lines: &str, script: &str) -> String {
    format!(
        "schema: assay.gates.gate.v0\nid: {gate}\ntitle: x\ngroup: opt-in\nlabel: x\nrun_id: run_x\n\
         archive: runner-x.tar.gz\nagent_shim: none\nlayers: {{policy: absent, sdk: absent}}\n{lines}\
         command: [/bin/sh, -c, {script:?}]\nexpect: {{}}\n"
    )
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", output.status, text(output));
    text(output)
}

#[track_caller]
pub fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused:\n{}", text(output));
    text(output)
}
