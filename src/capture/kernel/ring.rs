//! The one consumer of the ring: copies raw records to the spool for as long as the run lives.

use super::recorder::{Garbled, Sabotage};
use super::series::Series;
use crate::capture::spool::{Spool, Spooled};
use crate::error::{Code, Error, Result};
use aya::maps::{MapData, RingBuf};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Milliseconds after which the consumer looks even when nobody woke it: records are committed without a wake-up until the ring is a
/// quarter full.
const TICK_MS: u16 = 10;

/// The ring's own positions, mapped read-only.
struct Positions {
    consumer: NonNull<AtomicU64>,
    producer: NonNull<AtomicU64>,
    page: NonZeroUsize,
}

// SAFETY: the pages are shared with the kernel and only ever read through atomics.
unsafe impl Send for Positions {}

impl Positions {
    fn map(ring: &RingBuf<MapData>) -> Result<Self> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        let page = NonZeroUsize::new(page as usize).unwrap_or(NonZeroUsize::MIN);
        let map = |offset: usize| {
            // SAFETY: a new read-only mapping at an address of the kernel's choice touches no other memory.
            let mapped = unsafe {
                mmap(None, page, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, ring.as_fd(), offset as i64)
            };
            mapped
                .map(NonNull::cast)
                .map_err(|errno| super::load::refused("cannot map the ring's positions", &errno))
        };
        Ok(Self { consumer: map(0)?, producer: map(page.get())?, page })
    }

    /// (consumer, producer), in bytes since the ring was made.
    fn read(&self) -> (u64, u64) {
        // SAFETY: both mappings live as long as `self`, are page-aligned, and begin with the position.
        unsafe {
            (self.consumer.as_ref().load(Ordering::Acquire), self.producer.as_ref().load(Ordering::Acquire))
        }
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        for mapping in [self.consumer, self.producer] {
            // SAFETY: mapped by `map` with this length; nothing borrows from it any more.
            let _unmapped = unsafe { munmap(mapping.cast(), self.page.get()) };
        }
    }
}

struct Signals {
    /// Somebody waits for the consumer to look, now.
    look: EventFd,
    /// The tree is gone: drain what is left and end.
    stop: AtomicBool,
    /// For tests: leave the ring alone until the end.
    stalled: AtomicBool,
    /// Records taken so far.
    taken: AtomicU64,
    /// More came than is kept.
    over_budget: AtomicBool,
}

/// What the consumer took.
pub(super) struct Drained {
    /// What was kept.
    pub spooled: Spooled,
    /// Records taken from the ring.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Position of the consumer after the last record, from where it stood at the start.
    pub consumer: u64,
    /// Position of the producer after the last record, likewise.
    pub producer: u64,
    /// The most bytes that ever waited when the consumer looked.
    pub max_backlog: u64,
    /// How the waiting bytes went over the run.
    pub backlog: Series,
    /// The longest that the consumer did not look.
    pub max_lag: Duration,
    /// The ring, for another session.
    pub ring: RingBuf<MapData>,
}

/// The consumer's thread.
pub(super) struct Consumer {
    signals: Arc<Signals>,
    thread: JoinHandle<Result<Drained>>,
}

