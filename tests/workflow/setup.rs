//! `scripts/setup.sh` on systems that lack one thing or another: what it installs from where, and what it says when it can't.
//!
//! A system is a folder: its programs are stubs that note how they were called, its packages a table. The rest of the real
//! thing is `make fresh`.

use crate::here;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the script takes of a system that no package of ours brings.
const BASE: &[&str] = &[
    "sh",
    "bash",
    "env",
    "sed",
    "sort",
    "head",
    "grep",
    "cut",
    "dirname",
    "mkdir",
    "ln",
    "ls",
    "cat",
    "cksum",
    "tr",
    "rm",
    "touch",
    "chmod",
    "uname",
    "ldd",
    "sha256sum",
    "true",
    "basename",
];

/// Programs of a system that can build, but for Rust.
const TOOLS: &[&str] = &["clang", "llvm-strip", "cc", "git", "npm"];

/// Programs that tests want on top.
const TEST_TOOLS: &[&str] =
    &["strace", "ip", "visudo", "systemd-sysusers", "zip", "unzip", "curl", "chromium", "chattr"];

#[derive(Clone, Default)]
struct System {
    /// Programs that are there.
    programs: Vec<&'static str>,
    /// The version of its cargo and rustc, when there are any.
    rust: Option<&'static str>,
    /// Packages that apt knows: name, version, programs that it brings.
    packages: Vec<(&'static str, &'static str, &'static [&'static str])>,
    /// Calls that fail: how they begin.
    broken: Vec<&'static str>,
    /// Not root.
    user: bool,
}

impl System {
    /// All but Rust, on a Debian whose apt knows nothing.
    fn tools() -> Self {
        let programs = [TOOLS, &["apt-get", "apt-cache", "dpkg", "id"][..]].concat();
        Self { programs, ..Self::default() }
    }

    fn rust(mut self, version: &'static str) -> Self {
        self.rust = Some(version);
        self
    }

    fn without(mut self, program: &str) -> Self {
        self.programs.retain(|name| *name != program);
        self
    }

    fn with(mut self, programs: &[&'static str]) -> Self {
        self.programs.extend(programs);
        self
    }

    fn package(mut self, name: &'static str, version: &'static str, brings: &'static [&'static str]) -> Self {
        self.packages.push((name, version, brings));
        self
    }

    fn broken(mut self, call: &'static str) -> Self {
        self.broken.push(call);
        self
    }

    fn user(mut self) -> Self {
        self.user = true;
        self
    }

    fn setup(&self, what: &str) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "scripts/locked", "candidates", "brings", "home"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        for name in BASE {
            if let Some(path) =
                ["/usr/bin", "/bin"].iter().map(|bin| Path::new(bin).join(name)).find(|p| p.exists())
            {
                std::os::unix::fs::symlink(path, at("bin").join(name)).unwrap();
            }
        }
        fs::copy(here().join("scripts/setup.sh"), at("scripts/setup.sh")).unwrap();
        fs::copy(here().join("Cargo.toml"), at("Cargo.toml")).unwrap();
        program(&at("stub"), &STUB.replace("FOLDER", &folder.path().to_string_lossy()));
        for name in &self.programs {
            std::os::unix::fs::symlink(at("stub"), at("bin").join(name)).unwrap();
        }
        if let Some(version) = self.rust {
            fs::write(at("rust"), version).unwrap();
            for name in ["cargo", "rustc"] {
                std::os::unix::fs::symlink(at("stub"), at("bin").join(name)).unwrap();
            }
        }
        for (name, version, brings) in &self.packages {
            fs::write(at("candidates").join(name), version).unwrap();
            fs::write(at("brings").join(name), brings.join("\n")).unwrap();
        }
        fs::write(at("broken"), self.broken.join("\n")).unwrap();
        fs::write(at("uid"), if self.user { "1000" } else { "0" }).unwrap();
        if what == "test" {
            for lock in ["act", "zizmor"] {
                fs::write(at("scripts/locked").join(format!("{lock}.txt")), "").unwrap();
                fs::create_dir_all(at("target/tools").join(lock)).unwrap();
                // cksum of nothing: what is locked stands there already.
                fs::write(at("target/tools").join(lock).join(".4294967295-0"), "").unwrap();
            }
            fs::create_dir_all(at("gates/one")).unwrap();
            fs::create_dir_all(at("tests/one/two")).unwrap();
            for name in ["gates/one", "tests/one/two"] {
                fs::write(at(name).join("package-lock.json"), "{}").unwrap();
            }
        }
        let output = Command::new(at("bin/sh"))
            .arg(at("scripts/setup.sh"))
            .arg(what)
            .env_clear()
            .env("PATH", at("bin"))
            .env("HOME", at("home"))
            .output()
            .unwrap();
        let calls = fs::read_to_string(at("calls")).unwrap_or_default();
        Setup {
            done: output.status.success(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }
}

/// A program of many names: notes its call, fails when the call is to fail, and otherwise does what little is needed.
const STUB: &str = r#"#!/bin/sh
name=$(basename "$0")
call="$name $*"
[ "$*" = --version ] || [ "$name" = id ] || echo "$call" >>FOLDER/calls
while IFS= read -r begin || [ -n "$begin" ]; do
	[ -z "$begin" ] || case "$call" in "$begin"*) exit 100 ;; esac
