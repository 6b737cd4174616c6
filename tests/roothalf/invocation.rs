//! What the drop-in lets the user call, and what else the tool itself refuses to do for a user.

use crate::stage::{UID, proof, refused, run_form, stage, succeeded, text};
use crate::support::need_root;

#[test]
fn what_the_readme_says_works_after_host_install_without_a_password() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "granted", &[("one", "", "echo hi > out.txt")]);
    succeeded(&stage.user(&holder, &checkout, "sudo -n assay-gates doctor --gate one"));
    succeeded(&stage.user(&holder, &checkout, "sudo -n assay-gates clean --phase before-run --apply"));
    succeeded(&stage.run_gate(&holder, &checkout, "one", "201-1"));
    // What cleanup did is in the root of the run that came after it, by root's own hand.
    let kept = stage.user(&holder, "/", &format!("cat {}/cleanup.json", proof("201-1").display()));
    assert!(succeeded(&kept).contains("assay.gates.cleanup.v0"));
    succeeded(&stage.user(&holder, &checkout, "sudo -n assay-gates clean --phase after-run --apply"));
}

#[test]
fn no_other_words_are_granted() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "words", &[("one", "", "echo hi > out.txt")]);
    let fine = run_form("one", "211-1");
    for words in [
        format!("{fine} --user root"),
        format!("{fine} --gates-dir /etc"),
        fine.replace("--no-pack", "--no-pack --install"),
        fine.replace("211-1", "../../../../etc/x"),
        fine.replace("211-1", "211-1/../212-1"),
        fine.replace("211-1", "211-1/"),
        fine.replace("/var/lib/assay-gates/proof/211-1", "/srv/home/root"),
        fine.replace("/var/lib/assay-gates/proof/211-1", "211-1"),
        fine.replace("--gate one", "--gate one --gate two"),
        fine.replace("--gate one", "--gate=../one"),
        fine.replace("--gate one", "--gate 'one --user root'"),
        fine.replace("--gate one", "--gate \"$(printf 'one\\n--user')\""),
        fine.replace("--format github", "--format json"),
        "clean --phase before-run --apply --host-file /srv/home/host.yaml".to_owned(),
        "clean --phase before-run --apply --report /etc/x".to_owned(),
        "record -- id".to_owned(),
        "host install --user runner".to_owned(),
        "dependencies --install".to_owned(),
        "doctor --user root".to_owned(),
        "doctor --gates-dir /etc".to_owned(),
        "__launch".to_owned(),
        "--version".to_owned(),
        String::new(),
    ] {
        let said = refused(&stage.user(&holder, &checkout, &format!("sudo -n assay-gates {words}")));
        assert!(said.contains("password is required") || said.contains("not allowed"), "{words}: {said}");
    }
    // Options in the place of values, and words split in other places, come through the form; the tool refuses them.
    for words in [
        fine.replace("--gate one", "--gate --resume"),
        fine.replace("--gate one", "--gate --install"),
        fine.replace("--gate one", "--gate -h"),
        fine.replace("--gate one", "'--gate one'"),
        fine.replace("run --gate", "'run --gate'"),
    ] {
        let ran = stage.user(&holder, &checkout, &format!("sudo -n assay-gates {words}"));
        assert_ne!(ran.status.code(), Some(0), "{words}: {}", text(&ran));
    }
    let made = stage.root(&holder, "ls /var/lib/assay-gates/proof | grep ^21 || true");
    assert_eq!(succeeded(&made), "", "a refused call left something");
}

/// Were the drop-in wider, the tool would still write nowhere else for a user.
#[test]
fn for_a_user_the_tool_writes_below_its_own_folder_alone() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "places", &[("one", "", "echo hi > out.txt")]);
    succeeded(&stage.root(&holder, "mkdir -p /srv/mine && chmod 700 /srv/mine"));
    let called = format!(
        "env -i PATH=/usr/bin:/bin SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner /usr/local/bin/assay-gates"
    );
    for place in [
        "/srv/mine/root",
        "/srv/home/root",
        "root",
        "/var/lib/assay-gates/proof",
        "/var/lib/assay-gates/proof/../spool/x",
        "/var/lib/assay-gates/proof/a/b",
        "/var/lib/assay-gates/proof/.hidden",
        "/var/lib/assay-gates/proof/-rf",
        "/var/lib/assay-gates/spool",
        "'/var/lib/assay-gates/proof/a b'",
    ] {
        let ran = stage.root(
            &holder,
            &format!("cd {checkout} && {called} run --gate one --runs 1 --no-pack --root={place}"),
        );
        let said = refused(&ran);
        assert!(said.contains("error[root_taken]") || said.contains("error[AG"), "{place}: {said}");
    }
    // The outcome of a cleanup, an archive: with the user's own rights.
    for words in ["record --output /srv/mine/x.tar.gz -- true", "record --effects /srv/mine/x -- true"] {
        refused(&stage.root(&holder, &format!("cd {checkout} && {called} {words}")));
    }
    assert_eq!(succeeded(&stage.root(&holder, "ls -A /srv/mine")), "");
    let ran = stage.root(
        &holder,
        &format!("cd {checkout} && {called} record --output mine.tar.gz -- true && stat -c %u mine.tar.gz"),
    );
    assert!(succeeded(&ran).contains(&format!("\n{UID}\n")), "{}", text(&ran));
}
