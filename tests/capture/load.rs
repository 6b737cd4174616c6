//! Four processes, 200,000 opens each: nothing may be lost, and every record is accounted for.

use crate::session::{Session, compile};
use crate::support;
use assay_gates::capture::Operation;
use std::process::{Command, Stdio};

#[test]
fn four_processes_with_200_000_opens_each_lose_nothing() {
    if !support::need_root() {
        return;
    }
    const EACH: u64 = 200_000;
    let session = Session::new();
    let program = compile(session.work.path(), "loop", include_str!("../../benches/loop.c"), &[]);
    let file = session.folder().join("file");
    std::fs::write(&file, "").unwrap();
    let output = std::fs::File::create(session.work.path().join("output")).unwrap();

    let mut command = Command::new(program);
    command.arg(&file).args([&EACH.to_string(), "4"]).stdout(Stdio::from(output));
    let recording = session.record(&mut command);

    let said = std::fs::read_to_string(session.work.path().join("output")).unwrap();
    let opened: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(opened, 4 * EACH, "the program's own count");
    assert!(recording.summary.proof.complete, "{:#?}", recording.summary.proof.reasons);
    assert_eq!(recording.summary.ringbuf_drops, 0);
    let mut by_process = std::collections::BTreeMap::new();
    for (position, effect) in recording.effects().unwrap().enumerate() {
        let effect = effect.unwrap();
        assert_eq!(effect.seq, position as u64);
        if effect.operation == Operation::Open
            && effect.path.is_some_and(|path| path.value == file.to_str().unwrap())
        {
            *by_process.entry(effect.process).or_insert(0) += 1;
        }
    }
    assert_eq!(by_process, [1, 2, 3, 4].map(|process| (process, EACH)).into());
}
