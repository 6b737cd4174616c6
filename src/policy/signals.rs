//! Signals that are meant for the server, since whoever stands for it must pass them on.

use super::proxy::{broken, thread};
use crate::error::Result;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// Gives each signal to `pass_on` from now on instead of to this process.
///
/// # Errors
/// `ProxyBroken`.
pub(super) fn forward(mut pass_on: impl FnMut(Signal) + Send + 'static) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2]
    {
        signals.add(signal);
    }
    let signal_error = |error: nix::Error| broken("cannot receive signals", error.into());
    signals.thread_block().map_err(signal_error)?;
    let arrivals = SignalFd::new(&signals).map_err(signal_error)?;
    thread("signals", move || {
        while let Ok(Some(arrival)) = arrivals.read_signal() {
            // A terminal sends to the whole process group: the server has that one already.
            if arrival.ssi_code == nix::libc::SI_KERNEL {
                continue;
            }
            if let Some(Ok(signal)) = i32::try_from(arrival.ssi_signo).ok().map(Signal::try_from) {
                pass_on(signal);
            }
        }
    })?;
    Ok(())
}
