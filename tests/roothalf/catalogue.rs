//! What a reviewer would plant, each thing in a row: in the checkout, in the variables, on the path. Whatever of it is
//! started writes down who it is; nothing may be root, and the answer is success without harm, or an error that says where.

use crate::stage::{HOME, Stage, UID, proof, run_form, stage, succeeded, text};
use crate::support::need_root;
use std::process::Child;

/// How a call must end.
enum Answer {
    /// As if nothing had been planted.
    Fine,
    /// With an error that has each of these words.
    Refused(&'static [&'static str]),
}
use Answer::{Fine, Refused};

/// What is planted. `@` is the checkout, in all three.
struct Row {
    name: &'static str,
    /// A script of the user's in the checkout, which has a gate `one`.
    planted: &'static str,
    /// Variables of the call.
    variables: &'static str,
    /// What the call comes to.
    answer: Answer,
}

const fn row(name: &'static str, planted: &'static str, variables: &'static str, answer: Answer) -> Row {
    Row { name, planted, variables, answer }
}

/// Further lines of the definition, before its last ones.
const DEFINE: &str = "define() { sed -i \"/^expect/i $1\" gates/one/gate.yaml; }; ";
const LONG: &str = "x1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
    x1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890";

const ROWS: &[Row] = &[
    // Settings of installers, and scripts of packages.
    row(
        ".npmrc",
        "printf 'script-shell=@/spy\\nnode-options=--require=@/spy.js\\ngit=@/spy\\nprefix=/srv/canary\\ncache=/srv/canary\\nuserconfig=@/.npmrc\\n' > .npmrc; cp .npmrc gates/one/",
        "",
        Fine,
    ),
    row(
        "pip.conf",
        "printf '[global]\\ntarget=/srv/canary\\nlog=/srv/canary/pip\\npython=@/spy\\n' > pip.conf; cp pip.conf gates/one/",
        "PIP_CONFIG_FILE=@/pip.conf PIP_LOG=/srv/canary/log PIP_TARGET=/srv/canary",
        Fine,
    ),
    row(
        "package.json",
        "echo '{\"name\":\"x\",\"version\":\"1.0.0\",\"scripts\":{\"preinstall\":\"@/spy\",\"install\":\"@/spy\",\"postinstall\":\"@/spy\",\"prepare\":\"@/spy\"}}' | tee package.json > gates/one/package.json",
        "npm_config_ignore_scripts=false npm_config_script_shell=@/spy",
        Fine,
    ),
    // What interpreters, shells, loaders and git are told by variables.
    row("NODE_OPTIONS", "", "NODE_OPTIONS=--require=@/spy.js NODE_PATH=@ NODE_EXTRA_CA_CERTS=@/x", Fine),
    row(
        "PYTHONSTARTUP",
        "cp spy.py sitecustomize.py; cp spy.py usercustomize.py",
        "PYTHONSTARTUP=@/spy.py PYTHONPATH=@ PYTHONHOME=@ PYTHONINSPECT=1 PYTHONUSERBASE=@",
        Fine,
    ),
    row(
        "LD_PRELOAD",
        "",
        "LD_PRELOAD=@/spy.so LD_AUDIT=@/spy.so LD_LIBRARY_PATH=@ LD_DEBUG_OUTPUT=/srv/canary/ld LD_PROFILE_OUTPUT=/srv/canary",
        Fine,
    ),
    row(
        "GIT_CONFIG",
        "printf '[core]\\n\\tfsmonitor = @/spy\\n\\thooksPath = @/hooks\\n' > gitconfig; mkdir hooks; cp spy hooks/post-index-change",
        "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=core.fsmonitor GIT_CONFIG_VALUE_0=@/spy GIT_CONFIG_GLOBAL=@/gitconfig GIT_CONFIG_SYSTEM=@/gitconfig GIT_EXEC_PATH=@/bin GIT_SSH=@/spy GIT_SSH_COMMAND=@/spy GIT_ASKPASS=@/spy GIT_PAGER=@/spy GIT_EXTERNAL_DIFF=@/spy GIT_TRACE=/srv/canary/git GIT_DIR=@/.git GIT_WORK_TREE=@",
        Fine,
    ),
    row(
        "BASH_ENV",
        "",
        "BASH_ENV=@/spy ENV=@/spy SHELLOPTS=xtrace PS4='$(@/spy)' PROMPT_COMMAND=@/spy BASH_FUNC_id%%='() { @/spy; }'",
        Fine,
    ),
    row(
        "TMPDIR",
        "mkdir tmp; ln -s /srv/canary tmp/link",
        "TMPDIR=/srv/canary TMP=@/tmp TEMP=@/tmp/link XDG_RUNTIME_DIR=/srv/canary",
        Fine,
    ),
    row(
        "HOME",
        "mkdir -p .config/git .config/pip; printf '[core]\\n\\tfsmonitor = @/spy\\n' | tee .gitconfig > .config/git/config; echo 'script-shell=@/spy' > .npmrc; cp spy .bashrc; cp spy .profile",
        "HOME=@ XDG_CONFIG_HOME=@/.config XDG_DATA_HOME=/srv/canary XDG_CACHE_HOME=/srv/canary XDG_STATE_HOME=/srv/canary",
        Fine,
    ),
    row(
        "PATH",
        "",
        "PATH=@/bin:/usr/bin:/bin CLANG=@/bin/clang CC=@/bin/clang RUSTC_WRAPPER=@/spy CARGO=@/spy EDITOR=@/spy PAGER=@/spy",
        Fine,
    ),
    row(
        "its own variables",
        "",
        "ASSAY_GATES_STATE_DIR=/srv/canary ASSAY_GATES_HOST_FILE=@/host.yaml ASSAY_RUNNER_SDK_EVENT_LOG=/srv/canary/log RUST_LOG=trace RUST_BACKTRACE=full GITHUB_STEP_SUMMARY=/srv/canary/summary GITHUB_OUTPUT=/srv/canary/output GITHUB_ENV=/srv/canary/env",
        Fine,
    ),
    row(
        "a closed key",
        "",
        "ASSAY_REDACTION_KEY_FILE=/srv/secret",
        Refused(&["/srv/secret", "ermission denied"]),
    ),
    row("a closed event", "", "GITHUB_ACTIONS=true GITHUB_EVENT_PATH=/srv/secret", Fine),
    // Names of seeds.
    row("a seed upwards", "define 'seed: {../../x: hunter3}'", "", Refused(&["gates/one/gate.yaml", "seed"])),
    row(
        "a seed from the top",
        "define 'seed: {/srv/canary/x: hunter3}'",
        "",
        Refused(&["gates/one/gate.yaml", "seed"]),
    ),
    row(
        "a seed through ..",
        "define 'seed: {a/../../x: hunter3}'",
        "",
        Refused(&["gates/one/gate.yaml", "seed"]),
    ),
    row("a seed of no name", "define 'seed: {\"\": hunter3}'", "", Refused(&["gates/one/gate.yaml", "seed"])),
    row("a seed that is .", "define 'seed: {.: hunter3}'", "", Refused(&["gates/one/gate.yaml", "seed"])),
    row("a seed with a newline", "define 'seed: {\"a\\\\nb\": hunter3}'", "", Fine),
    row("a seed with a nul", "define 'seed: {\"a\\\\0b\": hunter3}'", "", Refused(&["seed"])),
    row(
        "a seed of a folder and a file",
        "define 'seed: {a: hunter3, a/b: hunter3}'",
        "",
        Refused(&["seed", "a/b"]),
    ),
    row("a long seed", "define \"seed: {$LONG: hunter3}\"", "", Refused(&["seed", "x1234567890"])),
    // Programs that a definition names.
    row(
        "an interpreter of the user's",
        "printf '#!@/spy\\n' > gates/one/run.sh; chmod 755 gates/one/run.sh; sed -i 's|^command.*|command: [/run/assay-gates/fixture/run.sh]|' gates/one/gate.yaml",
        "",
        Refused(&["run.sh", "its interpreter", "/spy"]),
    ),
    row(
        "an interpreter in the fixture",
        "cp spy gates/one/spy; printf '#!/run/assay-gates/fixture/spy\\n' > gates/one/run.sh; chmod 755 gates/one/*; sed -i 's|^command.*|command: [/run/assay-gates/fixture/run.sh]|' gates/one/gate.yaml",
        "",
        Fine,
    ),
    row(
        "a program of root's",
        "sed -i 's|^command.*|command: [/root/bin/x]|' gates/one/gate.yaml",
        "",
        Refused(&["/root/bin/x"]),
    ),
    row(
        "a program in the checkout",
        "sed -i 's|^command.*|command: [@/spy]|' gates/one/gate.yaml",
        "",
        Refused(&["/spy"]),
    ),
    // Files of root's by another name.
    row(
        "a hard link as definition",
        "mv -f linked-secret gates/one/gate.yaml",
        "",
        Refused(&["gates/one/gate.yaml", "ermission denied"]),
    ),
    row(
        "a hard link as policy",
        "mv linked-secret gates/one/policy.yaml; sed -i 's/policy: absent/policy: required/' gates/one/gate.yaml; define 'policy: {file: policy.yaml}'; sed -i 's/^expect.*/expect: {decisions: [{tool: x, tool_call_id: tc_1, decision: allow}]}/' gates/one/gate.yaml",
        "",
        Refused(&["policy"]),
    ),
    row(
        "a hard link as lock file",
        "mv linked-secret gates/one/package-lock.json; define 'dependencies: {npm: {folder: .}}'",
        "",
        Refused(&["package-lock.json", "ermission denied"]),
    ),
    row(
        "a hard link as a file of the fixture",
        "mv linked-secret gates/one/secret; sed -i 's|^command.*|command: [/bin/sh, -c, \"cat /run/assay-gates/fixture/secret; true\"]|' gates/one/gate.yaml",
        "",
        Fine,
    ),
    row(
        "a set-id program in the fixture",
        "mv linked-id gates/one/id; sed -i 's|^command.*|command: [/bin/sh, -c, \"/run/assay-gates/fixture/id -u > id; true\"]|' gates/one/gate.yaml",
        "",
        Fine,
    ),
    row("a folder of gates that is a link", "mv gates real; ln -s real gates", "", Fine),
    row(
        "a folder of gates that is a closed link",
        "mv gates real; ln -s /srv/closed-gates gates",
        "",
        Refused(&["gates", "ermission denied"]),
    ),
    row(
        "a gate that is a link",
        "mv gates/one real; ln -s ../real gates/one",
        "",
        Refused(&["/gates", "gate.yaml"]),
    ),
    row(
        "a definition that is a device",
        "rm gates/one/gate.yaml; ln -s /dev/zero gates/one/gate.yaml",
        "",
        Refused(&["/gates", "gate.yaml"]),
    ),
    row(
        "a definition that is a pipe",
        "rm gates/one/gate.yaml; mkfifo gates/one/gate.yaml",
        "",
        Refused(&["/gates", "gate.yaml"]),
    ),
];

