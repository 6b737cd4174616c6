//! SIGINT and SIGTERM as something to wait for, so that a run is always closed properly.

use crate::error::{Code, Error, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

static EVENT: OnceLock<EventFd> = OnceLock::new();
static EVENT_FD: AtomicI32 = AtomicI32::new(-1);
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// The process's interest in being told to stop. Installed once, for the rest of its life.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Takes SIGINT, SIGTERM and SIGHUP over.
    ///
    /// # Errors
    /// `Internal` when the kernel refuses the handler.
    pub fn install() -> Result<Self> {
        let failed = |error| Error::new(Code::Internal, format!("cannot handle signals: {error}"));
        if EVENT.get().is_none() {
            let event =
                EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(failed)?;
            let event = EVENT.get_or_init(|| event);
            EVENT_FD.store(event.as_fd().as_raw_fd(), Ordering::Release);
            let action = SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
            for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
                // SAFETY: `remember` only touches atomics and calls write(2), both async-signal-safe.
                unsafe { sigaction(signal, &action) }.map_err(failed)?;
            }
        }
        Ok(Self(()))
    }

    /// The signal that asked to stop, if one did.
    #[must_use]
    pub fn requested(self) -> Option<i32> {
        match SIGNAL.load(Ordering::Acquire) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Readable once a signal asked to stop, and from then on.
    #[must_use]
    pub fn fd(self) -> Option<BorrowedFd<'static>> {
        EVENT.get().map(AsFd::as_fd)
    }
}

extern "C" fn remember(signal: nix::libc::c_int) {
    let _first_stays = SIGNAL.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire);
    let one = 1u64.to_ne_bytes();
    // SAFETY: the descriptor lives as long as the process, the buffer is eight bytes of this frame; write(2) may be
    // called in a handler. Its result doesn't matter: a full counter is readable already.
    unsafe { nix::libc::write(EVENT_FD.load(Ordering::Acquire), one.as_ptr().cast(), one.len()) };
}
