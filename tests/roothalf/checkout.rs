//! Root runs nothing of the user's, and reads nothing for the user that the user can't.

use crate::stage::{UID, proof, refused, stage, succeeded, text};
use crate::support::need_root;

/// Writes down who runs it, then does what its name says.
const SPY: &str = "#!/bin/sh\nid -u >> /srv/home/ran-as\ncat\n";

/// Every program that git can be told to run by a repository, in one repository.
#[test]
fn what_a_checkout_tells_git_to_run_is_never_run_as_root() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "spied", &[("one", "", "echo hi > out.txt")]);
    let spy =
        format!("cat > /srv/home/spy <<'END'\n{SPY}END\nchmod 755 /srv/home/spy; rm -f /srv/home/ran-as");
    succeeded(&stage.user(&holder, &at, &spy));
    let configure = "for key in core.fsmonitor core.pager core.editor core.sshCommand core.askPass core.gitProxy \
        credential.helper diff.external filter.spy.clean filter.spy.smudge filter.spy.process gpg.program \
        uploadpack.packObjectsHook pager.status pager.rev-parse alias.status sequence.editor; do git config $key /srv/home/spy; done; \
        git config filter.spy.required true; git config --unset filter.spy.process; git config core.hooksPath /srv/home/hooks; \
        mkdir -p /srv/home/hooks; for hook in post-index-change post-checkout pre-commit reference-transaction; do cp /srv/home/spy /srv/home/hooks/$hook; done; \
        echo '* filter=spy diff=spy' > .gitattributes; touch -d '2001-01-01' gates/one/gate.yaml";
    succeeded(&stage.user(&holder, &at, configure));
    succeeded(&stage.run_gate(&holder, &at, "one", "401-1"));
    succeeded(&stage.user(&holder, &at, "sudo -n assay-gates doctor --gate one"));
    // As root itself, where nobody called sudo: the checkout still is somebody else's.
    let real_root = "/usr/local/bin/assay-gates run --gate one --no-pack --root /srv/roots-own";
    succeeded(&stage.root(&holder, &format!("cd {at} && {real_root}")));
    let ran = succeeded(&stage.root(&holder, "cat /srv/home/ran-as"));
    let mine = format!("{UID}\n");
    assert!(
        !ran.is_empty() && ran.replace(&mine, "").is_empty(),
        "run as somebody else, or not at all: {ran:?}"
    );
    let record = succeeded(&stage.root(&holder, &format!("cat {}/run.json", proof("401-1").display())));
    let head = succeeded(&stage.user(&holder, &at, "git rev-parse HEAD"));
    assert!(record.contains(head.trim()), "{record}");
}

#[test]
fn nothing_is_read_for_the_user_that_the_user_cannot_read() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    succeeded(&stage.root(
        &holder,
        "mkdir -p /srv/closed/open && echo 'secret: hunter2' > /srv/closed/open/f && chmod 700 /srv/closed && \
         echo 'secret: hunter2' > /srv/secret.yaml && chmod 600 /srv/secret.yaml",
    ));
    let show =
        "cat /run/assay-gates/fixture/* /run/assay-gates/fixture/open/* 2>&1; ls -R /run/assay-gates/fixture";
    let at = stage.checkout(
        &holder,
        "pried",
        &[
            ("absolute", "fixture: /srv/closed/open\n", show),
            ("upwards", "fixture: ../../../../closed/open\n", show),
            ("linked", "fixture: away\n", show),
            ("through", "fixture: up/closed/open\n", show),
        ],
    );
    succeeded(&stage.user(
        &holder,
        &at,
        "ln -s /srv/closed/open gates/linked/away && ln -s /srv gates/through/up",
    ));
    for gate in ["absolute", "upwards", "linked", "through"] {
        // Each alone: a definition that doesn't validate stops the whole catalog.
        let alone = format!("/srv/home/pried-{gate}");
        succeeded(&stage.user(
            &holder,
            &at,
            &format!("mkdir -p {alone}/gates && cp -a gates/{gate} {alone}/gates/"),
        ));
        let said = refused(&stage.run_gate(&holder, &alone, gate, "411-1"));
        assert!(!said.contains("hunter2"), "{gate}: {said}");
    }
    for (name, made) in [
        ("definition", "mkdir gates/x && ln -s /srv/secret.yaml gates/x/gate.yaml"),
        (
            "lockfile",
            "mkdir gates/x && cp ../pried/gates/absolute/gate.yaml gates/x/ && sed -i 's/^fixture.*/dependencies: {npm: {folder: .}}/; s/^id: .*/id: x/' gates/x/gate.yaml && ln -s /srv/secret.yaml gates/x/package-lock.json",
        ),
        (
            "requirements",
            "mkdir gates/x && cp ../pried/gates/absolute/gate.yaml gates/x/ && sed -i 's/^fixture.*/dependencies: {pip: {requirements: r.txt, target: t}}/; s/^id: .*/id: x/' gates/x/gate.yaml && ln -s /srv/secret.yaml gates/x/r.txt",
        ),
        ("folder", "rmdir gates && ln -s /srv/closed gates"),
    ] {
        let alone = format!("/srv/home/read-{name}");
        succeeded(&stage.user(
            &holder,
            "/srv/home",
            &format!("mkdir -p {alone}/gates && cd {alone} && {made}"),
        ));
        for words in [
            "doctor --gate x",
            "run --gate x --root /var/lib/assay-gates/proof/412-1 --no-pack --format github",
        ] {
            let said = refused(&stage.user(&holder, &alone, &format!("sudo -n assay-gates {words}")));
            assert!(!said.contains("hunter2") && !said.contains("secret:"), "{name}: {said}");
        }
    }
    // A fixture that is swapped for a link after it was looked at is mounted with the user's rights, or not at all.
    let at = stage.checkout(&holder, "swapped", &[("one", "fixture: ../two\n", show), ("two", "", "true")]);
    let swap = "for i in $(seq 3000); do ln -sfn /srv/closed/open gates/away; mv -T --exchange gates/two gates/away 2>/dev/null || \
        { mv -T gates/two gates/kept; mv -T gates/away gates/two; mv -T gates/two gates/away; mv -T gates/kept gates/two; }; done";
    let mut swapping = stage.user_command(&holder, &at, swap).spawn().unwrap();
    for number in 0..3 {
        let ran = stage.run_gate(&holder, &at, "one", &format!("42{number}-1"));
        let seen =
            stage.root(&holder, &format!("grep -rl hunter2 {} ", proof(&format!("42{number}-1")).display()));
        assert!(
            !text(&ran).contains("hunter2")
                && text(&seen).trim().lines().all(|line| line.starts_with("grep:")),
            "{}",
            text(&seen)
        );
    }
    let _ended = swapping.kill();
    swapping.wait().unwrap();
}

