//! What the measured program is and sees.

use crate::bench::Bench;
use crate::support::need_root;
use assay_gates::error::Code;
use assay_gates::host::session::{Place, Session};
use assay_gates::host::user::MeasuredUser;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn the_program_is_unprivileged_for_good() {
    if !need_root() {
        return;
    }
    let user = MeasuredUser::alone(None).unwrap();
    let (uid, gid) = (user.uid, user.gid);
    let status =
        Bench::new().output("cat /proc/self/status; ulimit -c; umask; id -G; id -un; pwd; tty || true");
    for line in [
        &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
        &format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"),
        "Seccomp:\t2",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    let end = format!("0\n0022\n{gid}\nassay-measured\n/run/assay-gates/work\nnot a tty\n");
    assert!(status.ends_with(&end), "{status}");
}

#[test]
fn nothing_of_the_driver_is_inherited() {
    if !need_root() {
        return;
    }
    // The shell itself, not a child of it; 3 is what `ls` opens to list the folder.
    let said = Bench::new().output("exec ls /proc/self/fd");
    assert_eq!(said, "0\n1\n2\n3\n");
    let variables = Bench::new().output("exec env");
    let mut names: Vec<&str> = variables.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let expected = [
        "ASSAY_GATES_BIN",
        "ASSAY_GATES_FIXTURE",
        "ASSAY_GATES_WORK",
        "HOME",
        "LANG",
        "LC_ALL",
        "PATH",
        "PWD",
        "TZ",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_gate_sees_its_fixture_read_only_its_work_folder_and_nobodys_home() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    std::fs::write(bench.path("fixture/hello"), "from the fixture\n").unwrap();
    let mut spec = bench.gate(
        "cat $ASSAY_GATES_FIXTURE/hello seed/a
         echo made > made && cat made
         echo x > $ASSAY_GATES_FIXTURE/new; echo x > /usr/new; echo x > /etc/new
         ls /root; ls /home; ls /tmp /var/tmp /dev/shm /run /run/assay-gates
         $ASSAY_GATES_BIN --version > /dev/null && echo runs
         ls /proc/1",
    );
    let Place::Gate { seed, .. } = &mut spec.place else { unreachable!() };
    seed.insert("seed/a".into(), b"seeded\n".to_vec());
    let ended = bench.run(spec);
    let said = std::fs::read_to_string(&ended.stdout.path).unwrap();
    assert_eq!(
        said,
        "from the fixture\nseeded\nmade\n/dev/shm:\nassay-gates\n\n/run:\nassay-gates\n\n/run/assay-gates:\nbin\nfixture\npasswd\nwork\n\n/tmp:\n\n/var/tmp:\nruns\n"
    );
    let complained = std::fs::read_to_string(&ended.stderr.path).unwrap();
    for refused in [
        "fixture/new: Read-only",
        "/usr/new: Read-only",
        "/etc/new: Read-only",
        "'/root': Perm",
        "'/proc/1': No such",
    ] {
        assert!(complained.contains(refused), "{refused}\n{complained}");
    }
    assert_eq!(ended.work.read(Path::new("made"), 100).unwrap(), Some(b"made\n".to_vec()));
}

#[test]
fn what_the_program_leaves_is_read_without_following_its_links() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let ended = bench.run(bench.gate(
        "ln -s /etc/shadow link; mkfifo pipe; ln -s / root; mkdir sub; echo text > sub/file; head -c 5000 /dev/zero > large",
    ));
    for trap in ["link", "pipe", "root/etc/shadow", "sub", "../etc/shadow"] {
        assert_eq!(ended.work.open(Path::new(trap)).unwrap_err().code(), Code::Io, "{trap}");
    }
    assert_eq!(ended.work.read(Path::new("sub/file"), 5).unwrap(), Some(b"text\n".to_vec()));
    assert!(
        ended.work.read(Path::new("large"), 4999).unwrap_err().message().contains("larger than 4999 bytes")
    );
    assert!(ended.work.read(Path::new("nothing"), 5).unwrap().is_none());
}

#[test]
fn there_is_a_loopback_device_and_no_other() {
    if !need_root() {
        return;
    }
    let said = Bench::new()
        .output("grep -c : /proc/net/dev; grep -l . /sys/class/net/lo/flags; cat /proc/net/route | wc -l");
    assert!(said.starts_with("1\n"), "{said}");
    let said = Bench::new().output(
        "python3 -c 'import socket; a = socket.create_server((\"127.0.0.1\", 0)); socket.create_connection(a.getsockname()); print(\"up\")'",
    );
    assert_eq!(said, "up\n");
}

#[test]
fn record_leaves_the_hosts_files_as_they_are_but_hides_sockets_and_what_it_is_told_to() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let open = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(open.path().join("secret"), "s").unwrap();
    let mut spec = bench.spec(
        "cat secret; echo written > here; ls /run; ls closed; ls $ASSAY_GATES_WORK",
        Place::Host { cwd: open.path().to_owned() },
    );
    std::fs::create_dir(open.path().join("closed")).unwrap();
    spec.hide = vec![open.path().join("secret"), open.path().join("closed"), PathBuf::from("/no/such/place")];
    let ended = bench.run(spec);
    assert_eq!(std::fs::read_to_string(&ended.stdout.path).unwrap(), "assay-gates\n");
    assert_eq!(std::fs::read_to_string(open.path().join("here")).unwrap(), "written\n");
    let complained = std::fs::read_to_string(&ended.stderr.path).unwrap();
    assert!(
        complained.contains("secret: Permission denied") && complained.contains("'closed': Permission"),
        "{complained}"
    );
}

#[test]
fn a_program_that_the_user_cannot_execute_is_named_with_one_that_works() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.gate("");
    spec.argv = vec!["/etc/../etc/passwd".into()];
    let session = Session::prepare(&bench.host, spec).unwrap();
    let cgroup = session.cgroup().path().to_owned();
    let refused = session.spawn().unwrap_err();
    assert_eq!(refused.code(), Code::ProgramUnusable);
    assert!(refused.message().contains("can't execute"), "{}", refused.message());
    assert!(!cgroup.exists(), "a run that never began leaves its cgroup");
}