done <FOLDER/broken
case "$name $1" in
"cargo --version" | "rustc --version") echo "$name $(cat FOLDER/rust) (0 2026-01-01)" ;;
"id "*) cat FOLDER/uid ;;
"sudo "*) exec "$@" ;;
"apt-cache policy")
	echo "$2:"
	if [ -f "FOLDER/candidates/$2" ]; then echo "  Candidate: $(cat "FOLDER/candidates/$2")"; else echo "  Candidate: (none)"; fi
	;;
"apt-cache search") ls FOLDER/candidates | grep -E "^rustc-1" ;;
"apt-get install")
	for word in "$@"; do
		[ -f "FOLDER/brings/$word" ] || continue
		for brought in $(cat "FOLDER/brings/$word"); do ln -sf FOLDER/stub "FOLDER/bin/$brought"; done
		case $word in rustc*) cut -d - -f 1 "FOLDER/candidates/$word" | cut -d + -f 1 >FOLDER/rust ;; esac
	done
	;;
"rustup toolchain")
	for brought in cargo rustc; do ln -sf FOLDER/stub "FOLDER/bin/$brought"; done
	for word in "$@"; do version=$word; done
	echo "$version" >FOLDER/rust
	;;
esac
exit 0
"#;

fn program(path: &PathBuf, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

struct Setup {
    done: bool,
    said: String,
    calls: Vec<String>,
}

impl Setup {
    fn installed(&self, package: &str) -> bool {
        self.calls
            .iter()
            .any(|call| call.starts_with("apt-get install") && call.split(' ').any(|word| word == package))
    }
}

/// The oldest Rust that Cargo.toml names.
fn oldest() -> String {
    let manifest = fs::read_to_string(here().join("Cargo.toml")).unwrap();
    let line = manifest.lines().find(|line| line.starts_with("rust-version")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn what_is_there_is_left_alone_and_nothing_asks_the_network() {
    for system in [System::tools().rust("1.95.0"), System::tools().rust("1.123.4").user()] {
        let setup = system.setup("build");
        assert!(setup.done, "{}", setup.said);
        assert_eq!(setup.calls, Vec::<String>::new(), "{}", setup.said);
    }
}

#[test]
fn rust_comes_from_where_the_distribution_has_one_that_is_new_enough() {
    const RUST: &[&str] = &["rustc", "cargo"];
    let old = || System::tools().package("rustc", "1.63.0", RUST).package("cargo", "0.66.0", &[]);
    let web = |system: System| {
        system.package("rustc-web", "1.96.0+dfsg0~deb12u1", RUST).package(
            "cargo-web",
            "1.96.0+dfsg0~deb12u1",
            &[],
        )
    };
    let debian_13 = || {
        let system = System::tools().package("rustc", "1.85.0+dfsg3-1", RUST).package("cargo", "1.85.0", &[]);
        system.package("rustup", "1.27.1", &["rustup"])
    };
    let newest = System::tools().package("rustc", "1.97.0", RUST).package("cargo", "1.97.0", &[]);
    let from_rustup = format!("rustup toolchain install -q --profile minimal {}.0", oldest());
    for (name, system, expected) in [
        ("Debian 12", web(old()), "rustc-web"),
        ("Debian 12 with a cargo that is too old", web(old()).rust("1.63.0"), "rustc-web"),
        ("Debian 12 as a user", web(old()).user().with(&["sudo"]), "rustc-web"),
        ("Debian 13 without its security archive", debian_13(), &from_rustup),
        ("rustup is there, its toolchain is old", debian_13().with(&["rustup"]).rust("1.80.0"), &from_rustup),
        ("Debian's newest", newest, "rustc"),
    ] {
        let setup = system.setup("build");
        assert!(setup.done, "{name}: {}\n{:?}", setup.said, setup.calls);
        let found = setup.installed(expected) || setup.calls.iter().any(|call| call == expected);
        assert!(found, "{name}: {expected} of {:?}", setup.calls);
        assert!(!setup.installed("rustup") || expected == from_rustup, "{name}: {:?}", setup.calls);
    }
}

#[test]
fn what_cannot_be_installed_is_named_once_with_another_line_than_the_one_that_failed() {
    const RUST: &[&str] = &["rustc", "cargo"];
    let web = || System::tools().package("rustc-web", "1.96.0", RUST).package("cargo-web", "1.96.0", &[]);
    let clang = || System::tools().rust("1.96.0").without("clang").package("clang", "14.0", &["clang"]);
    let ready = || System::tools().rust("1.96.0").with(TEST_TOOLS);
    let rust = oldest();
    let both = format!("Rust {rust} or newer builds this, and 1.63.0 is here");
    for (name, system, what, named) in [
        ("no lists", clang().broken("apt-get update"), "build", "lists of packages"),
        ("no candidate", System::tools().rust("1.96.0").without("clang"), "build", "clang is missing"),
        ("apt fails", clang().broken("apt-get install"), "build", "could not install clang"),
        ("no root and no sudo", clang().user(), "build", "there is no sudo"),
        (
            "no apt",
            System::tools().rust("1.96.0").without("clang").without("apt-get"),
            "build",
            "missing: clang",
        ),
        ("no Rust anywhere", System::tools().rust("1.63.0").with(&["curl"]).broken("curl"), "build", &both),
        ("apt has Rust and fails", web().broken("apt-get install"), "build", "rustc-web"),
        (
            "rustup has none",
            System::tools().rust("1.63.0").with(&["rustup"]).broken("rustup toolchain"),
            "build",
            "rustup could not install",
        ),
        ("npm fails", ready().broken("npm ci"), "test", "one/two/package-lock.json"),
    ] {
        let setup = system.setup(what);
        assert!(!setup.done, "{name}: {:?}", setup.calls);
        let messages: Vec<&str> = setup.said.lines().filter(|line| line.starts_with("setup: ")).collect();
        assert!(messages.last().is_some_and(|last| last.contains(named)), "{name}: {}", setup.said);
        let hint = setup.said.lines().find_map(|line| line.strip_prefix("  hint: "));
        let hint = hint.unwrap_or_else(|| panic!("{name}: no hint in {}", setup.said));
        for call in &setup.calls {
            assert!(!hint.contains(call.as_str()), "{name}: the hint repeats {call}");
        }
        for word in ["again", "make run", "setup.sh"] {
            assert!(!hint.contains(word), "{name}: {hint}");
        }
    }
}