/// Writes down who runs it, where only root could and where the user can.
const SPIES: &str = r#"
cat > spy <<'END'
#!/bin/sh
id=$(/usr/bin/id -u)
echo "$0 $id" >> /srv/home/spied
echo "$0 $id" >> /srv/canary/ran
exit 0
END
cat > spy.js <<'END'
try { const fs = require('fs'); fs.appendFileSync('/srv/home/spied', `node ${process.getuid()}\n`); fs.appendFileSync('/srv/canary/ran', 'node\n') } catch {}
END
cat > spy.py <<'END'
import os
for file in ('/srv/home/spied', '/srv/canary/ran'):
    try: open(file, 'a').write(f'python {os.getuid()}\n')
    except OSError: pass
END
[ -e ../spy.so ] || cat > ../spy.c <<'END'
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void ran(void) {
  int file = open("/srv/canary/ran", O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (file >= 0) { write(file, "loader\n", 7); close(file); }
}
END
[ -e ../spy.so ] || cc -shared -fPIC -o ../spy.so ../spy.c
cp ../spy.so .
mkdir bin
chmod 755 spy
for name in git clang clang-19 node python3 python npm npx pip pip3 tar sh bash env id kill visudo docker gh unshare mount; do cp spy bin/$name; done
"#;

const ROOTS: &str = "rm -rf /srv/canary /srv/linked /srv/home/linked && mkdir -m 755 /srv/canary && mkdir -p /srv/closed-gates/one && chmod 700 /srv/closed-gates && \
    echo 'secret: hunter2' > /srv/secret && chmod 600 /srv/secret && mkdir -m 755 /srv/home/linked && \
    echo 'secret: hunter2' > /srv/home/linked/secret && chmod 600 /srv/home/linked/secret && \
    cp /usr/bin/id /srv/home/linked/id && chmod 4755 /srv/home/linked/id && rm -f /srv/home/spied";

/// The row's checkout.
fn planted(stage: &Stage, holder: &Child, number: usize, row: &Row) -> String {
    let at = stage.checkout(holder, &format!("catalogue-{number}"), &[("one", "", "true")]);
    // Made by root, as a kernel without protected hard links would let the user: renaming them is the folder's owner's.
    let links = format!("for name in secret id; do ln {HOME}/linked/$name {at}/linked-$name; done");
    succeeded(&stage.root(holder, &links));
    succeeded(&stage.user(holder, &at, &format!("cat > plant <<'PLANT'\nset -e\n{SPIES}\nLONG={LONG}\n{DEFINE}\n{}\nPLANT\nbash plant && rm plant", row.planted.replace('@', &at))));
    at
}

#[test]
fn nothing_that_is_planted_runs_as_root_writes_as_root_or_reads_as_root() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    succeeded(&stage.root(&holder, ROOTS));
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        let at = planted(stage, &holder, number, row);
        let variables = row.variables.replace('@', &at);
        // As the drop-in has it; and as a policy would that keeps everything. LD_* is sudo's part: it would be at work
        // before the first instruction of any program.
        let kept = variables.replace("LD_", "XLD_");
        let called = format!("SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner /usr/local/bin/assay-gates");
        let through = format!(
            "env {variables} /usr/bin/sudo -n assay-gates {}",
            run_form("one", &format!("5{number:02}1-1"))
        );
        let mut calls = vec![("sudo", stage.user(&holder, &at, &through))];
        if !variables.is_empty() {
            let once = format!(
                "run --gate one --runs 1 --no-pack --root {}",
                proof(&format!("5{number:02}2-1")).display()
            );
            for (way, words) in [("kept", once.as_str()), ("doctor", "doctor --gate one")] {
                let call = format!("cd {at} && exec /usr/bin/env {kept} {called} {words}");
                calls.push((way, stage.root(&holder, &call)));
            }
        }
        for (way, output) in calls {
            let said = text(&output);
            let mut say =
                |what: &str| wrong.push(format!("{} ({way}): {what}: {}\n{said}", row.name, output.status));
            match &row.answer {
                // One run alone shows no agreement, and the host may warn of anything else.
                Fine if way == "sudo" && !output.status.success() => say("expected no harm"),
                // What sudo doesn't keep can't be refused.
                Refused(_) if way == "sudo" && !row.variables.is_empty() => {}
                Refused(_) if way != "doctor" && output.status.success() => say("expected an error"),
                Refused(words) if way != "doctor" && !words.iter().all(|word| said.contains(word)) => {
                    say("expected a place");
                }
                _ => {}
            }
            if said.contains("hunter2") || said.contains("panicked") {
                say("told what only root may read");
            }
        }
        let canary = text(
            &stage.root(&holder, "ls -A /srv/canary; cat /srv/canary/* 2>/dev/null; rm -rf /srv/canary/*"),
        );
        if !canary.is_empty() {
            wrong.push(format!("{}: root wrote {canary}", row.name));
        }
        let spied = text(&stage.root(&holder, "cat /srv/home/spied 2>/dev/null; rm -f /srv/home/spied"));
        if spied.lines().any(|line| line.ends_with(" 0")) {
            wrong.push(format!("{}: root ran {spied}", row.name));
        }
        let left = text(&stage.root(&holder, &format!("find {at} -user root ! -links +1; grep -rl hunter2 /var/lib/assay-gates/proof/5{number:02}?-1 2>/dev/null; ls /root/bin /tmp/x 2>/dev/null")));
        if !left.is_empty() {
            wrong.push(format!("{}: root left {left}", row.name));
        }
    }
    // What was linked is what it was.
    assert_eq!(
        text(&stage.root(&holder, &format!("cat {HOME}/linked/secret /srv/secret"))),
        "secret: hunter2\nsecret: hunter2\n"
    );
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n---\n"));
    assert!(!proof("5000-1").exists(), "the host's own results were written to");
}

