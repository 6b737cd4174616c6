//! The word to stop as something to wait for, so that a run is always closed properly.
//!
//! It is a signal, or what [`stop`](super::stop) sees of whoever started this process. Whichever comes first stays.

use crate::error::{Code, Error, Result};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

static EVENT: OnceLock<EventFd> = OnceLock::new();
static EVENT_FD: AtomicI32 = AtomicI32::new(-1);
/// A signal's number, or less than 0 for what no signal told.
static TOLD: AtomicI32 = AtomicI32::new(0);
static REASON: OnceLock<String> = OnceLock::new();
/// SIGHUP was ignored when this process began.
static SURVIVES: OnceLock<bool> = OnceLock::new();
const NO_SIGNAL: i32 = -1;

/// The process's interest in being told to stop. Installed once, for the rest of its life.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP over; the last one only where it was not ignored, as `nohup` has it.
    ///
    /// # Errors
    /// `Internal` when the kernel refuses the handler.
    pub fn install() -> Result<Self> {
        let failed = |error| Error::new(Code::Internal, format!("cannot handle signals: {error}"));
        let survives = *SURVIVES.get_or_init(hangup_is_ignored);
        if EVENT.get().is_none() {
            let event =
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(failed)?;
            let event = EVENT.get_or_init(|| event);
            EVENT_FD.store(event.as_fd().as_raw_fd(), Ordering::Release);
            let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
            let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
            for signal in signals.into_iter().filter(|signal| !survives || *signal != Signal::SIGHUP) {
                // SAFETY: `remember` only touches atomics and calls write(2), both async-signal-safe.
                unsafe { sigaction(signal, &action) }.map_err(failed)?;
            }
        }
        Ok(Self(()))
    }

    /// Whoever started this process wants it to go on without them: `nohup`.
    #[must_use]
    pub fn survives_its_starter(self) -> bool {
        SURVIVES.get().copied().unwrap_or_default()
    }

    /// Who told this process to stop, if somebody did.
    #[must_use]
    pub fn requested(self) -> Option<String> {
        told()
    }

    /// Tells this process to stop, as a signal would. What came first stays.
    pub fn tell(self, why: String) {
        let _first_stays = REASON.set(why);
        remember(NO_SIGNAL);
    }

    /// Readable once this process was told to stop, and from then on.
    #[must_use]
    pub fn fd(self) -> Option<BorrowedFd<'static>> {
        EVENT.get().map(AsFd::as_fd)
    }
}

/// Who told this process to stop, in words, once somebody did.
#[must_use]
pub fn told() -> Option<String> {
    match TOLD.load(Ordering::Acquire) {
        0 => None,
        NO_SIGNAL => Some(REASON.get().cloned().unwrap_or_default()),
        signal => Some(
            Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |name| name.to_string()),
        ),
    }
}

/// What failed after the word to stop, failed because of it.
///
/// # Errors
/// As `outcome`; `Interrupted` in place of whatever came behind the word to stop, a success among it.
pub fn unless_told<T>(outcome: Result<T>) -> Result<T> {
    match told() {
        Some(why) => Err(Error::new(Code::Interrupted, format!("told to stop: {why}"))),
        None => outcome,
    }
}

extern "C" fn remember(signal: libc::c_int) {
    let _first_stays = TOLD.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire);
    let one = 1u64.to_ne_bytes();
    // SAFETY: the descriptor lives as long as the process, the buffer is eight bytes of this frame; write(2) may be
    // called in a handler. Its result doesn't matter: a full counter is readable already.
    unsafe { libc::write(EVENT_FD.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
}

fn hangup_is_ignored() -> bool {
    let mut found = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null action changes nothing; the kernel fills `found`, which lives through the call.
    let result = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), found.as_mut_ptr()) };
    // SAFETY: zeroed memory is a valid `sigaction`, and the kernel wrote another one if the call succeeded.
    result == 0 && unsafe { found.assume_init() }.sa_sigaction == libc::SIG_IGN
}
