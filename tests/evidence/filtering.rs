//! Telemetry or evidence.

use crate::fixtures::{effect, exec};
use assay_gates::capture::{Effect, Operation, PathState, PathValue};
use assay_gates::error::Code;
use assay_gates::evidence::Filter;
use assay_gates::evidence::filter::{MAX_DISTINCT_PATHS, Rule, Sieve, Tally, writes};
use proptest::prelude::*;

const WORK: &str = "/run/assay-gates/work";

fn rule_of_effect(effect: &Effect) -> Option<String> {
    let mut sieve = Sieve::new(Filter::embedded().unwrap(), Some(WORK));
    let _ = sieve.telemetry(&exec(0, "/usr/bin/python3.11"));
    sieve.telemetry(effect).map(|(rule, _)| rule.name().to_owned())
}

fn opened(path: &str, state: PathState, requested: Option<&str>, flags: u64) -> Effect {
    let value = PathValue { value: path.to_owned(), state, requested: requested.map(str::to_owned) };
    Effect {
        path: Some(value),
        flags: Some(flags),
        return_value: Some(if state == PathState::Requested { -2 } else { 3 }),
        ..effect(1, Operation::Open, "openat")
    }
}

fn rule_of(path: &str, state: PathState, requested: Option<&str>) -> Option<String> {
    rule_of_effect(&opened(path, state, requested, 0o2_000_000))
}

fn rule(name: &str) -> &'static Rule {
    Filter::embedded().unwrap().rules().iter().find(|rule| rule.name() == name).unwrap()
}

fn resolved(path: &str) -> Option<String> {
    rule_of(path, PathState::Resolved, None)
}

#[test]
fn each_rule_matches_what_it_names_and_not_its_neighbours() {
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "loader_cache",
            &["/etc/ld.so.cache"],
            &["/etc/ld.so.cache2", "/etc/ld.so.conf", "/w/etc/ld.so.cache"],
        ),
        ("timezone", &["/etc/localtime"], &["/etc/localtime/x", "/etc/timezone"]),
        ("zoneinfo", &["/usr/share/zoneinfo/Etc/UTC"], &["/usr/share/zoneinfo", "/w/usr/share/zoneinfo/UTC"]),
        ("openssl_config", &["/etc/ssl/openssl.cnf"], &["/etc/ssl/certs/ca.pem", "/etc/ssl/private/key"]),
        ("ca_bundle", &["/etc/ssl/cert.pem"], &["/etc/ssl/cert.key", "/w/etc/ssl/cert.pem"]),
        ("ca_folder", &["/etc/ssl/certs/ca-certificates.crt"], &["/etc/ssl/certs", "/etc/ssl/private/x"]),
        (
            "python_startup",
            &[
                "/usr/pyvenv.cfg",
                "/usr/bin/pyvenv.cfg",
                "/usr/bin/python3._pth",
                "/usr/bin/python3.12._pth",
                "/opt/py/bin/pybuilddir.txt",
            ],
            &["/usr/bin/python3", "/etc/pyvenv.cfgs", "/w/xpyvenv.cfg"],
        ),
        (
            "python_bytecode",
            &["/opt/agent/__pycache__/tool.cpython-313.pyc"],
            &["/opt/agent/tool.pyc", "/opt/agent/__pycache__/secret", "/opt/__pycache__"],
        ),
        ("own_executable", &["/usr/bin/python3.11"], &["/usr/bin/python3", "/usr/bin/env"]),
        (
            "system_libraries",
            &["/lib/x", "/lib32/x", "/lib64/ld-linux-x86-64.so.2", "/usr/lib/python3.11/os.py"],
            &["/lib", "/libx/y", "/usr/local/lib/x", "/usr/library", "/w/lib/x"],
        ),
        ("locale", &["/usr/share/locale/de/x.mo"], &["/usr/share/zoneinfo/UTC", "/usr/share/locale"]),
        (
            "pseudo_filesystems",
            &["/proc/self/maps", "/sys/x", "/dev/shm/log"],
            &["/process", "/dev", "/w/proc/x"],
        ),
        ("unnamed_files", &["pipefs:", "nsfs:mnt"], &["/w/pipefs:", "tmpfs:memfd:x"]),
        (
            "node_modules",
            &["/w/node_modules/a/index.js", "/node_modules/x"],
            &["/w/node_modules", "/w/xnode_modules/y"],
        ),
        (
            "python_packages",
            &["/w/venv/site-packages/a/__init__.py"],
            &["/w/site-packages", "/w/my-site-packages/x"],
        ),
        (
            "rust_toolchain_libraries",
            &["/home/u/.rustup/toolchains/s/x.so", "/h/.rustup/toolchains/s/x.so.6"],
            &["/h/.rustup/toolchains/s/bin/rustc", "/h/.rustup/x.so", "/h/.rustup/toolchains/s/x.sox"],
        ),
        (
            "cargo_library_probes",
            &["/w/target/debug/x.so", "/w/target/x/build/libz.so.1", "/w/target/release/deps/a.so"],
            &["/w/target/debug/x", "/w/target/x.so", "/w/debug/x.so"],
        ),
    ];
    let filter = Filter::embedded().unwrap();
    assert_eq!(
        table.iter().map(|row| row.0).collect::<Vec<_>>(),
        filter.rules().iter().map(|rule| rule.name()).collect::<Vec<_>>(),
        "every rule is tested, in its order"
    );
    for (rule, inside, outside) in table {
        for path in *inside {
            assert_eq!(resolved(path).as_deref(), Some(*rule), "{path}");
        }
        for path in *outside {
            assert_ne!(resolved(path).as_deref(), Some(*rule), "{path}");
        }
    }
}

