//! A machine in a folder: a runner, its work folder, proof roots, scratch, and something outside that must stay.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Host {
    // Dropped last; what a test left with flags or mounts is undone by its own guard.
    folder: tempfile::TempDir,
    pub prefix: String,
}

impl Host {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("agtest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let host = Self { folder: tempfile::Builder::new().prefix("clean-").tempdir().unwrap(), prefix };
        for folder in ["runner/_work/app/app", "proof", "scratch", "outside"] {
            std::fs::create_dir_all(host.path(folder)).unwrap();
        }
        host.open_to_the_runner("runner/_work/app/app");
        std::fs::write(host.path("outside/keep.txt"), "keep me\n").unwrap();
        host.write_file(true, "");
        host
    }

    pub fn write_file(&self, dedicated: bool, more: &str) {
        let at = self.folder.path().display();
        std::fs::write(
            self.path("host.yaml"),
            format!(
                "schema: assay.gates.host.v0\ndedicated: {dedicated}\nrunner: {{user: nobody, root: {at}/runner}}\n\
                 proof_roots: [{at}/proof]\nscratch: [{at}/scratch]\nprefix: {}\n{more}",
                self.prefix
            ),
        )
        .unwrap();
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(below)
    }

    pub fn workspace(&self) -> PathBuf {
        self.path("runner/_work/app/app")
    }

    pub fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.open_to_the_runner(below.rsplit_once('/').map_or("", |(folder, _)| folder));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The runner of the host file, `nobody`, may use what is on the way below its work folder.
    fn open_to_the_runner(&self, below: &str) {
        let work = self.path("runner/_work");
        let mut folder = self.path(below);
        while folder.starts_with(&work) {
            let _of_another = std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777));
            folder.pop();
        }
    }

    pub fn clean(&self, phase: &str, more: &[&str]) -> Output {
        assert_cmd::Command::cargo_bin("assay-gates")
            .unwrap()
            .args(["clean", "--phase", phase, "--host-file"])
            .arg(self.path("host.yaml"))
            .args(more)
            .env("ASSAY_GATES_STATE_DIR", self.path("state"))
            .output()
            .unwrap()
    }

    /// Applies `before-run` and gives back `cleanup.json`.
    pub fn apply(&self) -> (i32, serde_json::Value) {
        let output = self.clean("before-run", &["--apply", "--format", "json"]);
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {}\n{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        });
        assay_gates::evidence::schema::validate("assay.gates.cleanup.v0", &json).unwrap();
        (output.status.code().unwrap(), json)
    }

    #[track_caller]
    pub fn apply_and_find_it_clean(&self) -> serde_json::Value {
        let (exit, report) = self.apply();
        assert_eq!(exit, 0, "{report:#}");
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(std::fs::read_dir(self.workspace()).unwrap().count(), 0, "the workspace is not empty");
        report
    }
}

/// Path, kind, mode, owner, modification time and content of everything below `folder`.
pub fn snapshot(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        let found = path.symlink_metadata().unwrap();
        let content = if found.is_symlink() {
            std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if found.is_file() {
            std::fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        lines.push(format!(
            "{path:?} {:o} {}:{} {}.{} {content:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec()
        ));
        if found.is_dir() {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}
