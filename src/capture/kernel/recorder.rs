//! One measured run, from arming to its recording.

use super::canary::{self, Canary};
use super::facts::{self, SessionCgroup};
use super::load::{Programs, Verified};
use super::ring::Consumer;
use crate::capture::ledger::Ledger;
use crate::capture::proof::{self, Missing, Seen};
use crate::capture::recording::Recording;
use crate::capture::spool::{Budget, Spool};
use crate::capture::{CallMarks, CallWindow, Outcome, RING_BYTES, object, raw};
use crate::error::{Code, Error, Result};
use sha2::{Digest, Sha256};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the begin canary's records may take to arrive.
const CANARY_PATIENCE: Duration = Duration::from_secs(5);

/// What a run needs.
#[derive(Clone, Debug)]
pub struct ArmOptions {
    /// The run.
    pub run_id: String,
    /// Folder of the session's cgroup: made by the caller, empty.
    pub cgroup: PathBuf,
    /// A private folder (mode 0700) of the driver, where records wait unnamed.
    pub spool: PathBuf,
    /// Size of the ring; rounded up to a power of two. [`RING_BYTES`] by default.
    pub ring_bytes: u32,
    /// Process whose children may move themselves into the session, before they run anything else: the driver by default.
    pub joiners_of: u32,
    /// Records and bytes kept; more is counted, not kept, and makes the run incomplete. Default 20 million and 8 GiB.
    pub budget: Budget,
    /// What tests break on purpose.
    pub sabotage: Sabotage,
}

/// Ways to break a recorder on purpose, so that tests can show that each is noticed.
#[derive(Clone, Debug, Default)]
pub struct Sabotage {
    /// The consumer leaves the ring alone until the end.
    pub stalled_consumer: bool,
    /// A program and its tracepoint (empty for a socket program) that the kernel seems not to have: a row of [`candidates`].
    ///
    /// [`candidates`]: crate::capture::candidates
    pub hidden: Option<(&'static str, &'static str)>,
    /// The consumer loses the first record.
    pub lose_a_record: bool,
    /// A byte of each such record is read wrongly.
    pub garbled: Option<Garbled>,
    /// The consumer ends at once.
    pub dead_consumer: bool,
}

/// Which records one byte is read wrongly of.
#[derive(Clone, Copy, Debug)]
pub struct Garbled {
    /// Their kind.
    pub kind: u16,
    /// Their number and first argument, where these matter.
    pub only: Option<(i32, u64)>,
    /// The place of the byte.
    pub at: usize,
}

impl Garbled {
    pub(super) fn is(&self, record: &[u8]) -> bool {
        raw::Record::parse(record).is_some_and(|record| {
            let header = &record.header;
            header.kind == self.kind && self.only.is_none_or(|only| only == (header.nr, header.a))
        })
    }
}

impl ArmOptions {
    /// Options with default sizes.
    #[must_use]
    pub fn new(run_id: impl Into<String>, cgroup: impl Into<PathBuf>, spool: impl Into<PathBuf>) -> Self {
        Self {
            run_id: run_id.into(),
            cgroup: cgroup.into(),
            spool: spool.into(),
            ring_bytes: RING_BYTES,
            joiners_of: std::process::id(),
            budget: Budget { records: 20_000_000, bytes: 8 << 30 },
            sabotage: Sabotage::default(),
        }
    }
}

/// Programs that the kernel has verified, or is verifying on a thread of its own while something else goes on.
///
/// Verifying takes longer than most runs; the programs of a run that came out complete serve the next one.
pub struct Loaded {
    ring_bytes: u32,
    state: State,
}

enum State {
    Loading(JoinHandle<Result<Verified>>),
    Ready(Box<Verified>),
}

impl Loaded {
    /// Begins, for a ring of this size.
    #[must_use]
    pub fn start(ring_bytes: u32) -> Self {
        let ring_bytes = ring_size(ring_bytes);
        let loading = std::thread::spawn(move || Verified::load(ring_bytes, &Sabotage::default()));
        Self { ring_bytes, state: State::Loading(loading) }
    }

    /// Size of their ring.
    #[must_use]
    pub fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    fn take(self) -> Result<Verified> {
        match self.state {
            State::Ready(verified) => Ok(*verified),
            State::Loading(thread) => thread
                .join()
                .map_err(|_| Error::new(Code::Internal, "loading the kernel programs panicked"))?,
        }
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("ring_bytes", &self.ring_bytes).finish_non_exhaustive()
    }
}

/// What the kernel takes as the size of a ring: a power of two, at least a page.
fn ring_size(wanted: u32) -> u32 {
    wanted.clamp(4096, 1 << 30).next_power_of_two()
}