#[test]
fn inode_resolution_loader_locale_and_runtime_paths_are_telemetry_and_the_works_files_are_evidence() {
    // What an interpreter opens before the first line of a program, on every host differently.
    let telemetry = [
        "/etc/ld.so.cache",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/locale/C.utf8/LC_CTYPE",
        "/usr/share/locale/locale.alias",
        "/usr/lib/python3.11/encodings/__init__.py",
        "/usr/lib/node_modules/npm/package.json",
        "/run/assay-gates/fixture/node_modules/@openai/agents/dist/index.mjs",
        "/proc/self/cgroup",
        "/sys/fs/cgroup/memory.max",
        "/dev/shm/assay-gates/sdk.ndjson",
    ];
    // What the agent did.
    let evidence = [
        "/run/assay-gates/work/openai-agents-input.txt",
        "/run/assay-gates/work/hidden-write-output.txt",
        "/run/assay-gates/fixture/agent.mjs",
        "/etc/passwd",
        "/etc/nsswitch.conf",
        "/home/u/.ssh/id_ed25519",
        "/tmp/x.so",
    ];
    for path in telemetry {
        assert!(resolved(path).is_some(), "{path}");
    }
    for path in evidence {
        assert_eq!(resolved(path), None, "{path}");
    }
}

#[test]
fn a_detour_through_a_filtered_folder_hides_nothing() {
    for path in [
        "/proc/../run/assay-gates/work/x",
        "/usr/lib/../../home/u/x",
        "/w/node_modules/../secret",
        "/lib/..",
        "/proc/self/cwd/x",
        "/proc/self/root/home/u/x",
        "/proc/thread-self/fd/3",
        "/proc/self/exe",
    ] {
        assert_eq!(rule_of(path, PathState::Requested, None), None, "{path}");
    }
    // A link below /proc names the work folder: the kernel's path decides, not what was asked for.
    let asked = Some("/proc/self/root/run/assay-gates/work/x");
    assert_eq!(rule_of("/run/assay-gates/work/x", PathState::Resolved, asked), None);
}

#[test]
fn what_was_asked_for_makes_nothing_telemetry() {
    for asked in ["/etc/ld.so.cache", "/etc/localtime", "/usr/lib/x", "/proc/self/maps", "/dev/stdin"] {
        for state in [PathState::Resolved, PathState::Deleted, PathState::Anonymous] {
            assert_eq!(rule_of("/home/u/secret", state, Some(asked)), None, "{asked} {state:?}");
        }
    }
}

#[test]
fn what_a_ring_opened_is_known_by_request_only_and_is_never_telemetry() {
    let ring = |path: &str, flags| Effect {
        operation: Operation::IoUring,
        flags,
        ..opened(path, PathState::Requested, None, 0)
    };
    for path in ["/usr/lib/x", "/proc/self/cwd/x", "/etc/ld.so.cache"] {
        for result in [-2, 5] {
            let effect = Effect { return_value: Some(result), ..ring(path, None) };
            assert_eq!(rule_of_effect(&effect), None, "{path}");
        }
    }
    // An open that succeeded and whose file is not known.
    let unknown = Effect { return_value: Some(3), ..opened("/usr/lib/x", PathState::Requested, None, 0) };
    assert_eq!(rule_of_effect(&unknown), None);
}

#[test]
fn a_process_is_known_by_what_it_runs_and_its_children_until_they_run_something_else() {
    let mut sieve = Sieve::new(Filter::embedded().unwrap(), None);
    let read = |process, path| Effect { process, ..opened(path, PathState::Resolved, None, 0) };
    let born = Effect {
        process: 1,
        detail: Some("process of 0".to_owned()),
        ..effect(1, Operation::Fork, "task_newtask")
    };
    let _ = sieve.telemetry(&exec(0, "/opt/bundle"));
    let _ = sieve.telemetry(&born);
    assert!(sieve.telemetry(&read(1, "/opt/bundle")).is_some());
    let _ = sieve.telemetry(&Effect { process: 1, ..exec(0, "/opt/other") });
    assert!(sieve.telemetry(&read(1, "/opt/bundle")).is_none());
    assert!(sieve.telemetry(&read(0, "/opt/bundle")).is_some());
}

#[test]
fn what_is_not_known_whole_is_never_filtered() {
    for state in [PathState::Truncated, PathState::Detached, PathState::Unreadable] {
        assert_eq!(rule_of("/usr/lib/x", state, None), None, "{state:?}");
    }
    assert_eq!(rule_of("tmpfs:memfd:x", PathState::Anonymous, Some("/dev/stdout")), None);
}

