//! Root owns where root writes: the user reads and packs what was measured, and can change nothing of it.

use crate::stage::{proof, refused, stage, succeeded, text};
use crate::support::need_root;

#[test]
fn the_user_reads_and_packs_the_evidence_and_can_change_none_of_it() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "evidence", &[("failing", "", "echo hi > out.txt; exit 7")]);
    let ran = stage.run_gate(&holder, &checkout, "failing", "101-1");
    assert_eq!(ran.status.code(), Some(10), "{}", text(&ran));

    // Each way to make a failed gate a passed one.
    let root = proof("101-1").display().to_string();
    let before =
        succeeded(&stage.root(&holder, &format!("cd {root} && find . -type f | sort | xargs sha256sum")));
    for attempt in [
        "mv gates old",
        "mv gates/failing/verdict.json x",
        "echo passed > gates/failing/status.txt",
        "sed -i s/failed/passed/ gates/failing/verdict.json",
        "rm -rf gates",
        "rm run.json",
        "touch new",
        "mkdir gates/other",
        "ln -s /etc gates/failing/link",
        "ln gates/failing/verdict.json linked",
        "chmod 777 .",
        "chmod u+w run.json",
        "truncate -s 0 events.jsonl",
        "mv ../101-1 ../gone",
        "mkdir ../102-1",
        "ln -s /etc ../103-1",
    ] {
        refused(&stage.user(&holder, &root, attempt));
    }
    let after =
        succeeded(&stage.root(&holder, &format!("cd {root} && find . -type f | sort | xargs sha256sum")));
    assert_eq!(before, after);
    let modes = succeeded(&stage.root(
        &holder,
        &format!(
            "find {root} -not \\( -user root -a \\( -type d -a -perm 0755 -o -type f -a -perm 0644 \\) \\)"
        ),
    ));
    assert_eq!(modes, "", "not root's, or not of mode 0755 or 0644");

    let packed = stage.user(
        &holder,
        &checkout,
        &format!("assay-gates pack --root {root} --out pack --zip pack.zip && assay-gates verify pack.zip && assay-gates verify pack"),
    );
    succeeded(&packed);
    let status = stage.user(&holder, &checkout, "cat pack/manifest.json");
    assert!(succeeded(&status).contains("\"status\": \"failed\""), "{}", text(&status));
}

#[test]
fn a_root_that_root_did_not_make_is_not_taken() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "roots", &[("ssh", "", "echo hi > out.txt")]);
    succeeded(&stage.root(&holder, "mkdir -p /srv/victim/ssh && echo key > /srv/victim/ssh/key && echo X=1 > /srv/victim/cron && mkdir /srv/empty"));
    // What an older installation, whose folder was the user's, may have left there.
    let proof_roots = "/var/lib/assay-gates/proof";
    for (name, made) in [
        ("111-1", "ln -s /srv/empty 111-1"),
        ("112-1", "ln -s /srv/victim 112-1"),
        ("113-1", "ln -s nowhere 113-1"),
        ("114-1", "mkdir 114-1 && chown runner 114-1"),
        ("115-1", "mkdir 115-1 && chmod 777 115-1"),
        ("116-1", "mkdir 116-1 && mount -t tmpfs none 116-1"),
        ("117-1", "mkdir 117-1 && mount --bind /srv/empty 117-1"),
        ("118-1", "echo x > 118-1"),
        ("119-1", "mkdir 119-1 && echo x > 119-1/thesis.tex"),
    ] {
        succeeded(&stage.root(&holder, &format!("cd {proof_roots} && {made}")));
        let said = refused(&stage.run_gate(&holder, &checkout, "ssh", name));
        assert!(said.contains("error["), "{name}: {said}");
    }
    // In a root that is root's: links where root writes, appends and removes.
    succeeded(&stage.root(
        &holder,
        &format!("cd {proof_roots} && mkdir 120-1 && cd 120-1 && ln -s /srv/victim/cron events.jsonl && ln -s /srv/victim gates"),
    ));
    refused(&stage.run_gate(&holder, &checkout, "ssh", "120-1"));
    let untouched = stage.root(
        &holder,
        "cat /srv/victim/ssh/key /srv/victim/cron; ls -A /srv/empty | wc -l; stat -c %a /srv/empty",
    );
    assert_eq!(succeeded(&untouched), "key\nX=1\n0\n755\n");

    // And a folder of roots that somebody else could change is none of root's.
    succeeded(&stage.root(&holder, &format!("chown runner {proof_roots}")));
    let said = refused(&stage.run_gate(&holder, &checkout, "ssh", "122-1"));
    succeeded(&stage.root(
        &holder,
        &format!("chown root {proof_roots} && umount {proof_roots}/116-1 {proof_roots}/117-1"),
    ));
    assert!(said.contains("a folder of root's that nobody else can change"), "{said}");
}

/// A gate is measured as the system user that `host install` made, and as nobody whom a process already is.
#[test]
fn a_gate_is_measured_as_the_system_user_unless_a_process_is_that_user() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let says = "id -un; id -u; id -g; grep ^assay-measured /etc/passwd; true";
    let at = stage.checkout(&holder, "measured-user", &[("one", "", says)]);
    let users = succeeded(
        &stage.root(&holder, "getent passwd assay-measured; id -u assay-measured; id -g assay-measured"),
    );
    let [line, uid, gid] = users.lines().collect::<Vec<_>>()[..] else { panic!("{users}") };
    assert_ne!((uid, gid), ("0", "0"));
    let measured = |root: &str| {
        succeeded(&stage.run_gate(&holder, &at, "one", root));
        succeeded(&stage.root(&holder, &format!("cat {}/gates/one/run-1/stdout.log", proof(root).display())))
    };
    assert_eq!(measured("441-1"), format!("assay-measured\n{uid}\n{gid}\n{line}\n"));
    let someone = format!("setpriv --reuid {uid} --regid {gid} --clear-groups sleep 300 & echo $!");
    let pid =
        succeeded(&stage.root(&holder, &format!("{{ {someone}; }} 2>/dev/null >/srv/pid; cat /srv/pid")));
    let other = measured("442-1");
    succeeded(&stage.root(&holder, &format!("kill {}", pid.trim())));
    let second = other.lines().nth(1).unwrap().parse::<u32>().unwrap();
    assert!(second >= 2_080_000_000, "measured as somebody whom a process is: {other}");
}