/// An armed capture. Dropping it detaches the programs.
pub struct Recorder {
    run_id: String,
    spool: PathBuf,
    ring_bytes: u32,
    cgroup: SessionCgroup,
    programs: Programs,
    consumer: Consumer,
    begin: Option<Canary>,
    joiners_of: u32,
    programs_started: u32,
}

impl Recorder {
    /// Loads and attaches the programs for the session's cgroup and starts the consumer. Nothing may run in the cgroup yet.
    ///
    /// # Errors
    /// `CaptureUnavailable`, `CaptureLoad` and `CaptureCgroup` when this host can't measure; `Io` for the spool.
    pub fn arm(options: &ArmOptions) -> Result<Self> {
        Self::arm_with(options, None)
    }

    /// As [`Recorder::arm`], with programs that are loaded already when they are of this size.
    ///
    /// # Errors
    /// As [`Recorder::arm`].
    pub fn arm_with(options: &ArmOptions, loaded: Option<Loaded>) -> Result<Self> {
        facts::check_host()?;
        let cgroup = SessionCgroup::open(&options.cgroup)?;
        let spool = Spool::create(&options.spool, options.budget)?;
        let ring_bytes = ring_size(options.ring_bytes);
        let verified = match loaded {
            Some(loaded) if options.sabotage.hidden.is_none() && loaded.ring_bytes == ring_bytes => {
                loaded.take()?
            }
            _ => Verified::load(ring_bytes, &options.sabotage)?,
        };
        let mut programs = Programs::attach(verified, cgroup.folder(), cgroup.id)?;
        let consumer = Consumer::start(programs.take_ring()?, spool, &options.sabotage)?;
        Ok(Self {
            run_id: options.run_id.clone(),
            spool: options.spool.clone(),
            ring_bytes,
            cgroup,
            programs,
            consumer,
            begin: None,
            joiners_of: options.joiners_of,
            programs_started: 1,
        })
    }

