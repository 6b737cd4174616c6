//! What is built for a commit runs as root, because root had it built: not because of where a file lies.

use crate::stage::{HOME, Stage, proof, refused, run_form, stage, succeeded};
use crate::support::need_root;
use std::process::Child;

/// A repository of root's with a crate that says who built it, and what it is told to do.
const REPOSITORY: &str = r#"
set -eu
rm -rf /srv/origin && mkdir -p /srv/origin/src && cd /srv/origin && git init -q -b main .
cat > Cargo.toml <<'END'
[package]
name = "assay-gates"
version = "0.0.0"
edition = "2021"
build = "build.rs"
END
cat > build.rs <<'END'
fn main() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    println!("cargo:rustc-env=BUILT_BY={}", uid.split('\t').next().unwrap());
    // What a hostile build leaves behind.
    let null = std::process::Stdio::null;
    let _ = std::process::Command::new("setsid")
        .args(["sleep", "600"])
        .stdin(null())
        .stdout(null())
        .stderr(null())
        .spawn();
    let _ = std::fs::write("/var/lib/assay-gates/builds/planted", "x");
    let _ = std::fs::write("/srv/planted", "x");
}
END
cat > src/main.rs <<'END'
fn main() {
    println!("built by {} as {}", env!("BUILT_BY"), std::env::args().skip(1).collect::<Vec<_>>().join(" "));
}
END
cargo generate-lockfile -q --offline
git add -A && git -c user.name=r -c user.email=r@example.org commit -qm approved
git branch feature && git checkout -q feature
git -c user.name=r -c user.email=r@example.org commit -q --allow-empty -m 'not approved' && git checkout -q main
chmod -R a+rX /srv/origin
"#;

/// The toolchain where the builder can reach it, and a host file that approves of the repository's main branch.
fn approve(stage: &Stage, holder: &Child) -> (String, String) {
    let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = String::from_utf8(sysroot.stdout).unwrap();
    let mount = format!(
        "mkdir -p /srv/rust && {{ mountpoint -q /srv/rust || mount --bind {} /srv/rust; }}",
        sysroot.trim()
    );
    succeeded(&stage.root(holder, &mount));
    succeeded(&stage.root(holder, &format!("export PATH=/srv/rust/bin:$PATH; {REPOSITORY}")));
    let install = "assay-gates host install --user runner --runner-root /srv/runner --builds-from file:///srv/origin --builds-path /srv/rust/bin";
    let shown = succeeded(&stage.root(holder, &format!("{install} --dry-run")));
    for line in [
        "u assay-gates-build",
        "repository: file:///srv/origin",
        "NOPASSWD: ASSAY_GATES",
        "d /var/lib/assay-gates/proof 0755 root root",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    succeeded(&stage.root(holder, install));
    // git reads a repository on this machine for its owner alone.
    succeeded(&stage.root(holder, "id assay-gates-build && chown -R assay-gates-build /srv/origin"));
    let of = |name: &str| {
        succeeded(&stage.root(holder, &format!("git -c safe.directory=* -C /srv/origin rev-parse {name}")))
            .trim()
            .to_owned()
    };
    (of("main"), of("feature"))
}

#[test]
fn root_runs_what_it_had_built_of_an_approved_commit_and_nothing_else() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let (approved, other) = approve(stage, &holder);
    let user = |script: &str| stage.user(&holder, HOME, script);
    refused(&user(&format!("sudo -n assay-gates built {approved} doctor")));
    let said = succeeded(&user(&format!("sudo -n assay-gates host build --commit {approved}")));
    assert!(said.contains(&approved) && said.contains("sha256:"), "{said}");
    let builder = succeeded(&stage.root(&holder, "id -u assay-gates-build"));
    let ran = succeeded(&user(&format!("sudo -n assay-gates built {approved} doctor --gate one")));
    assert_eq!(ran, format!("built by {} as doctor --gate one\n", builder.trim()));
    // Once is enough.
    succeeded(&user(&format!("sudo -n assay-gates host build --commit {approved}")));
    let left = "pgrep -r R,S,D -u assay-gates-build; ls -A /var/lib/assay-gates/workshop; ls /srv/planted /var/lib/assay-gates/builds/planted 2>/dev/null; true";
    assert_eq!(succeeded(&stage.root(&holder, left)), "", "a build left something");

    let said = refused(&user(&format!("sudo -n assay-gates host build --commit {other}")));
    assert!(said.contains("AG274"), "{said}");
    for commit in ["main", "HEAD", "--help", "../../srv", &approved[..12], &"0".repeat(40)] {
        refused(&user(&format!("sudo -n assay-gates host build --commit '{commit}'")));
        refused(&user(&format!("sudo -n assay-gates built '{commit}' doctor")));
    }
    // What the user can do about the store: nothing.
    let store = format!("/var/lib/assay-gates/builds/{approved}");
    for attempt in [
        format!("cp /bin/true {store}/assay-gates"),
        format!("mv {store} {store}0"),
        format!("mkdir /var/lib/assay-gates/builds/{other}"),
        "mkdir /var/lib/assay-gates/workshop/x".to_owned(),
        format!("echo >> {store}/build.json"),
    ] {
        refused(&user(&attempt));
    }
    // A binary that is no longer what was built doesn't run, whoever changed it.
    succeeded(&stage.root(&holder, &format!("echo >> {store}/assay-gates")));
    let said = refused(&user(&format!("sudo -n assay-gates built {approved} doctor")));
    assert!(said.contains("AG274"), "{said}");
    succeeded(&stage.root(
        &holder,
        &format!("rm -r {store}; assay-gates host install --user runner --runner-root /srv/runner"),
    ));
    let said = refused(&user(&format!("sudo -n assay-gates host build --commit {approved}")));
    assert!(said.contains("AG274"), "built without approval: {said}");
}