impl Consumer {
    pub(super) fn start(ring: RingBuf<MapData>, spool: Spool, sabotage: &Sabotage) -> Result<Self> {
        let look = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| consumer_failed("cannot make an eventfd", &errno))?;
        let signals = Arc::new(Signals {
            look,
            stop: AtomicBool::new(false),
            stalled: AtomicBool::new(sabotage.stalled_consumer),
            taken: AtomicU64::new(0),
            over_budget: AtomicBool::new(false),
        });
        let (drop_one, dead) = (sabotage.lose_a_record, sabotage.dead_consumer);
        let garbled = sabotage.garbled;
        let positions = Positions::map(&ring)?;
        let theirs = Arc::clone(&signals);
        let thread = std::thread::Builder::new()
            .name("capture-ring".into())
            .spawn(move || {
                if dead {
                    return Err(Error::new(
                        Code::CaptureConsumer,
                        "the consumer of the ring ended before the run",
                    ));
                }
                consume(ring, &positions, spool, &theirs, drop_one, garbled)
            })
            .map_err(|error| consumer_failed("cannot start the consumer", &error))?;
        Ok(Self { signals, thread })
    }

    /// Records taken so far; more soon, since it also asks for a look.
    pub(super) fn taken(&self) -> u64 {
        let _awake_already = self.signals.look.write(1);
        self.signals.taken.load(Ordering::Acquire)
    }

    /// Whether more came than is kept.
    pub(super) fn is_over_budget(&self) -> bool {
        self.signals.over_budget.load(Ordering::Relaxed)
    }

    /// The consumer's thread has ended by itself.
    pub(super) fn is_dead(&self) -> bool {
        self.thread.is_finished()
    }

    /// Drains what is left and gives back what was kept. Call it when nothing can produce any more.
    pub(super) fn finish(self) -> Result<Drained> {
        self.signals.stop.store(true, Ordering::Release);
        let _awake_already = self.signals.look.write(1);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::new(Code::CaptureConsumer, "the consumer of the ring died")))
    }
}

fn consume(
    mut ring: RingBuf<MapData>,
    positions: &Positions,
    mut spool: Spool,
    signals: &Signals,
    mut drop_one: bool,
    garbled: Option<Garbled>,
) -> Result<Drained> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        .map_err(|errno| consumer_failed("cannot wait for the ring", &errno))?;
    // Edge-triggered: the thread sleeps through commits that asked for no wake-up.
    let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
    epoll.add(&ring, interest).map_err(|errno| consumer_failed("cannot wait for the ring", &errno))?;
    let interest = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
    epoll.add(&signals.look, interest).map_err(|errno| consumer_failed("cannot wait for the end", &errno))?;
    // A ring that served an earlier session stands where that one left it, drained.
    let (start, _) = positions.read();
    let (mut records, mut bytes) = (0, 0);
    let (mut max_backlog, mut max_lag, mut looked) = (0, Duration::ZERO, Instant::now());
    let (began, mut backlog) = (Instant::now(), Series::default());
    loop {
        max_lag = max_lag.max(looked.elapsed());
        looked = Instant::now();
        let (consumer, producer) = positions.read();
        let waiting = producer.saturating_sub(consumer);
        max_backlog = max_backlog.max(waiting);
        backlog.add(began.elapsed(), waiting);
        let stopping = signals.stop.load(Ordering::Acquire);
        if stopping || !signals.stalled.load(Ordering::Relaxed) {
            while let Some(record) = ring.next() {
                records += 1;
                bytes += record.len() as u64;
                if std::mem::take(&mut drop_one) {
                    continue;
                }
                match garbled.filter(|garbled| garbled.is(&record)) {
                    Some(Garbled { at, .. }) => {
                        let mut wrong = record.to_vec();
                        wrong.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
                        spool.keep(&wrong);
                    }
                    None => spool.keep(&record),
                }
            }
            signals.taken.store(records, Ordering::Release);
            signals.over_budget.store(spool.is_over_budget(), Ordering::Relaxed);
        }
        if stopping {
            break;
        }
        let mut events = [EpollEvent::empty()];
        let _interrupted = epoll.wait(&mut events, EpollTimeout::from(TICK_MS));
    }
    let (consumer, producer) = positions.read();
    let (consumer, producer) = (consumer.saturating_sub(start), producer.saturating_sub(start));
    Ok(Drained {
        spooled: spool.finish()?,
        records,
        bytes,
        consumer,
        producer,
        max_backlog,
        backlog,
        max_lag,
        ring,
    })
}

fn consumer_failed(doing: &str, error: &dyn std::error::Error) -> Error {
    Error::new(Code::CaptureConsumer, format!("{doing}: {error}"))
}