#[test]
fn an_unknown_key_and_a_rule_without_condition_are_errors() {
    let wrong = "schema: assay.gates.filter.v0\nrules:\n  - name: a\n    why: b\n    prefixes: [/x/]\n";
    let error = Filter::parse(wrong, "filter.yaml").unwrap_err();
    assert_eq!((error.code(), error.advice()), (Code::DefinitionInvalid, Some("did you mean `prefix`?")));
    let wrong = "schema: assay.gates.filter.v0\nrules:\n  - {name: a, why: b, shared_object: true}\n";
    assert!(Filter::parse(wrong, "f").unwrap_err().message().contains("would match everything"));
    let wrong = "schema: assay.gates.filter.v9\nrules: []\n";
    assert!(Filter::parse(wrong, "f").is_err());
    let twice = "schema: assay.gates.filter.v0\nrules:\n  - {name: a, why: b, exact: [/x]}\n  - {name: a, why: b, exact: [/y]}\n";
    assert!(Filter::parse(twice, "f").unwrap_err().message().contains("twice"));
}

#[test]
fn the_most_frequent_paths_come_first_and_equals_by_name() {
    let rule = rule("system_libraries");
    let mut tally = Tally::default();
    for (path, count) in [("/lib/b", 2), ("/lib/a", 2), ("/lib/c", 3), ("/lib/d", 1)] {
        for _ in 0..count {
            tally.count(rule, path).unwrap();
        }
    }
    assert_eq!(tally.top(3), [("/lib/c", 3), ("/lib/a", 2), ("/lib/b", 2)]);
    assert_eq!(tally.total(), 8);
}

#[test]
fn the_budget_of_distinct_filtered_paths_is_a_named_refusal() {
    let (rule, packages) = (rule("pseudo_filesystems"), rule("node_modules"));
    let mut tally = Tally::default();
    for n in 0..2000 {
        tally.count(packages, &format!("/w/node_modules/{n}")).unwrap();
    }
    for n in 0..MAX_DISTINCT_PATHS {
        tally.count(rule, &format!("/proc/{n}")).unwrap();
    }
    tally.count(rule, "/proc/0").unwrap();
    assert_eq!(tally.count(rule, "/proc/x").unwrap_err().code(), Code::BudgetExceeded);
}

const OPERATIONS: &[Operation] = &[
    Operation::Open,
    Operation::Exec,
    Operation::Unlink,
    Operation::Rename,
    Operation::Link,
    Operation::Symlink,
    Operation::Mkdir,
    Operation::Rmdir,
    Operation::Truncate,
    Operation::Chmod,
    Operation::Chown,
    Operation::Mknod,
    Operation::Connect,
    Operation::Bind,
    Operation::Sendto,
    Operation::Sendmsg,
    Operation::IoUring,
    Operation::Escape,
    Operation::ForeignAbi,
    Operation::ExitWithoutEnter,
];

const STATES: &[PathState] = &[
    PathState::Resolved,
    PathState::Requested,
    PathState::Deleted,
    PathState::Detached,
    PathState::Truncated,
    PathState::Anonymous,
    PathState::Unreadable,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nothing_but_a_read_outside_of_the_work_folder_is_ever_telemetry(
        operation in prop::sample::select(OPERATIONS),
        state in prop::sample::select(STATES),
        folder in prop::sample::select(vec!["/usr/lib", "/proc", "/dev", "/dev/shm", "/w/node_modules", WORK,
            "/run/assay-gates/work/node_modules", "/run/assay-gates/work/target/release", "/etc", "/w/site-packages"]),
        name in "(ld\\.so\\.cache|pyvenv\\.cfg|x\\.so|[a-z.]{1,8}(/[a-z]{1,8})?)",
        flags in prop::option::of(prop::sample::select(vec![0_u64, 0o2_000_000, 1, 2, 3, 0o100, 0o1000, 0o20_200_002])),
        result in prop::sample::select(vec![-2_i64, -13, 0, 3, 9]),
        requested in prop::option::of(Just("/etc/ld.so.cache".to_owned())),
    ) {
        let effect = Effect {
            operation,
            flags,
            return_value: Some(result),
            ..opened(&format!("{folder}/{name}"), state, requested.as_deref(), 0)
        };
        if rule_of_effect(&effect).is_some() {
            prop_assert_eq!(operation, Operation::Open);
            prop_assert!(!writes(flags.unwrap()));
            prop_assert!(!folder.starts_with(WORK));
            prop_assert_eq!(state == PathState::Requested, result < 0);
            prop_assert!(matches!(state, PathState::Resolved | PathState::Requested | PathState::Deleted | PathState::Anonymous));
        }
    }

    #[test]
    fn nothing_below_the_work_folder_is_filtered(name in "(node_modules/|target/debug/|site-packages/|proc/)?[a-z./]{0,40}") {
        prop_assert_eq!(resolved(&format!("{WORK}/{name}")), None);
    }
}
