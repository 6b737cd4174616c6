//! `assay-gates lane` in a repository with a history.

use std::path::Path;
use std::process::Command;

pub struct Repository(tempfile::TempDir);

impl Repository {
    pub fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit("README.md", "a");
        repository.write("gates/kernel-only/agent.sh", "a\n".repeat(40).as_str());
        repository.commit("src/policy/rules.rs", "a");
        repository.git(&["checkout", "-q", "-b", "change"]);
        repository
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgSign=false"])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .status()
            .unwrap();
        assert!(status.success(), "git {arguments:?}");
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn commit(&self, file: &str, text: &str) {
        self.write(file, text);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", file]);
    }

    pub fn head(&self) -> String {
        self.commit_of("HEAD")
    }

    pub fn commit_of(&self, revision: &str) -> String {
        let output =
            Command::new("git").args(["rev-parse", revision]).current_dir(self.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn lane(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = assert_cmd::Command::cargo_bin("assay-gates")
            .unwrap()
            .args([
                "lane",
                "--lanes",
                concat!(env!("CARGO_MANIFEST_DIR"), "/gates/lanes.yaml"),
                "--repository",
            ])
            .arg(self.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    fn gate(&self) -> String {
        let (exit, out, err) = self.lane(&["--base", "main", "--head", "HEAD", "--format", "github"]);
        assert_eq!(exit, Some(0), "{err}");
        out.strip_prefix("gate=").unwrap().trim_end().to_owned()
    }
}

#[test]
fn only_what_the_branch_changed_counts_not_what_main_did_meanwhile() {
    let repository = Repository::new();
    assert_eq!(repository.gate(), "none", "nothing changed");
    repository.commit("README.md", "b");
    repository.git(&["checkout", "-q", "main"]);
    repository.commit("ebpf/probes.bpf.c", "b");
    repository.git(&["checkout", "-q", "change"]);
    assert_eq!(repository.gate(), "none");
    repository.commit("src/policy/rules.rs", "b");
    assert_eq!(repository.gate(), "kernel-policy");
    repository.commit("gates/kernel-only/agent.sh", "b");
    assert_eq!(repository.gate(), "all", "two gates together");
}

#[test]
fn a_file_that_moves_out_of_a_gated_folder_still_needs_its_gate() {
    let repository = Repository::new();
    std::fs::create_dir(repository.path().join("docs")).unwrap();
    repository.git(&["mv", "gates/kernel-only/agent.sh", "docs/agent.sh"]);
    repository.git(&["commit", "-q", "-m", "move"]);
    assert_eq!(repository.gate(), "kernel-only");
}

#[test]
fn a_deleted_file_needs_its_gate() {
    let repository = Repository::new();
    repository.git(&["rm", "-q", "src/policy/rules.rs"]);
    repository.git(&["commit", "-q", "-m", "remove"]);
    assert_eq!(repository.gate(), "kernel-policy");
}

#[test]
fn json_names_every_file_and_its_rule() {
    let repository = Repository::new();
    repository.commit("src/policy/naïve \"name\".rs", "b");
    let (exit, out, _) = repository.lane(&["--base", "main", "--format", "json"]);
    assert_eq!(exit, Some(0));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assay_gates::evidence::schema::validate("assay.gates.lane.v0", &json).unwrap();
    assert_eq!(json["required"], "kernel-policy");
    assert_eq!(json["files"][0]["path"], "src/policy/naïve \"name\".rs");
    assert_eq!(json["files"][0]["rules"][0], "policy");
}

#[test]
fn a_revision_that_is_not_there_or_looks_like_an_option_is_an_error() {
    let repository = Repository::new();
    for revision in ["nowhere", "--output=x"] {
        let (exit, out, err) = repository.lane(&[&format!("--base={revision}")]);
        assert_eq!((exit, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("AG141"), "{err}");
    }
    assert!(!repository.path().join("x").exists());
}

#[test]
fn a_change_of_the_lock_alone_is_decided_by_what_it_changes() {
    const MANIFEST: &str =
        "[package]\nname = \"t\"\n[dependencies]\nused = \"1\"\n[dev-dependencies]\ntried = \"1\"\n";
    let lock = |used: &str, tried: &str| {
        let package = |name: &str, version: &str| {
            format!(
                "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"registry+r\"\nchecksum = \"{version}\"\n\n"
            )
        };
        format!(
            "version = 4\n\n[[package]]\nname = \"t\"\nversion = \"1.0.0\"\ndependencies = [\n \"tried\",\n \"used\",\n]\n\n{}{}",
            package("tried", tried),
            package("used", used)
        )
    };
    let with = |after: &str, manifest: &str| {
        let repository = Repository::new();
        repository.git(&["checkout", "-q", "main"]);
        repository.commit("Cargo.toml", MANIFEST);
        repository.commit("Cargo.lock", &lock("1.0.0", "1.0.0"));
        repository.git(&["checkout", "-q", "-B", "change"]);
        repository.write("Cargo.toml", manifest);
        repository.commit("Cargo.lock", after);
        repository.gate()
    };
    assert_eq!(with(&lock("1.0.0", "1.0.1"), MANIFEST), "none", "only what tests use");
    assert_eq!(with(&lock("1.0.1", "1.0.0"), MANIFEST), "all", "what the tool is built from");
    assert_eq!(with("", MANIFEST), "all", "no lock at all");
    let moved = MANIFEST.replace("[dev-dependencies]\n", "");
    assert_eq!(with(&lock("1.0.0", "1.0.1"), &moved), "all", "the manifest changed too");
}