#[test]
fn packages_are_installed_as_their_checkouts_owner() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "packages", &[("one", "dependencies: {npm: {folder: .}}\n", "true")]);
    let fixture = "cd gates/one && echo '{\"name\":\"x\",\"version\":\"1.0.0\",\"scripts\":{\"preinstall\":\"id -u >> ../../ran\",\"install\":\"id -u >> ../../ran\",\"postinstall\":\"id -u >> ../../ran\",\"prepare\":\"id -u >> ../../ran\"}}' > package.json && \
        echo '{\"name\":\"x\",\"version\":\"1.0.0\",\"lockfileVersion\":3,\"requires\":true,\"packages\":{\"\":{\"name\":\"x\",\"version\":\"1.0.0\"}}}' > package-lock.json && \
        printf 'cache=../../cache\\nlogs-dir=../../logs\\nlogs-max=5\\nignore-scripts=false\\nscript-shell=/srv/home/spy\\n' > .npmrc && mkdir ../../cache ../../logs";
    succeeded(&stage.user(&holder, &at, fixture));
    let called = format!("env SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner");
    for who in ["", called.as_str()] {
        succeeded(&stage.root(&holder, &format!("cd {at} && rm -rf gates/one/node_modules && {who} /usr/local/bin/assay-gates dependencies --install >&2; cd {at} && test -n \"$(ls logs)\"")));
    }
    let strangers = format!("find {at} -not -user {UID}; cat {at}/ran 2>/dev/null");
    assert_eq!(
        succeeded(&stage.root(&holder, &format!("{strangers}; true"))),
        "",
        "not the user's, or a script was run"
    );
}

/// A repository that fetches what it lacks when it is read, by a program of its own choice.
#[test]
fn what_lane_reads_of_a_checkout_is_read_as_its_owner() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "lane", &[("one", "", "true")]);
    let made = "printf '#!/bin/sh\\nid -u >> /srv/home/ran-by-lane\\nexit 1\\n' > /srv/home/ssh; chmod 755 /srv/home/ssh; rm -f /srv/home/ran-by-lane; \
        git config core.repositoryformatversion 1; git config extensions.partialClone origin; git config remote.origin.url ssh://h/r; \
        git config remote.origin.promisor true; git config core.sshCommand /srv/home/ssh; \
        git update-index --add --cacheinfo 100644,1234567890123456789012345678901234567890,gates/lanes.yaml; \
        git -c user.name=u -c user.email=u@example.org commit-tree $(git write-tree --missing-ok) -m x";
    let commit = succeeded(&stage.user(&holder, &at, made));
    let lane =
        format!("/usr/local/bin/assay-gates lane --base {commit} --head {commit}", commit = commit.trim());
    for who in ["", &format!("env SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner")] {
        refused(&stage.root(&holder, &format!("cd {at} && {who} {lane}")));
        let ran = succeeded(&stage.root(&holder, "cat /srv/home/ran-by-lane; rm /srv/home/ran-by-lane"));
        assert!(ran.lines().all(|line| line == UID.to_string()), "run as somebody else: {ran}");
    }
}