/// A pack says which binary measured: the commit that it was built from, and the digest that root found.
#[test]
fn what_measured_stands_in_the_record_with_its_commit_and_its_digest() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "built", &[("one", "", "echo hi > out.txt")]);
    // As `host build` leaves it.
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let store = format!("/var/lib/assay-gates/builds/{commit}");
    let put = format!(
        "mkdir -p {store} && cp /usr/local/bin/assay-gates {store}/assay-gates && chmod 755 {store} {store}/assay-gates && sha256sum {store}/assay-gates && stat -c %s {store}/assay-gates"
    );
    let found = succeeded(&stage.root(&holder, &put));
    let digest = found.split_whitespace().next().unwrap();
    let build = serde_json::json!({
        "schema": "assay.gates.build.v0", "commit": commit, "repository": "https://example.org/r", "branch": "main",
        "sha256": format!("sha256:{digest}"), "bytes": found.lines().last().unwrap().parse::<u64>().unwrap(),
        "built_at": "2026-01-01T00:00:00Z",
    });
    succeeded(
        &stage.root(&holder, &format!("echo '{build}' > {store}/build.json && chmod 644 {store}/build.json")),
    );
    let record = |root: &str| -> serde_json::Value {
        serde_json::from_str(&succeeded(
            &stage.root(&holder, &format!("cat {}/run.json", proof(root).display())),
        ))
        .unwrap()
    };
    let built = format!("sudo -n assay-gates built {commit} {}", run_form("one", "601-1"));
    succeeded(&stage.user(&holder, &at, &built));
    let measured = record("601-1");
    assert_eq!(measured["build"]["commit"], commit);
    assert_eq!(measured["build"]["sha256"], format!("sha256:{digest}"));
    // The installed binary stands in no store, and says of no commit that it is built from it.
    succeeded(&stage.run_gate(&holder, &at, "one", "602-1"));
    assert!(record("602-1")["build"].is_null(), "{}", record("602-1")["build"]);
    // One of another digest measures nothing.
    succeeded(&stage.root(&holder, &format!("echo >> {store}/assay-gates")));
    let said = refused(&stage.user(&holder, &at, &built.replace("601-1", "603-1")));
    assert!(said.contains("AG274") && !proof("603-1").exists(), "{said}");
    succeeded(&stage.root(&holder, &format!("rm -r {store}")));
}