    /// Whether more came than the budget keeps: nothing that the tree still does will be evidence.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.consumer.is_over_budget()
    }

    /// Says how many programs the driver started in the session; one, when nothing is said.
    pub fn started(&mut self, programs: u32) {
        self.programs_started = programs;
    }

    /// Id of the session's cgroup.
    #[must_use]
    pub fn session_cgroup_id(&self) -> u64 {
        self.cgroup.id
    }

    /// Where the driver marks the calls of this session.
    #[must_use]
    pub fn calls(&self) -> Arc<dyn CallMarks> {
        Arc::clone(self.programs.calls()) as Arc<dyn CallMarks>
    }

    /// Runs the begin canary and waits until its records are here. The measured process may start afterwards.
    ///
    /// # Errors
    /// `CaptureCanary` when it could not run or its records did not arrive: this host would not be measured.
    pub fn begin(&mut self) -> Result<()> {
        let canary = self.canary()?;
        if self.programs.session_level()?.is_none() {
            return Err(Error::new(
                Code::CaptureCanary,
                "the programs did not see the canary enter the session's cgroup",
            ));
        }
        let deadline = Instant::now() + CANARY_PATIENCE;
        while self.consumer.taken() < self.programs.counters()?.total_emitted() && !self.consumer.is_dead() {
            if Instant::now() > deadline {
                break; // a stalled consumer; the end of the run will say so
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.begin = Some(canary);
        Ok(())
    }

    fn canary(&self) -> Result<Canary> {
        canary::run(self.cgroup.folder(), self.cgroup.threads.as_fd(), &self.spool)
    }

    /// Takes one program away while the run goes on, so that tests can show that it is noticed.
    ///
    /// # Errors
    /// `CaptureLoad`, when there is no such program.
    pub fn sabotage_detach(&mut self, program: &str) -> Result<()> {
        self.programs.sabotage_detach(program)
    }

    /// Runs the end canary, drains the ring, detaches, closes the books. Call it when no task is left in the session.
    ///
    /// # Errors
    /// `CaptureConsumer` when the records can't be read back at all. Everything else is in the recording's proof.
    pub fn finish(self, outcome: Outcome, calls: Vec<CallWindow>) -> Result<Recording> {
        Ok(self.finish_with(outcome, calls)?.0)
    }

    /// As [`Recorder::finish`], and gives back the programs for another session: only when this one's proof is complete,
    /// so that nothing of it can be left in them.
    ///
    /// # Errors
    /// As [`Recorder::finish`].
    pub fn finish_with(
        self,
        outcome: Outcome,
        calls: Vec<CallWindow>,
    ) -> Result<(Recording, Option<Loaded>)> {
        let Self {
            run_id,
            cgroup,
            programs,
            consumer,
            begin,
            spool,
            ring_bytes,
            joiners_of,
            programs_started,
        } = self;
        let populated = cgroup.populated();
        let end = canary::run(cgroup.folder(), cgroup.threads.as_fd(), &spool);
        let drained = consumer.finish()?;
        if drained.spooled.disk_full {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(Error::io("cannot keep the kernel's records", &spool, full));
        }
        let by_cpu = programs.counters_by_cpu()?;
        let counters = programs.counters()?;
        let level = programs.session_level()?;
        let skipped = programs.skipped();
        let hooks = programs.hooks.clone();
        let verified = programs.detach(drained.ring);

        let canaries: Vec<u32> = begin.iter().chain(&end).map(|canary| canary.pid).collect();
        let mut ledger = Ledger::new(joiners_of, &canaries);
        let mut digest = Sha256::new();
        drained.spooled.read(|record| {
            digest.update(record);
            ledger.enter(record);
            Ok(())
        })?;
        ledger.close();

        let mut environment = facts::kernel();
        for (name, canary) in [("canary.begin", begin.as_ref()), ("canary.end", end.as_ref().ok())] {
            if let Some(canary) = canary {
                environment.insert(name.into(), canary.nonce.clone());
            }
        }
        environment.insert("canary.workers".into(), ledger.canary_workers.to_string());
        for (cpu, counters) in by_cpu.iter().enumerate() {
            environment.insert(format!("drops.cpu{cpu}"), counters.total_dropped().to_string());
        }
        for (at, hook) in raw::HOOKS.iter().enumerate() {
            let (emitted, dropped) = (counters.emitted[at], counters.dropped[at]);
            environment.insert(format!("records.{hook}"), format!("{emitted}/{dropped}"));
        }
        environment.insert("ring.bytes".into(), ring_bytes.to_string());
        environment.insert("ring.max_backlog_bytes".into(), drained.max_backlog.to_string());
        environment.insert("ring.backlog_over_time".into(), drained.backlog.to_string());
        environment.insert("reader.max_lag_ms".into(), drained.max_lag.as_millis().to_string());
        if let Some(load) = facts::load() {
            environment.insert("load".into(), load);
        }
        if let Some(object) = object::embedded() {
            environment.insert("object_sha256".into(), format!("sha256:{}", object.sha256));
            environment.insert("object_compiler".into(), object.compiler.into());
        }
        environment.insert("records_sha256".into(), format!("sha256:{}", hex::encode(digest.finalize())));
        environment
            .insert("session_cgroup_level".into(), level.map_or("unknown".into(), |level| level.to_string()));
        for hook in &hooks {
            let attached = hook.attached.clone().unwrap_or_else(|why| format!("missing: {why}"));
            environment.insert(format!("hook.{}", hook.program), attached);
            environment.insert(format!("capability.{}", hook.capability), hook.program.into());
            if let Some(tag) = &hook.tag {
                environment.insert(format!("tag.{}", hook.program), tag.clone());
            }
        }
        for one in skipped.iter().filter(|one| one.spare.is_some()) {
            let count = |misses: Option<u64>| misses.map_or("unknown".into(), |count| count.to_string());
            let said = format!("{}/{}", count(one.first), count(one.spare.flatten()));
            environment.insert(format!("skipped.{}", one.program), said);
        }
        let seen = Seen {
            run_id,
            outcome,
            calls,
            session_cgroup_id: cgroup.id,
            programs_started,
            tasks_before: cgroup.tasks_before.lines().count(),
            populated,
            level_known: level.is_some(),
            missing: hooks
                .iter()
                .filter(|hook| hook.attached.is_err())
                .map(|hook| Missing { capability: hook.capability, without: hook.without })
                .collect(),
            hooks: hooks.len(),
            unseen: skipped.iter().map(|one| (one.program.to_owned(), one.unseen())).collect(),
            begin: begin.map(|canary| (canary.pid, canary.expected)),
            end: end.map(|canary| (canary.pid, canary.expected)).map_err(|error| error.to_string()),
            counters,
            read: drained.records,
            read_bytes: drained.bytes,
            consumer: drained.consumer,
            producer: drained.producer,
            kept: drained.spooled.records,
            over_budget: drained.spooled.over_budget,
            spool_failure: drained.spooled.failure.clone(),
            environment,
        };
        let summary = proof::summary(seen, &ledger);
        let loaded = verified
            .filter(|_| summary.proof.complete)
            .map(|verified| Loaded { ring_bytes, state: State::Ready(Box::new(verified)) });
        Ok((Recording::new(summary, drained.spooled, canaries), loaded))
    }
}

impl ArmOptions {
    /// The same with another size of the ring.
    #[must_use]
    pub fn ring(mut self, bytes: u32) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// The same for a session whose programs are children of `process`.
    #[must_use]
    pub fn joiners_of(mut self, process: u32) -> Self {
        self.joiners_of = process;
        self
    }

    /// The same with another number of bytes that are kept.
    #[must_use]
    pub fn keep(mut self, bytes: u64) -> Self {
        self.budget.bytes = bytes;
        self
    }

    /// Folder of the session's cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }
}
