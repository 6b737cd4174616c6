//! Telemetry or evidence.

use assay_gates::capture::{PathState, PathValue};
use assay_gates::error::Code;
use assay_gates::evidence::Filter;
use assay_gates::evidence::filter::{MAX_DISTINCT_PATHS, Rule, Tally};
use proptest::prelude::*;

fn rule_of(path: &str, state: PathState, requested: Option<&str>) -> Option<String> {
    let value = PathValue { value: path.to_owned(), state, requested: requested.map(str::to_owned) };
    Filter::embedded().unwrap().telemetry(&value, Some(0)).map(|(rule, _)| rule.name().to_owned())
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
        ("openssl_config", &["/etc/ssl/openssl.cnf"], &["/etc/ssl/certs/ca.pem"]),
        (
            "python_startup",
            &[
                "/usr/pyvenv.cfg",
                "/usr/bin/pyvenv.cfg",
                "/usr/bin/python3._pth",
                "/usr/bin/python3.12._pth",
                "/usr/bin/pybuilddir.txt",
            ],
            &["/usr/bin/python3.11._pth", "/usr/bin/python3", "/w/pyvenv.cfg"],
        ),
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
fn a_write_among_python_packages_is_evidence() {
    let value =
        PathValue { value: "/w/site-packages/x.py".to_owned(), state: PathState::Resolved, requested: None };
    let filter = Filter::embedded().unwrap();
    assert!(filter.telemetry(&value, Some(0o2_000_000)).is_some());
    for flags in [Some(1), Some(2), Some(0o100), Some(0o1000), None] {
        assert!(filter.telemetry(&value, flags).is_none(), "{flags:?}");
    }
}

#[test]
fn a_detour_through_a_filtered_folder_hides_nothing() {
    for path in
        ["/proc/../run/assay-gates/work/x", "/usr/lib/../../home/u/x", "/w/node_modules/../secret", "/lib/.."]
    {
        assert_eq!(rule_of(path, PathState::Requested, None), None, "{path}");
    }
    // A link below /proc names the work folder: the kernel's path decides, not what was asked for.
    let asked = Some("/proc/self/root/run/assay-gates/work/x");
    assert_eq!(rule_of("/run/assay-gates/work/x", PathState::Resolved, asked), None);
}

#[test]
fn a_link_of_the_distribution_counts_by_the_exact_name_that_was_asked_for() {
    let found = rule_of("/usr/share/zoneinfo/Etc/UTC", PathState::Resolved, Some("/etc/localtime"));
    assert_eq!(found.as_deref(), Some("timezone"));
}

#[test]
fn what_is_not_known_whole_is_never_filtered() {
    for state in [PathState::Truncated, PathState::Detached, PathState::Unreadable] {
        assert_eq!(rule_of("/usr/lib/x", state, None), None, "{state:?}");
    }
    assert!(rule_of("pipe:[7]", PathState::Anonymous, Some("/dev/stdout")).is_some());
    assert_eq!(rule_of("pipe:[7]", PathState::Anonymous, Some("fifo")), None);
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

proptest! {
    #[test]
    fn nothing_below_the_work_folder_is_filtered_but_packages_and_library_probes(name in "[a-z./]{0,40}") {
        let path = format!("/run/assay-gates/work/{name}");
        let outside = ["node_modules", ".rustup", "target"].iter().all(|part| !path.contains(part));
        prop_assume!(outside);
        prop_assert_eq!(resolved(&path), None);
    }

    #[test]
    fn a_filtered_path_stays_filtered_when_dots_are_resolved(parts in prop::collection::vec("\\.\\.|\\.|lib|usr|proc|w|x\\.so|node_modules|target|debug", 1..8)) {
        let path = format!("/{}", parts.join("/"));
        if resolved(&path).is_some() {
            let normal = assay_gates::files::normalise(std::path::Path::new(&path)).unwrap();
            prop_assert!(resolved(normal.to_str().unwrap()).is_some());
        }
    }
}
