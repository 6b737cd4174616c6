//! How a run ends: each way with its reason, and with nothing left behind.

use crate::bench::Bench;
use crate::support::need_root;
use std::time::Duration;

#[test]
fn exit_status_and_signal_of_the_root_process_are_told() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let ended = bench.run(bench.gate("exit 7"));
    assert_eq!((ended.outcome.exit_code, ended.outcome.signal), (Some(7), None));
    assert!(ended.program.ends_with("sh"));
    let ended = bench.run(bench.gate("kill -SEGV $$"));
    assert_eq!((ended.outcome.exit_code, ended.outcome.signal), (None, Some(11)));
}

#[test]
fn a_hanging_tree_is_killed_at_the_time_limit() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.gate("trap '' TERM INT HUP; sleep 1000 & sleep 1000");
    spec.timeout = Some(Duration::from_millis(300));
    let ended = bench.run(spec);
    assert!(ended.outcome.timed_out && !ended.outcome.interrupted);
    assert_eq!(ended.outcome.signal, Some(9));
}

#[test]
fn a_daemon_that_outlives_the_root_is_killed_and_counted() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let ended = bench.run(bench.gate("(trap '' TERM HUP; setsid sh -c 'sleep 1000' & ) ; exit 0"));
    assert_eq!(ended.outcome.exit_code, Some(0));
    assert!(ended.outcome.stragglers >= 1, "{:?}", ended.outcome);
    assert!(!ended.outcome.timed_out);
}

#[test]
fn a_fork_bomb_is_ended_at_its_number_of_processes() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.gate("bomb() { bomb | bomb & }; bomb; sleep 1000");
    spec.timeout = Some(Duration::from_secs(30));
    let ended = bench.run(spec);
    assert_eq!(ended.outcome.exceeded.as_deref(), Some("processes: more than 64"));
    assert!(!ended.outcome.timed_out && ended.outcome.elapsed_ms < 20_000, "{:?}", ended.outcome);
}

#[test]
fn a_flood_of_output_is_counted_and_cut() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let ended = bench.run(bench.gate("head -c 20000000 /dev/zero"));
    assert!(ended.outcome.success());
    assert_eq!((ended.stdout.bytes, ended.stdout.kept), (20_000_000, 64 * 1024));
    assert!(ended.stdout.truncated() && !ended.stderr.truncated());
    assert_eq!(std::fs::metadata(&ended.stdout.path).unwrap().len(), 64 * 1024);
}

#[test]
fn a_full_work_folder_or_tmp_is_the_programs_problem_alone() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let said = bench.output(
        "head -c 400000000 /dev/zero > /tmp/fill || echo full
         i=0; while [ $i -lt 20000 ] && true > /dev/shm/$i; do i=$((i+1)); done 2>/dev/null; echo $((i < 20000))",
    );
    assert_eq!(said, "full\n1\n");
}

#[test]
fn dropping_a_run_kills_its_tree() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let session =
        assay_gates::host::session::Session::prepare(&bench.host, bench.gate("sleep 1000")).unwrap();
    let cgroup = session.cgroup().path().to_owned();
    let running = session.spawn().unwrap();
    assert!(cgroup.exists());
    drop(running);
    assert!(!cgroup.exists());
}

#[test]
fn nothing_of_a_program_runs_before_the_word_is_given() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let session =
        assay_gates::host::session::Session::prepare(&bench.host, bench.gate("date +%s%N")).unwrap();
    let cgroup = session.cgroup().path().to_owned();
    let launching = session.launch().unwrap();
    // Long enough for a launcher that doesn't wait to be through: building the sandbox takes 10 ms.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap(), "");
    let word = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let ended = launching.go().unwrap().wait().unwrap();
    let said = std::fs::read_to_string(&ended.stdout.path).unwrap();
    let began: u128 = said.trim().parse().unwrap();
    assert!(began > word, "{began} is not after {word}");
    ended.remove().unwrap();

    let session =
        assay_gates::host::session::Session::prepare(&bench.host, bench.gate("echo ran > /dev/shm/x"));
    let session = session.unwrap();
    let cgroup = session.cgroup().path().to_owned();
    drop(session.launch().unwrap());
    assert!(!cgroup.exists());
}