/// What the drop-in doesn't grant, were it granted: a folder of gates that is a link, a baseline that is a hard link.
#[test]
fn what_a_wider_drop_in_would_grant_reads_and_writes_no_more_than_the_user_could() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let at = stage.checkout(&holder, "wider", &[("one", "", "echo hi > out.txt")]);
    succeeded(&stage.root(
        &holder,
        &format!("rm -rf /srv/wide && mkdir -m 700 /srv/wide && cp -a {at}/gates /srv/wide/ && echo 'roots own' > /srv/home/linked-file && chmod 644 /srv/home/linked-file && ln /srv/home/linked-file {at}/gates/one/baseline.json"),
    ));
    succeeded(&stage.user(&holder, &at, "ln -s /srv/wide/gates away"));
    let called = format!(
        "env -i PATH=/usr/bin:/bin SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner /usr/local/bin/assay-gates"
    );
    let call = |words: &str| stage.root(&holder, &format!("cd {at} && {called} {words}"));
    for words in [
        "run --gates-dir away --gate one --runs 1 --no-pack --root /var/lib/assay-gates/proof/591-1",
        "run --gates-dir /srv/wide/gates --gate one --runs 1 --no-pack --root /var/lib/assay-gates/proof/592-1",
        "dependencies --gates-dir away",
    ] {
        let output = call(words);
        assert!(
            !output.status.success() && text(&output).contains("ermission denied"),
            "{words}: {}",
            text(&output)
        );
    }
    let _either_way =
        call("run --gate one --runs 1 --no-pack --update-baseline --root /var/lib/assay-gates/proof/593-1");
    assert_eq!(
        text(&stage.root(&holder, "cat /srv/home/linked-file; stat -c %u /srv/home/linked-file")),
        "roots own\n0\n"
    );
}
