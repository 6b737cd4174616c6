//! No variable of the caller's changes what root does, whatever sudo's policy lets through.

use crate::stage::{UID, proof, refused, run_form, stage, succeeded, text};
use crate::support::need_root;
use assay_gates::host::variables::OF_CALLER;

#[test]
fn variables_that_say_what_runs_or_where_root_writes_have_no_effect() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let checkout = stage.checkout(&holder, "variables", &[("one", "", "echo hi > out.txt")]);
    let evil = "mkdir -p bin tmp state && for name in git python3 node npm clang sh id; do \
        printf '#!/bin/sh\\nid -u >> /srv/home/variables/executed\\nexec /usr/bin/'$name' \"$@\"\\n' > bin/$name; chmod +x bin/$name; done; \
        cp /usr/lib/x86_64-linux-gnu/libz.so.1 evil.so 2>/dev/null || true; \
        printf '[core]\\n\\tfsmonitor = /srv/home/variables/bin/id\\n' > gitconfig; chmod -R a+rX .";
    succeeded(&stage.user(&holder, &checkout, evil));
    let at = &checkout;
    let set = format!(
        "PATH={at}/bin:$PATH HOME={at} TMPDIR={at}/tmp LD_PRELOAD={at}/evil.so LD_LIBRARY_PATH={at} LD_AUDIT={at}/evil.so \
         RUST_LOG=trace RUST_BACKTRACE=full ASSAY_GATES_STATE_DIR={at}/state ASSAY_GATES_HOST_FILE={at}/host.yaml \
         XDG_DATA_HOME={at}/data GIT_DIR={at}/.git GIT_CONFIG_GLOBAL={at}/gitconfig GIT_EXEC_PATH={at}/bin GIT_SSH={at}/bin/id \
         PYTHONPATH={at} PYTHONHOME={at} NODE_OPTIONS=--require={at}/x.js CLANG={at}/bin/clang BASH_ENV={at}/x ENV={at}/x \
         DOCKER_HOST=tcp://x SSL_CERT_FILE={at}/x npm_config_prefix={at} PIP_TARGET={at} HTTPS_PROXY=http://x:1"
    );
    // As the drop-in has it; and as a policy would that keeps everything.
    let through_sudo =
        stage.user(&holder, at, &format!("{set} sudo -n assay-gates {}", run_form("one", "301-1")));
    succeeded(&through_sudo);
    // LD_* would be at work before the first instruction of any program: taking them away is sudo's part.
    let all = set.replace("LD_", "XLD_");
    let kept = stage.root(
        &holder,
        &format!(
            "cd {at} && env {all} SUDO_UID={UID} SUDO_GID={UID} SUDO_USER=runner /usr/local/bin/assay-gates {}",
            run_form("one", "302-1")
        ),
    );
    succeeded(&kept);
    let left = stage.root(&holder, &format!("cd {at} && cat executed 2>/dev/null; find state tmp data -mindepth 1 2>/dev/null; find . -user root"));
    assert_eq!(text(&left), "", "something of the caller's was executed, or written to");
    for root in ["301-1", "302-1"] {
        let record = succeeded(&stage.root(&holder, &format!("cat {}/run.json", proof(root).display())));
        let head = succeeded(&stage.user(&holder, at, "git rev-parse HEAD"));
        assert!(record.contains(head.trim()), "{record}");
    }
}

#[test]
fn what_sudo_lets_through_is_what_the_tool_reads() {
    if !need_root() {
        return;
    }
    let (stage, holder) = stage();
    let drop_in = succeeded(&stage.root(&holder, "cat /etc/sudoers.d/assay-gates"));
    let kept: Vec<&str> = drop_in
        .lines()
        .filter_map(|line| line.split_once("env_keep += \"")?.1.strip_suffix('"'))
        .flat_map(str::split_whitespace)
        .collect();
    assert!(kept.len() > 5, "{drop_in}");
    for name in kept {
        assert!(
            OF_CALLER.iter().any(|(listed, _)| name == *listed),
            "{name} is kept by sudo and read by nobody"
        );
    }
    // A user that is no user is a reason to stop, not to go on as root.
    refused(
        &stage.root(&holder, "env SUDO_UID=runner /usr/local/bin/assay-gates run --gate one --root /srv/x"),
    );
}
